"""What a row is: messages, and for evaluation the reference answers.

A row of a data file:

    {"id": "q1",
     "messages": [{"role": "user", "content": "Context: ... Question: Who won?"},
                  {"role": "assistant", "content": "The Broncos"}],
     "answers": ["The Broncos", "Denver Broncos"]}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns of one example, in order."""

    messages: tuple[Message, ...]

    @property
    def prompt(self) -> Conversation:
        """The turns before the last assistant turn: what is asked at evaluation."""
        last = max(i for i, message in enumerate(self.messages) if message.role == "assistant")
        return Conversation(self.messages[:last])

    @property
    def reply(self) -> str:
        """The content of the last assistant turn."""
        return next(m.content for m in reversed(self.messages) if m.role == "assistant")


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset. `file` and `line` (from 1) say where it stands on disk."""

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
        """The reference answers: `answers`, or the last assistant turn where there are none."""
        return self.answers or (self.conversation.reply,)

    @property
    def where(self) -> str:
        """The row's place, as messages name it."""
        return f"{self.file}:{self.line}"
