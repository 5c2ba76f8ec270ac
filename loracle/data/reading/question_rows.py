"""Rows of one question and its answer.

    {"instruction": "Translate.", "input": "Hund", "output": "dog",          alpaca
     "system": "Be brief.", "history": [["Translate. Katze", "cat"]]}
    {"prompt": "Who won?", "completion": "The Broncos"}                      prompt_completion
    {"query": "Who won?", "response": "The Broncos", "history": [...]}       the same, of ms-swift
    {"context": "The Broncos won.", "question": "Who won?",                  question_answer
     "answers": {"text": ["The Broncos"], "answer_start": [0]}}

`answer` and `answers` are a text, a list of texts, or SQuAD's lists of answers. The passage stands
before the question, so that questions about one passage share a prefix.
"""

from __future__ import annotations

from loracle.data.conversation import Message
from loracle.data.faults import Faults, Reason, filled_text, is_seen, kind_of
from loracle.data.reading.chat_rows import add_order_faults, parse_messages
from loracle.data.reading.options import ReadOptions
from loracle.data.reading.passages import passage_of
from loracle.data.reading.row_content import (
    RowContent,
    RowValue,
    answers_of,
    as_text,
    columns_for_rows,
    is_blank,
    keys_found,
    list_of,
    optional_text,
    system_turn,
)
from loracle.data.reading.tool_calls import tools_of


def parse_alpaca(row: RowValue, faults: Faults, options: ReadOptions) -> RowContent:
    """The user's turn is the instruction, and below it the input if there is one."""
    parts = [
        optional_text(row, "instruction", faults),
        optional_text(row, "input", faults),
    ]
    prompt = "\n".join(part for part in parts if part is not None)
    output = required_text(row, "output", faults)
    if not prompt and not faults:
        faults.add(
            Reason.MISSING,
            f"no instruction or input (keys found: {keys_found(row)}); fill one of the two",
        )
    messages = (
        *turns_before(row, faults),
        Message("user", prompt),
        Message("assistant", output or ""),
    )
    return RowContent(messages, answers_of(row, "answers", faults), tools_of(row, faults))


def turns_before(row: RowValue, faults: Faults) -> list[Message]:
    """The turns before the row's own question: the system's, and those of `history`."""
    system = system_turn(optional_text(row, "system", faults))
    return [*system, *_history(row.get("history"), faults)]


def _history(value: object, faults: Faults) -> list[Message]:
    """A list of [question, answer]."""
    if is_blank(value):
        return []
    expected = "a list of [question, answer]"
    turns: list[Message] = []
    for index, pair in enumerate(list_of(value, "history", expected, faults) or []):
        place = f"history[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            faults.add(Reason.WRONG_KIND, f"{place} is {kind_of(pair)}; expected {expected}")
            continue
        question = filled_text(pair[0], f"{place}[0]", faults)
        answer = filled_text(pair[1], f"{place}[1]", faults)
        if question is not None and answer is not None:
            turns += [Message("user", question), Message("assistant", answer)]
    return turns


def parse_prompt_completion(row: RowValue, faults: Faults, options: ReadOptions) -> RowContent:
    """Two texts, or two lists of messages, as TRL has them, or such a list and a text."""
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and not isinstance(completion, list) and not is_blank(completion):
        completion = [{"role": "assistant", "content": completion}]
    if isinstance(prompt, list) and isinstance(completion, list):
        others = {key: value for key, value in row.items() if key not in ("prompt", "completion")}
        return parse_messages({**others, "messages": [*prompt, *completion]}, faults, options)
    question = required_text(row, "prompt", faults)
    reply = required_text(row, "completion", faults)
    messages = (
        *turns_before(row, faults),
        Message("user", question or ""),
        Message("assistant", reply or ""),
    )
    if not faults:
        add_order_faults(messages, faults)
    return RowContent(messages, answers_of(row, "answers", faults), tools_of(row, faults))


def parse_question(row: RowValue, faults: Faults, options: ReadOptions) -> RowContent:
    """A question, the passage before it if there is one, and its answer or answers.

    The reply is `answer`, or else the first of `answers`; the references are `answers`, or
    `answer` where it is a list.
    """
    question = required_text(row, "question", faults)
    context = passage_of(row, faults)
    unanswerable = is_unanswerable(row)
    answers: tuple[str, ...]
    if unanswerable:
        reply, answers = options.unanswerable_reply, (options.unanswerable_reply,)
    else:
        replies = _answers(row, "answer", faults)
        answers = _answers(row, "answers", faults) or (replies if len(replies) > 1 else ())
        if answers and not any(map(is_seen, replies)):
            replies = ()
        reply = _first_reply((*replies, *answers), row, faults)
    prompt = f"Context: {context}\nQuestion: {question}" if context else f"{question}"
    messages = (
        *turns_before(row, faults),
        Message("user", prompt),
        Message("assistant", reply),
    )
    return RowContent(
        messages,
        answers,
        tools_of(row, faults),
        context=context,
        question=question,
        is_unanswerable=unanswerable,
    )


def is_unanswerable(row: RowValue) -> bool:
    """Whether a row is marked as SQuAD 2.0 marks questions without an answer: by `is_impossible`,
    or in its flat form, which lacks that, by an empty list of answer texts."""
    if isinstance(row.get("is_impossible"), bool):
        return row["is_impossible"] is True
    answers = row.get("answers")
    return isinstance(answers, dict) and answers.get("text") == []


def _first_reply(texts: tuple[str, ...], row: RowValue, faults: Faults) -> str:
    reply = next(iter(texts), None)
    if reply is None:
        if not faults:
            faults.add(
                Reason.MISSING,
                f"no answer (keys found: {keys_found(row)}); add one, text or a list of texts, or "
                "name its column, columns: {answer: ...}",
            )
        return ""
    if not is_seen(reply):
        faults.add(Reason.EMPTY, "answer is empty; fill it or leave the row out")
    return reply


def _answers(row: RowValue, key: str, faults: Faults) -> tuple[str, ...]:
    """Texts; SQuAD's list of {"text": ...}, or its flat {"text": [...]}; each text once."""
    value = row.get(key)
    if value is None:
        return ()
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    elif isinstance(value, dict) and isinstance(value.get("aliases"), list):
        # TriviaQA: an answer, and what else it is called.
        value = [value.get("value"), *value["aliases"]]
        value = [text for text in value if not is_blank(text)]
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = [item.get("text") for item in value]
    return tuple(dict.fromkeys(answers_of({key: value}, key, faults)))


def required_text(row: RowValue, key: str, faults: Faults) -> str | None:
    value = row.get(key)
    if value is None:
        faults.add(
            Reason.MISSING,
            f"no {key} (keys found: {keys_found(row)}); add it, or name its column, "
            f"columns: {{{key}: ...}}",
        )
        return None
    if isinstance(value, list | dict) and columns_for_rows(row):
        text = f"{key} is {kind_of(value)}, as are the other columns; expected rows, not columns: "
        faults.add(Reason.WRONG_KIND, f"{text}with pandas, to_json(orient='records', lines=True)")
        return None
    return filled_text(as_text(value), key, faults)
