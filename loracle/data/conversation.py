"""What a row is: messages, and for evaluation the reference answers.

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
    """A call that the assistant makes in place of, or after, text."""

    name: str
    arguments: JsonObject
    id: str | None = None

    def as_json(self) -> dict[str, object]:
        """As chat templates and OpenAI's format write it; the arguments are an object."""
        identity = {} if self.id is None else {"id": self.id}
        function = {"name": self.name, "arguments": self.arguments}
        return {**identity, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    reasoning: what the assistant thought before its content; templates of thinking models take it.
    tool_call_id, name: which call a tool's turn answers, where the row says so.
    weight: the loss weight of an assistant's turn; 0 where the row marks it as not to be learned.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    tool_call_id: str | None = None
    name: str | None = None
    weight: float = 1.0

    def as_json(self) -> dict[str, object]:
        """As chat templates and OpenAI's format take it; what is not there is left out."""
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
        """The turns before the last assistant turn: what is asked at evaluation."""
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

    file, line: where it stands on disk. Lines count from 1; in files without lines (Parquet,
        Arrow) the line is the row's number.
    context, question: the passage and what is asked about it, where the row keeps the two apart.
    group: what the row says it belongs to; rows of one group are not independent.
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
        """Whether something says what is right: not a reply that is marked as not to be learned."""
        return bool(self.answers) or self.conversation.last_reply.weight > 0

    @property
    def where(self) -> str:
        """The row's place, as messages name it."""
        return f"{self.file}:{self.line}"
