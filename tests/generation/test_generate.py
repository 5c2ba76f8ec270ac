"""Forest decoding against transformers' `generate`, one prompt at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig

from loracle.data.rendering.renderer import Renderer
from loracle.forest.attention.branches import BranchAttention
from loracle.generation.decoding import look_up
from loracle.generation.generate import Account, generate
from loracle.generation.types import Answer, GenerationSettings, GenerationStatistics, Question
from loracle.model import adapter
from loracle.model.base import BaseModel, answering, evaluation_precision, wrap_base
from tests import tiny

SETTINGS = GenerationSettings(
    max_new_tokens=16,
    repetition_penalty=1.0,
    prompt_lookup=True,
    answer_nll=False,
    batch_size=7,
    budget_tokens=300,
)


def tiny_base(kind: str = "llama") -> BaseModel:
    """A random model that declares several end tokens, so that some answers end early."""
    model = tiny.model(kind, tie_word_embeddings=False)
    model.generation_config.eos_token_id = [tiny.tokenizer().eos_token_id, *range(10, 98, 16)]
    return wrap_base(kind, model, tiny.tokenizer())


def prompts(base: BaseModel) -> list[list[int]]:
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    rendered = [prompt.token_ids for prompt in renderer.prompts(tiny.passage_examples(), 16)]
    # Prompts that are prefixes of one another, and one that stands twice.
    return [*rendered, rendered[0][:-4], rendered[0][:-9], rendered[5], rendered[5][:1]]


def by_transformers(
    base: BaseModel, prompt_ids: Sequence[int], penalty: float = 1.0, max_new_tokens: int = 16
) -> Answer:
    output = base.model.generate(
        torch.tensor([prompt_ids]),
        attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=penalty,
        eos_token_id=sorted(base.end_token_ids),
        pad_token_id=0,
    )
    row = output[0, len(prompt_ids) :].tolist()
    ends = [i for i, token_id in enumerate(row) if token_id in base.end_token_ids]
    return Answer(tuple(row[: ends[0]] if ends else row), "stop" if ends else "length")


def answers(
    base: BaseModel,
    questions: Sequence[Question],
    settings: GenerationSettings = SETTINGS,
    adapted=None,
    statistics: GenerationStatistics | None = None,
    forest: bool = True,
) -> list[Answer]:
    account = Account(statistics or GenerationStatistics())
    batches = generate(base, adapted, questions, settings, forest=forest, account=account)
    return [answer for batch in batches for answer in batch]


@pytest.mark.parametrize("kind", tiny.CONFIGS)
@pytest.mark.parametrize("penalty", [1.0, 1.1])
@pytest.mark.parametrize("lookup", [True, False])
def test_answers_are_those_of_one_prompt_at_a_time(kind, penalty, lookup):
    base = tiny_base(kind)
    asked = prompts(base)
    settings = dataclasses.replace(SETTINGS, repetition_penalty=penalty, prompt_lookup=lookup)
    expected = [by_transformers(base, ids, penalty) for ids in asked]
    assert {answer.finish_reason for answer in expected} == {"stop", "length"}
    assert answers(base, [Question(ids) for ids in asked], settings) == expected


def right(answer: Answer) -> list[tuple[int, ...]]:
    return [answer.token_ids]


def wrong(answer: Answer) -> list[tuple[int, ...]]:
    return [tuple(token_id ^ 1 for token_id in answer.token_ids) or (9,)]


def beginnings(answer: Answer) -> list[tuple[int, ...]]:
    return [answer.token_ids[:length] for length in (0, 1, 4)]


def overshooting(answer: Answer) -> list[tuple[int, ...]]:
    return [(*answer.token_ids, *([11] * 20)), (*answer.token_ids[:3], 50, 51)]


def ending(answer: Answer) -> list[tuple[int, ...]]:
    return [(*answer.token_ids, tiny.tokenizer().eos_token_id, 7)]


@pytest.mark.parametrize("drafts", [right, wrong, beginnings, overshooting, ending])
@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_drafts_never_change_an_answer(drafts, penalty):
    base = tiny_base()
    asked = prompts(base)
    settings = dataclasses.replace(SETTINGS, repetition_penalty=penalty)
    expected = [by_transformers(base, ids, penalty) for ids in asked]
    questions = [
        Question(ids, drafts={"x": drafts(answer)})
        for ids, answer in zip(asked, expected, strict=True)
    ]
    assert answers(base, questions, settings) == expected


def test_right_drafts_leave_nothing_to_decode():
    base = tiny_base()
    asked = prompts(base)
    expected = [by_transformers(base, ids) for ids in asked]
    statistics = GenerationStatistics()
    questions = [
        Question(ids, drafts={"x": [answer.token_ids]})
        for ids, answer in zip(asked, expected, strict=True)
    ]
    answers(base, questions, statistics=statistics)
    assert statistics.num_decode_steps == 0
    assert statistics.num_finished_by_drafts == len(asked)


def test_a_source_of_useless_drafts_is_left_out_after_a_while():
    base = tiny_base()
    asked = prompts(base) * 4
    statistics = GenerationStatistics()
    questions = [Question(ids, drafts={"bad": [[5] * 16]}) for ids in asked]
    answers(base, questions, statistics=statistics)
    assert 100 <= statistics.proposed["bad"] < 16 * len(asked) / 2


def test_the_answer_is_wrong_when_a_branch_sees_another(monkeypatch):
    base = tiny_base()
    asked = prompts(base)
    expected = [by_transformers(base, ids) for ids in asked]
    attend = BranchAttention.attend

    def see_the_whole_row(self, *arguments):
        self.path_SL = torch.ones_like(self.path_SL)
        return attend(self, *arguments)

    monkeypatch.setattr(BranchAttention, "attend", see_the_whole_row)
    assert answers(base, [Question(ids) for ids in asked]) != expected


def test_an_adapter_answers_as_it_does_in_transformers():
    base = tiny_base()
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = adapter.attach(base.model, config, 0)
    torch.manual_seed(2)
    for name, parameter in adapter.trainable(adapted):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.eval()
    asked = prompts(base)
    with_adapter = [by_transformers(base, ids) for ids in asked]
    assert answers(base, [Question(ids) for ids in asked], adapted=adapted) == with_adapter
    adapter.detach(adapted)
    assert answers(base, [Question(ids) for ids in asked]) != with_adapter


def test_the_negative_log_likelihood_is_that_of_the_likeliest_reference():
    base = tiny_base()
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    example = tiny.example("Which?", "one", answers=("one", "two tails"))
    (prompt,) = renderer.prompts([example], 16)
    settings = dataclasses.replace(SETTINGS, answer_nll=True)
    (answer,) = answers(base, [Question(prompt.token_ids, prompt.reference_ids)], settings)
    expected = []
    for reference in prompt.reference_ids:
        ids = torch.tensor([[*prompt.token_ids, *reference]])
        logprobs = base.model(ids).logits[0].log_softmax(-1)
        places = range(len(prompt.token_ids) - 1, ids.shape[1] - 1)
        expected.append(-sum(float(logprobs[t, ids[0, t + 1]]) for t in places))
    assert answer.nll == pytest.approx(min(expected), rel=1e-5)


def test_the_likelihood_is_given_the_empty_reasoning_block_and_not_of_it():
    base = tiny_base()
    renderer = Renderer(base.tokenizer, base.end_token_ids)
    example = tiny.example("Which?", "one", answers=("one", "two tails"))
    (prompt,) = renderer.prompts([example], 16)
    opening = tuple(prompt.reference_ids[1][:3])
    settings = dataclasses.replace(SETTINGS, answer_nll=True)
    question = Question(prompt.token_ids, prompt.reference_ids, {}, opening)
    (answer,) = answers(base, [question], settings)
    expected = []
    for reference in prompt.reference_ids:
        ids = torch.tensor([[*prompt.token_ids, *opening, *reference]])
        logprobs = base.model(ids).logits[0].log_softmax(-1)
        places = range(len(prompt.token_ids) + len(opening) - 1, ids.shape[1] - 1)
        expected.append(-sum(float(logprobs[t, ids[0, t + 1]]) for t in places))
    assert answer.nll == pytest.approx(min(expected), rel=1e-5)
    (plain,) = answers(base, [Question(prompt.token_ids)])
    assert answer.token_ids == plain.token_ids


def test_without_a_forest_transformers_answers_and_pads_nothing():
    base = tiny_base()
    asked = prompts(base)
    expected = [by_transformers(base, ids) for ids in asked]
    assert answers(base, [Question(ids) for ids in asked], forest=False) == expected


def test_sampling_goes_through_transformers_and_is_seeded():
    base = tiny_base()
    questions = [Question(ids) for ids in prompts(base)[:9]]
    settings = dataclasses.replace(
        SETTINGS, sampling={"do_sample": True, "temperature": 1.5, "top_k": 0}
    )
    first = answers(base, questions, settings)
    assert answers(base, questions, settings) == first
    assert answers(base, questions, dataclasses.replace(settings, seed=1)) != first


def test_beam_search_equals_transformers():
    base = tiny_base()
    asked = prompts(base)[:3]
    settings = dataclasses.replace(SETTINGS, sampling={"do_sample": False, "num_beams": 3})
    found = answers(base, [Question(ids) for ids in asked], settings)
    for ids, answer in zip(asked, found, strict=True):
        output = base.model.generate(
            torch.tensor([ids]), max_new_tokens=16, num_beams=3, pad_token_id=0, do_sample=False
        )
        row = output[0, len(ids) :].tolist()
        assert row[: len(answer.token_ids)] == list(answer.token_ids)


def test_float32_evaluation_of_a_bfloat16_base_leaves_the_base_as_it_was():
    base = wrap_base("llama", tiny.model().to(torch.bfloat16), tiny.tokenizer())
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    with evaluation_precision(base, "float32") as precise:
        assert next(precise.model.parameters()).dtype == torch.float32
        assert precise.dtype == torch.float32
    after = base.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert after["lm_head.weight"].dtype == torch.bfloat16


def test_answering_rounds_the_adapter_and_puts_it_back():
    base = wrap_base("llama", tiny.model().to(torch.bfloat16), tiny.tokenizer())
    adapted = adapter.attach(base.model, LoraConfig(target_modules="all-linear"), 0)
    before = {name: (p, p.data, p.data.clone()) for name, p in adapter.trainable(adapted)}
    with answering(base, adapted):
        assert {p.dtype for _, p in adapter.trainable(adapted)} == {torch.bfloat16}
    for name, parameter in adapter.trainable(adapted):
        same_parameter, data, values = before[name]
        assert parameter is same_parameter
        assert parameter.data.data_ptr() == data.data_ptr()
        assert torch.equal(parameter.data, values)
    with answering(wrap_base("llama", tiny.model(), tiny.tokenizer()), adapted):
        assert {p.dtype for _, p in adapter.trainable(adapted)} == {torch.float32}


def test_lookup_copies_what_follows_the_longest_match():
    prompt = [1, 2, 3, 4, 5, 9, 3, 4, 7, 8]
    assert look_up(prompt, [2, 3, 4], 3) == [5, 9, 3]
    assert look_up(prompt, [0, 3, 4], 2) == [7, 8]
    assert look_up(prompt, [6], 3) == []
    assert look_up(prompt, [8], 3) == []
