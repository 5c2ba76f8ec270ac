"""Token ids and loss weights, read as text through the readable tokenizer."""

from __future__ import annotations

import copy

import pytest

from loracle.data.conversation import Conversation, Example, Message
from loracle.data.rendering.renderer import Rendered, Renderer
from loracle.errors import DataError
from tests import tiny


def renderer(**changes) -> Renderer:
    tokenizer = changes.pop("tokenizer", None) or tiny.tokenizer()
    return Renderer(tokenizer, frozenset([tiny.tokenizer().eos_token_id]), **changes)


def templated(template: str):
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def supervised(row: Rendered) -> str:
    ids = [t for t, weight in zip(row.token_ids, row.weights, strict=True) if weight]
    return tiny.tokenizer().decode(ids)


def turns(*contents: str) -> Example:
    roles = ["user", "assistant"] * len(contents)
    messages = tuple(Message(role, text) for role, text in zip(roles, contents, strict=False))
    return Example("q", Conversation(messages), (), "data.jsonl", 7)


def test_the_loss_is_on_the_reply_and_its_end_token():
    (row,) = renderer().training_rows([turns("Who won?", "Denver")])
    text = tiny.tokenizer().decode(row.token_ids)
    assert text == "<|im_start|>user\nWho won?<|im_end|>\n<|im_start|>assistant\nDenver<|im_end|>"
    assert supervised(row) == "Denver<|im_end|>"
    assert row.num_prompt_tokens == len(row.token_ids) - len("Denver") - 1


def test_every_assistant_turn_is_supervised_or_only_the_last():
    example = turns("a?", "one", "b?", "two")
    (every,) = renderer().training_rows([example])
    (last,) = renderer(train_on="last").training_rows([example])
    assert supervised(every) == "one<|im_end|>two<|im_end|>"
    assert supervised(last) == "two<|im_end|>"
    assert every.token_ids == last.token_ids


def test_evaluation_prompts_are_what_training_saw_before_the_reply():
    example = turns("Who won?", "Denver")
    (row,) = renderer().training_rows([example])
    (prompt,) = renderer().prompts([example], 8)
    assert prompt.token_ids == row.token_ids[: row.num_prompt_tokens]
    assert prompt.reference_ids == [row.token_ids[row.num_prompt_tokens :]]


def test_a_reply_that_melts_into_the_template_is_cut_where_the_model_starts():
    class Merging:
        """A tokenizer that makes one token of two line breaks."""

        bos_token_id = None

        def __init__(self):
            self.inner = tiny.tokenizer()
            self.apply_chat_template = self.inner.apply_chat_template

        def __call__(self, text, add_special_tokens):
            parts = text.split("\n\n")
            ids: list[int] = []
            for i, part in enumerate(parts):
                ids += ([999] if i else []) + self.inner(part, add_special_tokens=False)[
                    "input_ids"
                ]
            return {"input_ids": ids}

    subject = renderer(tokenizer=Merging())
    (row,) = subject.training_rows([turns("Who?", "\nDenver")])
    assert subject.num_joined == 1
    assert 999 not in row.token_ids
    assert supervised(row) == "\nDenver<|im_end|>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}",
            "does not close the assistant turn with any of the model's end tokens",
        ),
        (
            "{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
            "renders the prompt differently once an answer follows",
        ),
        (
            "{{ raise_exception('roles must alternate') }}",
            "chat template rejects this row: roles must alternate",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused_with_the_rows_place(template, message):
    with pytest.raises(DataError, match=r"data\.jsonl:7: .*" + message):
        renderer(tokenizer=templated(template)).training_rows([turns("Who?", "Denver")])


def test_a_template_that_rewrites_earlier_turns_asks_for_the_last_turn_only():
    template = (
        "{% for m in messages %}<|im_start|>{% if not (loop.last and m.role == 'assistant') %}x"
        "{% else %}{{ m['content'] }}{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    with pytest.raises(DataError, match=r"set training\.train_on to last"):
        renderer(tokenizer=templated(template)).training_rows([turns("a?", "one", "b?", "two")])


def test_two_bos_tokens_are_refused():
    class Doubling:
        bos_token_id = 1

        def __init__(self):
            self.apply_chat_template = tiny.tokenizer().apply_chat_template

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [1, 1, *tiny.tokenizer()(text)["input_ids"]]}

    with pytest.raises(DataError, match="begins with two BOS tokens"):
        renderer(tokenizer=Doubling()).training_rows([turns("Who?", "Denver")])


def test_rows_over_the_limit_are_named_all_together_and_none_is_cut():
    rows = [turns("Who?" * 30, "Denver")] * 25 + [turns("Who?", "Denver")]
    with pytest.raises(DataError) as caught:
        renderer(max_length=60).training_rows(rows)
    assert len(caught.value.problems) == 21
    assert "tokens, the limit is 60; shorten or remove the row" in caught.value.problems[0]
    assert caught.value.problems[-1] == "and 5 more rows"


def test_a_prompt_needs_room_for_its_answer():
    example = turns("Who?", "Denver")
    renderer(max_length=60).prompts([example], 8)
    with pytest.raises(DataError, match="with 50 to generate, the limit is 60"):
        renderer(max_length=60).prompts([example], 50)


def marked(*weights: float) -> Example:
    """Turns whose replies "one", "two", ... have these loss weights."""
    messages: list[Message] = []
    for weight, reply in zip(weights, ("one", "two", "three"), strict=False):
        messages += [Message("user", f"{reply}?"), Message("assistant", reply, weight=weight)]
    return Example("q", Conversation(tuple(messages)), (), "data.jsonl", 7)


def test_a_reply_marked_as_not_to_be_learned_is_context():
    (row,) = renderer().training_rows([marked(1, 0, 1)])
    assert supervised(row) == "one<|im_end|>three<|im_end|>"
    (whole,) = renderer().training_rows([marked(1, 1, 1)])
    assert row.token_ids == whole.token_ids, "the mark changes no token"


def test_nothing_stands_behind_the_last_reply_that_is_learned():
    (row,) = renderer().training_rows([marked(1, 0)])
    assert row == renderer().training_rows([marked(1)])[0]


def test_a_loss_weight_is_that_of_its_tokens():
    (row,) = renderer().training_rows([marked(0.5, 1)])
    assert {w for w in row.weights if w} == {0.5, 1.0}
    assert sum(row.weights) == 0.5 * len("one.") + len("two.")


def test_a_row_with_nothing_left_to_learn_is_refused():
    with pytest.raises(DataError, match=r"data.jsonl:7: every reply that train_on selects is excl"):
        renderer(train_on="last").training_rows([marked(1, 0)])


def test_a_reply_that_must_not_be_learned_is_no_reference():
    with pytest.raises(DataError, match="excluded from the loss, so it is not a reference"):
        renderer().prompts([marked(1, 0)], 8)
