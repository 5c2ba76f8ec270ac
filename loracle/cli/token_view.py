"""A row's tokens on the terminal: in colour if the terminal has colours, else with marks.

supervised tokens  ⟦Denver<|im_end|>⟧          with ids  Denver⟨12901⟩
"""

from __future__ import annotations

from itertools import groupby

from rich.text import Text

from loracle.data_check.inspection import Inspected, Token
from loracle.text import counted, visible

STYLES = {"context": "", "supervised": "bold green", "cut": "bold red"}
SUPERVISED_MARKS = ("⟦", "⟧")


def inspected_lines(found: Inspected, *, colours: bool, ids: bool) -> list[Text]:
    """The row's location and counts, what was done about its length, and its text.

    colours: mark by colour; otherwise supervised text is enclosed in SUPERVISED_MARKS.
    ids: write every token's id after it.
    """
    lines = [Text(visible(f"row {found.row} · {found.example.where} · id {found.example.id}"))]
    if found.overlong is not None:
        done = "shortened" if found.tokens else "dropped"
        lines.append(Text(visible(f"{done}: {found.overlong.reason}"), style="red"))
    lines += [Text(visible(mark)) for mark in found.marks]
    if found.tokens:
        lines.append(
            Text(f"{counted(found.num_tokens, 'token')}, {found.num_supervised:,} supervised: ")
            + _legend(colours=colours)
        )
        lines.append(_text(found, colours=colours, ids=ids))
    return lines


def _legend(*, colours: bool) -> Text:
    if not colours:
        opening, closing = SUPERVISED_MARKS
        return Text(f"{opening}supervised{closing}, the rest is context")
    return Text("supervised", style=STYLES["supervised"]) + Text(", the rest is context", style="")


def _text(found: Inspected, *, colours: bool, ids: bool) -> Text:
    text = Text()
    for kind, tokens in groupby(found.tokens, key=lambda token: token.kind):
        part = "".join(_shown(token, ids=ids) for token in tokens)
        if not colours and kind == "supervised":
            part = part.join(SUPERVISED_MARKS)
        text.append(part, style=STYLES[kind] if colours else "")
    return text


def _shown(token: Token, *, ids: bool) -> str:
    text = visible(token.text)
    return f"{text}⟨{token.id}⟩" if ids and token.id is not None else text
