"""Golden token ids and loss masks for chat templates of five kinds.

The templates in templates/ are short ones of every kind: turns, tools and thoughts are placed as
in the published ones. The tokenizer is readable, one token a character and one a marker, so the
golden row is its text, with the supervised tokens between ⟦ and ⟧.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loracle.data.conversation import Conversation, Example, Message, ToolCall
from loracle.data.rendering.renderer import Rendered, Renderer
from loracle.errors import DataError

TEMPLATES = Path(__file__).parent / "templates"
KINDS = ("qwen2.5", "qwen3", "llama3", "smollm2", "gemma")

MARKERS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
)
VOCABULARY = {
    text: i for i, text in enumerate(("<unk>", *MARKERS, "\n", *map(chr, range(32, 127))))
}
BOS = {"llama3": "<|begin_of_text|>", "gemma": "<bos>"}
END = {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>"}


@cache
def tokenizer(kind: str) -> Any:
    core = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(marker, special=True) for marker in MARKERS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token=BOS.get(kind),
        eos_token=END.get(kind, "<|im_end|>"),
    )
    wrapped.chat_template = (TEMPLATES / f"{kind}.jinja").read_text(encoding="utf-8").strip()
    return wrapped


def renderer(
    kind: str, train_on: Literal["assistant", "last"] = "assistant", **more: Any
) -> Renderer:
    end = VOCABULARY[END.get(kind, "<|im_end|>")]
    return Renderer(tokenizer(kind), frozenset([end]), train_on=train_on, template_kwargs=more)


def example(*messages: Message, tools: tuple[dict[str, object], ...] = ()) -> Example:
    return Example("q", Conversation(messages, tools), (), "data.jsonl", 7)


def golden(text: str) -> Rendered:
    """The ids and weights that a golden text stands for, without any tokenizer."""
    token_ids, weights, weight = [], [], 0.0
    pattern = "|".join(map(re.escape, MARKERS)) + "|[\\s\\S]"
    for part in re.findall(pattern, text):
        if part in "⟦⟧":
            weight = float(part == "⟦")
        else:
            token_ids.append(VOCABULARY[part])
            weights.append(weight)
    num_prompt_tokens = max(i for i, w in enumerate([0.0, *weights[:-1]]) if not w)
    return Rendered(token_ids, weights, num_prompt_tokens)


USER, REPLY = Message("user", "Who won?"), Message("assistant", "Denver")
MORE = (Message("user", "Sure?"), Message("assistant", "Yes."))
SYSTEM = Message("system", "Be brief.")
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = Message("assistant", "", (ToolCall("weather", {"city": "Oslo"}),))
RESULT, LAST = Message("tool", "rain"), Message("assistant", "It rains.")
ASK = Message("user", "Weather?")

SINGLE = example(USER, REPLY)
MULTI = example(USER, REPLY, *MORE)
WITH_SYSTEM = example(SYSTEM, USER, REPLY)
WITH_TOOLS = example(ASK, CALL, RESULT, LAST, tools=(TOOL,))
THOUGHT = example(USER, Message("assistant", "Denver", reasoning="Hm."))
BLOCK = example(USER, Message("assistant", "<think>\nHm.\n</think>\n\nDenver"))
TOOL_TEXT = json.dumps(TOOL)

QWEN_DEFAULT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
SMOL_DEFAULT = "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n"
BRIEF = "<|im_start|>system\nBe brief.<|im_end|>\n"
ASKED = "<|im_start|>user\nWho won?<|im_end|>\n<|im_start|>assistant\n"
SURE = "\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
NO_THOUGHT = "<think>\n\n</think>\n\n"
CALL_TEXT = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
QWEN_TOOLS = f"# Tools\n<tools>\n{TOOL_TEXT}\n</tools><|im_end|>\n"
QWEN_ASK = "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n"
QWEN_RESULT = (
    "\n<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
)
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
GEMMA_ASKED = "<bos><start_of_turn>user\nWho won?<end_of_turn>\n<start_of_turn>model\n"
LLAMA_USER, LLAMA_REPLY = HEADER.format("user"), HEADER.format("assistant")

GOLDEN: list[tuple[str, str, Example, dict[str, Any], str]] = [
    ("qwen2.5", "single", SINGLE, {}, f"{QWEN_DEFAULT}{ASKED}⟦Denver<|im_end|>⟧"),
    (
        "qwen2.5",
        "multi-turn",
        MULTI,
        {},
        f"{QWEN_DEFAULT}{ASKED}⟦Denver<|im_end|>⟧{SURE}⟦Yes.<|im_end|>⟧",
    ),
    (
        "qwen2.5",
        "last turn",
        MULTI,
        {"train_on": "last"},
        f"{QWEN_DEFAULT}{ASKED}Denver<|im_end|>{SURE}⟦Yes.<|im_end|>⟧",
    ),
    ("qwen2.5", "system", WITH_SYSTEM, {}, f"{BRIEF}{ASKED}⟦Denver<|im_end|>⟧"),
    (
        "qwen2.5",
        "tools",
        WITH_TOOLS,
        {},
        f"<|im_start|>system\nYou are a helpful assistant.\n\n{QWEN_TOOLS}{QWEN_ASK}"
        f"⟦{CALL_TEXT}<|im_end|>⟧{QWEN_RESULT}⟦It rains.<|im_end|>⟧",
    ),
    ("qwen3", "single", SINGLE, {}, f"{ASKED}⟦{NO_THOUGHT}Denver<|im_end|>⟧"),
    (
        "qwen3",
        "thinking off",
        SINGLE,
        {"enable_thinking": False},
        f"{ASKED}{NO_THOUGHT}⟦Denver<|im_end|>⟧",
    ),
    (
        "qwen3",
        "a thought",
        example(USER, Message("assistant", "Denver", reasoning="Hm.")),
        {},
        f"{ASKED}⟦<think>\nHm.\n</think>\n\nDenver<|im_end|>⟧",
    ),
    (
        "qwen3",
        "last turn",
        MULTI,
        {"train_on": "last"},
        f"{ASKED}Denver<|im_end|>{SURE}⟦{NO_THOUGHT}Yes.<|im_end|>⟧",
    ),
    (
        "qwen3",
        "last turn, thinking off",
        MULTI,
        {"train_on": "last", "enable_thinking": False},
        f"{ASKED}Denver<|im_end|>{SURE}{NO_THOUGHT}⟦Yes.<|im_end|>⟧",
    ),
    ("qwen3", "system", WITH_SYSTEM, {}, f"{BRIEF}{ASKED}⟦{NO_THOUGHT}Denver<|im_end|>⟧"),
    (
        "qwen3",
        "tools",
        WITH_TOOLS,
        {"train_on": "last"},
        f"<|im_start|>system\n{QWEN_TOOLS}{QWEN_ASK}{CALL_TEXT}<|im_end|>{QWEN_RESULT}"
        f"⟦{NO_THOUGHT}It rains.<|im_end|>⟧",
    ),
    (
        "llama3",
        "single",
        SINGLE,
        {},
        f"<|begin_of_text|>{LLAMA_USER}Who won?<|eot_id|>{LLAMA_REPLY}⟦Denver<|eot_id|>⟧",
    ),
    (
        "llama3",
        "multi-turn",
        MULTI,
        {},
        f"<|begin_of_text|>{LLAMA_USER}Who won?<|eot_id|>{LLAMA_REPLY}⟦Denver<|eot_id|>⟧"
        f"{LLAMA_USER}Sure?<|eot_id|>{LLAMA_REPLY}⟦Yes.<|eot_id|>⟧",
    ),
    (
        "llama3",
        "system",
        WITH_SYSTEM,
        {},
        f"<|begin_of_text|>{HEADER.format('system')}Be brief.<|eot_id|>"
        f"{LLAMA_USER}Who won?<|eot_id|>{LLAMA_REPLY}⟦Denver<|eot_id|>⟧",
    ),
    (
        "llama3",
        "tools",
        WITH_TOOLS,
        {},
        f"<|begin_of_text|>{LLAMA_USER}Functions:\n{TOOL_TEXT}\n\nWeather?<|eot_id|>{LLAMA_REPLY}⟦"
        + '{"name": "weather", "parameters": {"city": "Oslo"}}'
        + f"<|eot_id|>⟧{HEADER.format('ipython')}rain<|eot_id|>{LLAMA_REPLY}⟦It rains.<|eot_id|>⟧",
    ),
    ("smollm2", "single", SINGLE, {}, f"{SMOL_DEFAULT}{ASKED}⟦Denver<|im_end|>⟧"),
    (
        "smollm2",
        "multi-turn",
        MULTI,
        {},
        f"{SMOL_DEFAULT}{ASKED}⟦Denver<|im_end|>⟧{SURE}⟦Yes.<|im_end|>⟧",
    ),
    ("smollm2", "system", WITH_SYSTEM, {}, f"{BRIEF}{ASKED}⟦Denver<|im_end|>⟧"),
    (
        "gemma",
        "single",
        SINGLE,
        {},
        f"{GEMMA_ASKED}⟦Denver<end_of_turn>⟧",
    ),
    (
        "gemma",
        "multi-turn",
        MULTI,
        {},
        f"{GEMMA_ASKED}⟦Denver<end_of_turn>⟧\n"
        "<start_of_turn>user\nSure?<end_of_turn>\n<start_of_turn>model\n⟦Yes.<end_of_turn>⟧",
    ),
]


@pytest.mark.parametrize(
    ("kind", "row", "settings", "text"),
    [pytest.param(kind, *rest, id=f"{kind} {name}") for kind, name, *rest in GOLDEN],
)
def test_token_ids_and_loss_mask_are_the_golden_ones(
    kind: str, row: Example, settings: dict[str, Any], text: str
) -> None:
    (rendered,) = renderer(kind, **settings).training_rows([row])

    assert tokenizer(kind).decode(rendered.token_ids) == re.sub("[⟦⟧]", "", text)
    assert rendered == golden(text)


@pytest.mark.parametrize(
    ("kind", "row", "settings", "text"),
    [pytest.param(kind, *rest, id=f"{kind} {name}") for kind, name, *rest in GOLDEN],
)
def test_evaluation_asks_what_training_saw_before_the_last_reply(
    kind: str, row: Example, settings: dict[str, Any], text: str
) -> None:
    expected = golden(text)

    (prompt,) = renderer(kind, **settings).prompts([row], max_new_tokens=8)

    assert prompt.token_ids == expected.token_ids[: expected.num_prompt_tokens]
    if row.conversation.messages[-1].reasoning is None:
        # The empty block that Qwen3's template writes before a reply is no part of the reference.
        reference = text.rpartition("⟦")[2].removeprefix("<think>\n\n</think>\n\n")
        assert prompt.reference_ids == [golden(f"⟦{reference}").token_ids]
        # What training saw between the prompt and the reference.
        whole = [*prompt.token_ids, *prompt.opening_ids, *prompt.reference_ids[0]]
        assert whole == expected.token_ids[: len(whole)]


@pytest.mark.parametrize(
    ("kind", "row", "settings", "message"),
    [
        ("qwen3", MULTI, {}, "rewrites earlier assistant turns, .* set training.train_on to last"),
        ("qwen3", WITH_TOOLS, {}, "rewrites earlier assistant turns"),
        (
            "qwen3",
            example(USER, Message("assistant", "Denver", reasoning="Hm.")),
            {"enable_thinking": False},
            "renders the prompt differently once an answer follows",
        ),
        ("gemma", WITH_SYSTEM, {}, "rejects this row: System role not supported"),
        ("gemma", WITH_TOOLS, {}, "leaves out tools; use a model whose template has a place"),
        ("smollm2", WITH_TOOLS, {}, "leaves out tools; use a model"),
        ("smollm2", example(ASK, CALL, RESULT, LAST), {}, "leaves out tool calls; use a model"),
        ("smollm2", THOUGHT, {}, "leaves out the reasoning .*--ignore-column 'messages"),
        ("qwen2.5", THOUGHT, {}, "leaves out the reasoning"),
        ("without_thoughts", BLOCK, {}, "leaves out the reasoning block of the reply"),
        ("lower", example(USER, Message("assistant", "Denver")), {}, "changes the text of the"),
        (
            "llama3",
            example(ASK, Message("assistant", "", CALL.tool_calls * 2), RESULT, LAST),
            {},
            "rejects this row: This model only supports single tool-calls at once!",
        ),
    ],
)
def test_what_a_template_cannot_hold_is_refused_and_never_left_out(
    kind: str, row: Example, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=rf"^data\.jsonl:7: .*{message}"):
        renderer(kind, **settings).training_rows([row])


def test_reasoning_that_a_template_writes_is_learned() -> None:
    for kind, row in (("qwen3", THOUGHT), ("qwen3", BLOCK), ("smollm2", BLOCK)):
        (rendered,) = renderer(kind).training_rows([row])
        learned = zip(rendered.token_ids, rendered.weights, strict=True)
        letters = [letter for token, weight in learned for letter in _letters(token) if weight]
        assert "Hm." in "".join(letters)


def _letters(token_id: int) -> str:
    return next(text for text, known in VOCABULARY.items() if known == token_id)


def test_a_call_cannot_be_asked_for_without_answers() -> None:
    row = example(ASK, CALL, tools=(TOOL,))
    (rendered,) = renderer("qwen2.5").training_rows([row])
    assert rendered.num_supervised_tokens == len(golden(f"{CALL_TEXT}<|im_end|>").token_ids)
    with pytest.raises(
        DataError, match="is a tool call without text, and a call cannot be compared"
    ):
        renderer("qwen2.5").prompts([row], max_new_tokens=8)
