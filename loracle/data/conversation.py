"""The content of a row: messages, and reference answers for evaluation.

A row of a data file:

    {"id": "q1",
     "messages": [{"role": "user", "content": "Context: ... Question: Who won?"},
                  {"role": "assistant", "content": "The Broncos"}],
     "answers": ["The Broncos", "Denver Broncos"]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)

JsonObject = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant makes instead of, or after, text."""

    name: str
    arguments: JsonObject
    id: str | None = None

    def as_json(self) -> dict[str, object]:
        """The call as in chat templates and OpenAI's format; the arguments are an object."""
        identity = {} if self.id is None else {"id": self.id}
        function = {"name": self.name, "arguments": self.arguments}
        return {**identity, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    reasoning: what the assistant thought before its content; templates of thinking models use it.
    tool_call_id, name: which call a tool's turn answers, if the row says so.
    weight: the loss weight of an assistant's turn; 0 where the row excludes it from the loss.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    weight: float = 1.0

    def as_json(self) -> dict[str, object]:
        """The turn as in chat templates and OpenAI's format; absent fields are left out."""
        turn: dict[str, object] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            turn["reasoning_content"] = self.reasoning
        if self.tool_calls:
            turn["tool_calls"] = [call.as_json() for call in self.tool_calls]
        if self.tool_call_id is not None:
            turn["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            turn["name"] = self.name
        return turn


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of one example, in order, and the tools that the assistant may call in them:
    `{"type": "function", "function": {"name": ..., "parameters": ...}}` each."""

    messages: tuple[Message, ...]
    tools: tuple[JsonObject, ...] = ()

    @property
    def prompt(self) -> Conversation:
        """The turns before the last assistant turn: the prompt in evaluation."""
        last = len(self.messages) - 1
        while self.messages[last].role != "assistant":
            last -= 1
        return Conversation(self.messages[:last], self.tools)

    @property
    def last_reply(self) -> Message:
        """The last assistant turn."""
        return next(m for m in reversed(self.messages) if m.role == "assistant")

    @property
    def reply(self) -> str:
        """The content of the last assistant turn."""
        return self.last_reply.content


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset.

    file, line: its place on disk. Lines count from 1; in files without lines (Parquet,
        Arrow) the line is the row's number.
    context, question: the passage and the question about it, if the row keeps the two apart.
    group: the group that the row names; rows of one group are not independent.
    """

    id: str
    conversation: Conversation
    answers: tuple[str, ...]
    file: str
    line: int
    context: str | None = None
    question: str | None = None
    group: str | None = None

    @property
    def references(self) -> tuple[str, ...]:
        """The reference answers: `answers`, or the last assistant turn if there are none."""
        return self.answers or (self.conversation.reply,)

    @property
    def has_reference(self) -> bool:
        """Whether there is a reference: a reply that is excluded from the loss is not one."""
        return bool(self.answers) or self.conversation.last_reply.weight > 0

    @property
    def where(self) -> str:
        """The row's place, as shown in messages."""
        return f"{self.file}:{self.line}"
