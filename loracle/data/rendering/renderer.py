"""Conversations to token ids and loss weights, by the tokenizer's own chat template.

    <|im_start|>user\\nWho won?<|im_end|>\\n<|im_start|>assistant\\nDenver<|im_end|>\\n
    0 0         0    0 0   0  0         0  0           0        0  1     1

The same renderer is used for training and evaluation, so prompts match the training rows token for
token. Ids after the last supervised one are left out, since nothing learns from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from loracle.data.conversation import Conversation, Example, JsonObject, Message, ToolCall
from loracle.data.reasoning import without_empty_block
from loracle.data.rendering.limits import TemplateLimitError, check_output, limited
from loracle.data.rendering.shortening import Cut, Overlong, shorten
from loracle.data.rendering.written import left_out
from loracle.errors import DataError, ModelError
from loracle.text import counted

_MAX_SHOWN = 20
_OPENING_CHARACTERS = 40
_PROBE = "loracle_probe"


class Rendered(NamedTuple):
    """One training row. `weights[t]` is the loss weight of predicting `token_ids[t]`."""

    token_ids: list[int]
    weights: list[float]
    num_prompt_tokens: int

    @property
    def num_supervised_tokens(self) -> int:
        return sum(weight != 0 for weight in self.weights)


class RenderedPrompt(NamedTuple):
    """One evaluation row: the prompt's ids, and each reference's with its end token.

    opening_ids: what the template writes between them, an empty reasoning block; a model that was
    trained with this template writes it first. It is no part of a reference.
    """

    token_ids: list[int]
    reference_ids: list[list[int]]
    opening_ids: tuple[int, ...] = ()


Row = TypeVar("Row", Rendered, RenderedPrompt)


class OverlongRow(NamedTuple):
    """A row that was too long. cuts: what was cut out of it; empty if it was left out. num_tokens:
    its original length in tokens, including what is to be generated."""

    example: Example
    num_tokens: int
    limit: int
    cuts: tuple[Cut, ...]
    reason: str


@dataclass(frozen=True)
class Fitted(Generic[Row]):
    """Rendered rows that fit, and what happened to those that did not.

    examples: the examples of `rows`, as rendered: shortened ones with their cuts applied.
    """

    examples: list[Example]
    rows: list[Row]
    shortened: list[OverlongRow]
    dropped: list[OverlongRow]


class _Turn(NamedTuple):
    """Text up to where the assistant starts, and text up to the end of that turn."""

    before: str
    through: str

    @property
    def with_opening(self) -> str:
        """The reply, and the end of the prompt, where a block of reasoning may be opened."""
        return self.through[max(0, len(self.before) - _OPENING_CHARACTERS) :]

    @property
    def without_empty_reasoning(self) -> _Turn:
        """The turn without the empty reasoning block that a template puts before its content."""
        reply = without_empty_block(self.through[len(self.before) :])
        return self._replace(through=self.before + reply)


@dataclass
class Renderer:
    """Renders with one tokenizer.

    end_token_ids: the ids that may end a turn, as the model declares them.
    train_on: "assistant" supervises every assistant turn, "last" only the last one; one that the
        data excludes from the loss is only context.
    max_length: longest row allowed, in tokens; None is no limit. max_length_reason: why, in words.
        overlong: what `fit_training` and `fit_prompts` do with a longer one (see shortening.py).
    num_joined: rows so far whose reply merges with the template when tokenized as one text; their
        parts were tokenized separately, which is also what generation sees.
    """

    tokenizer: Any
    end_token_ids: frozenset[int]
    train_on: Literal["assistant", "last"] = "assistant"
    max_length: int | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    overlong: Overlong = "error"
    num_joined: int = 0
    max_length_reason: str = ""
    _takes: dict[str, bool] = field(default_factory=dict)
    _known_ids: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _last_length: int = field(default=0, init=False, repr=False)

    def training_rows(self, examples: Sequence[Example]) -> list[Rendered]:
        """Render for training.

        Raises:
            DataError: rows that the template rejects, that have no end token, or are too long.
        """
        return self._each(examples, self._training_row)

    def fit_training(self, examples: Sequence[Example]) -> Fitted[Rendered]:
        """Render for training; the policy decides what happens to rows that are too long.

        Raises:
            DataError: as `training_rows`; rows that are too long only under `error`.
        """
        return self._fit(examples, self._training_row)

    def fit_prompts(
        self, examples: Sequence[Example], max_new_tokens: int
    ) -> Fitted[RenderedPrompt]:
        """Render for evaluation; the policy decides what happens to prompts that are too long."""
        return self._fit(examples, lambda example: self._prompt(example, max_new_tokens))

    def prompts(self, examples: Sequence[Example], max_new_tokens: int) -> list[RenderedPrompt]:
        """Render the prompts and references for evaluation.

        Raises:
            DataError: as for training; a prompt needs room for `max_new_tokens` more.
        """
        return self._each(examples, lambda example: self._prompt(example, max_new_tokens))

    def _each(self, examples: Sequence[Example], render: Any) -> list[Any]:
        rows, problems = [], []
        for example in examples:
            try:
                rows.append(render(example))
            except _RowError as error:
                problems.append(f"{example.where}: {error}")
        if problems:
            more = len(problems) - _MAX_SHOWN
            shown = problems[:_MAX_SHOWN] + ([f"and {more} more rows"] if more > 0 else [])
            raise DataError(shown)
        return rows

    def _fit(self, examples: Sequence[Example], render: Callable[[Example], Row]) -> Fitted[Row]:
        kept: list[Example] = []
        shortened: list[OverlongRow] = []
        dropped: list[OverlongRow] = []

        def fit(example: Example) -> Row | None:
            try:
                row = render(example)
            except _OverlongError as error:
                if self.overlong == "error":
                    raise
                fitted = self._shortened(example, render, error)
                (shortened if fitted.cuts else dropped).append(fitted)
                if not fitted.cuts:
                    return None
                example, row = fitted.example, render(fitted.example)
            kept.append(example)
            return row

        rows = [row for row in self._each(examples, fit) if row is not None]
        return Fitted(kept, rows, shortened, dropped)

    def _shortened(
        self, example: Example, render: Callable[[Example], Row], error: _OverlongError
    ) -> OverlongRow:
        """The row with its middle cut, or, without cuts, the reason why it is left out."""
        limit = error.limit
        found = f"{counted(error.num_tokens, 'token')}, the limit is {limit:,}"
        if self.overlong == "drop":
            return OverlongRow(example, error.num_tokens, limit, (), found)

        def count(tried: Example) -> int:
            try:
                render(tried)
            except _OverlongError as longer:
                return longer.num_tokens
            return self._last_length

        fitted = shorten(example, count, limit)
        if fitted is None:
            reason = f"{found}; too long even without the passage, the only part that may be cut"
            return OverlongRow(example, error.num_tokens, limit, (), reason)
        num_cut = sum(cut.stop - cut.start for cut in fitted.cuts)
        reason = f"{found}; {counted(num_cut, 'character')} cut out of the middle of its passage"
        return OverlongRow(fitted.example, error.num_tokens, limit, fitted.cuts, reason)

    def _training_row(self, example: Example) -> Rendered:
        conversation = example.conversation
        messages = conversation.messages
        self._check_tools(conversation)
        turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
        learned = turns if self.train_on == "assistant" else turns[-1:]
        learned = [i for i in learned if messages[i].weight]
        if not learned:
            raise _RowError(
                "every reply that train_on selects is excluded from the loss; leave the row "
                "out, or set training.train_on to assistant to train on an earlier one"
            )
        token_ids: list[int] = []
        weights: list[float] = []
        num_prompt_tokens = 0
        for i in learned:
            turn = self._turn(messages, i, conversation.tools)
            if problem := left_out(messages[i], turn.with_opening):
                raise _RowError(problem)
            prompt_ids, reply_ids = self._split(turn)
            if prompt_ids[: len(token_ids)] != token_ids:
                raise _RowError(
                    "the chat template rewrites earlier assistant turns, so they cannot all be "
                    "trained on; set training.train_on to last"
                )
            num_prompt_tokens = len(prompt_ids)
            weights += [0.0] * (num_prompt_tokens - len(weights))
            weights += [messages[i].weight] * len(reply_ids)
            token_ids = prompt_ids + reply_ids
        self._check_length(len(token_ids))
        return Rendered(token_ids, weights, num_prompt_tokens)

    def _prompt(self, example: Example, max_new_tokens: int) -> RenderedPrompt:
        prompt = example.conversation.prompt
        messages, tools = prompt.messages, prompt.tools
        self._check_tools(prompt)
        if not example.answers and not example.conversation.reply.strip():
            raise _RowError(
                "the last assistant turn is a tool call without text, and a call cannot be "
                "compared; add answers, or end the row with text"
            )
        if not example.has_reference:
            raise _RowError(
                "the last assistant turn is excluded from the loss, so it is not a "
                "reference answer; add answers, or leave the row out"
            )
        turns = [
            self._turn((*messages, Message("assistant", reference)), len(messages), tools)
            for reference in example.references
        ]
        references = [self._split(turn.without_empty_reasoning)[1] for turn in turns]
        prompt_ids = self._ids(self._text(messages, tools, add_generation_prompt=True))
        self._check_length(len(prompt_ids) + max_new_tokens, f" with {max_new_tokens} to generate")
        opening = self._opening_ids(turns[0], references[0]) if turns else ()
        return RenderedPrompt(prompt_ids, references, opening)

    def _opening_ids(self, turn: _Turn, reference_ids: list[int]) -> tuple[int, ...]:
        """Ids of the empty reasoning block before a reference, as training sees them."""
        bare = turn.without_empty_reasoning
        if bare == turn:
            return ()
        _, reply_ids = self._split(turn)
        num_opening = len(reply_ids) - len(reference_ids)
        if num_opening > 0 and reply_ids[num_opening:] == reference_ids:
            return tuple(reply_ids[:num_opening])
        # The block melts into the reference when they are tokenized as one text.
        block = turn.through[len(turn.before) :].removesuffix(bare.through[len(bare.before) :])
        return tuple(self._ids(block))

    def _turn(self, messages: Sequence[Message], index: int, tools: Sequence[JsonObject]) -> _Turn:
        turn = _Turn(
            before=self._text(messages[:index], tools, add_generation_prompt=True),
            through=self._text(messages[: index + 1], tools, add_generation_prompt=False),
        )
        if not turn.through.startswith(turn.before):
            raise _RowError(
                "the chat template renders the prompt differently once an answer follows; "
                f"the prompt ends in {turn.before[-40:]!r}"
            )
        return turn

    def _split(self, turn: _Turn) -> tuple[list[int], list[int]]:
        """Ids before the reply, and ids of the reply up to and including its end token."""
        prompt_ids, ids = self._ids(turn.before), self._ids(turn.through)
        if ids[: len(prompt_ids)] == prompt_ids:
            reply_ids = ids[len(prompt_ids) :]
        else:
            self.num_joined += 1
            reply_ids = self._ids(turn.through[len(turn.before) :])
        ends = [i for i, token_id in enumerate(reply_ids) if token_id in self.end_token_ids]
        if not ends:
            raise _RowError(
                "the chat template does not close the assistant turn with any of the model's end "
                f"tokens {sorted(self.end_token_ids)}; the model would never learn to stop"
            )
        return prompt_ids, reply_ids[: ends[-1] + 1]

    def _check_tools(self, conversation: Conversation) -> None:
        """Reject what the chat template would leave out: most have no place for tools."""
        calls = any(message.tool_calls for message in conversation.messages)
        for what, needed in (("tools", bool(conversation.tools)), ("tool calls", calls)):
            if needed and not self._template_takes(what):
                raise _RowError(
                    f"the model's chat template leaves out {what}; use a model whose template has "
                    "a place for them, or write them into the turns' text"
                )

    def _template_takes(self, what: str) -> bool:
        """Whether a name that occurs only in a probe's tools or tool calls appears in its text."""
        if what not in self._takes:
            tool = {"name": _PROBE, "description": "", "parameters": {"type": "object"}}
            tools = [{"type": "function", "function": tool}] if what == "tools" else []
            call = Message("assistant", "", (ToolCall(_PROBE, {}),))
            turns = [Message("user", "?"), *([] if tools else [call])]
            try:
                text = self._text(turns, tools, add_generation_prompt=False)
            except _RowError:
                # The template raises an error for them: the row itself will report it.
                text = _PROBE
            self._takes[what] = _PROBE in text
        return self._takes[what]

    def _text(
        self,
        messages: Iterable[Message],
        tools: Sequence[JsonObject],
        *,
        add_generation_prompt: bool,
    ) -> str:
        from jinja2 import TemplateError

        turns = [message.as_json() for message in messages]
        try:
            with limited():
                text: str = self.tokenizer.apply_chat_template(
                    turns,
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    **self.template_kwargs,
                )
            check_output(text, len(str(turns)) + len(str(tools)))
        # Not this row's fault: every other row would take as long.
        except TemplateLimitError as error:
            raise ModelError(
                f"the model's chat template cannot be used: {error}; use the model's original "
                "files, or another model"
            ) from error
        except (TemplateError, ValueError, TypeError) as error:
            raise _RowError(f"the model's chat template rejects this row: {error}") from error
        return text

    def _ids(self, text: str) -> list[int]:
        # The template writes the special tokens itself; adding them again would double BOS.
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        # One object for each id: the tokenizer makes a new one for each token, of 32 bytes.
        ids = [self._known_ids.setdefault(token_id, token_id) for token_id in found]
        bos = self.tokenizer.bos_token_id
        if bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos:
            raise _RowError("the chat template begins with two BOS tokens")
        return ids

    def _check_length(self, num_tokens: int, detail: str = "") -> None:
        self._last_length = num_tokens
        if self.max_length is not None and num_tokens > self.max_length:
            raise _OverlongError(num_tokens, self.max_length, detail)


class _RowError(ValueError):
    """What is wrong with one row; the place is added when rows are collected."""


class _OverlongError(_RowError):
    """A row is longer than the limit."""

    def __init__(self, num_tokens: int, limit: int, detail: str) -> None:
        super().__init__(
            f"{num_tokens} tokens{detail}, the limit is {limit}; shorten or remove the row, raise "
            "training.max_length, or set training.overlong to shorten or drop"
        )
        self.num_tokens = num_tokens
        self.limit = limit
