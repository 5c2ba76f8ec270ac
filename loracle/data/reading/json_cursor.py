"""A place in JSON text that is read piece by piece: an array of any length goes through it with
one row in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator

from loracle.data.reading.json_reasons import cause_of, reason_of
from loracle.data.reading.rows import MAX_ROW_BYTES

_SPACE = re.compile(r"[ \t\r\n]*")
_FIRST_READ = 2**18
# json places an error of text that was cut at most this far before its end: an escape
# (\ud83d\ude00) or a constant (-Infinity) that is not whole.
_MAX_CUT_CHARACTERS = 16


class JsonError(ValueError):
    """The text is not JSON. `line` from 1; `text` says why, to be put behind "bad JSON"; `cause`
    is what people write there, and what to do; "" where it is unknown."""

    def __init__(self, line: int, text: str, cause: str = "") -> None:
        super().__init__(line, text, cause)
        self.line, self.text, self.cause = line, text, cause


class Decoder(json.JSONDecoder):
    """json's decoder that also notes keys given twice in one object, of which it keeps the last."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self._repeated: list[str] = []

    def _object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        if len(value) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self._repeated.append(key)
                seen.add(key)
        return value

    def take_repeated(self) -> list[str]:
        """The keys noted since the last call."""
        taken, self._repeated = self._repeated, []
        return taken


class Cursor:
    """Walks JSON text: `items` and `members` step through an array or an object, and whoever steps
    takes each value, by `value` or by a further step down.

    read: gives the next characters, at most as many as asked for, and "" at the end.
    Every method may raise JsonError, and what `read` raises.
    """

    def __init__(self, read: Callable[[int], str]) -> None:
        self.decoder = Decoder()
        self._read = read
        self._text, self._position = "", 0
        self._line, self._column = 1, 1  # of the first character in _text
        self._counted = 0  # up to here the line breaks of _text are in _counted_line
        self._counted_line = 1
        self._ended = False
        self._taken = slice(0, 0)

    @property
    def line(self) -> int:
        """The line of the next character."""
        self._counted_line += self._text.count("\n", self._counted, self._position)
        self._counted = self._position
        return self._counted_line

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None, "the pattern matches the empty string"
            self._position = match.end()
            if self._position < len(self._text) or not self._more():
                return self._text[self._position : self._position + 1]

    def expect(self, characters: str, where: str) -> str:
        """Take the next character, one of the given ones."""
        found = self.peek()
        if not found or found not in characters:
            wanted = " or ".join(characters)
            what = f"found {found!r}" if found else "the file ends"
            cause = cause_of(self._text, self._position)
            raise JsonError(self.line, f": {what} {where}; expected {wanted}", cause)
        self._position += 1
        return found

    def items(self, what: str = "a row") -> Iterator[None]:
        """Step through an array."""
        self.expect("[", "where a list starts")
        if self.peek() == "]":
            self._position += 1
            return
        while True:
            yield
            if self.expect(",]", f"after {what}") == "]":
                return

    def members(self) -> Iterator[str]:
        """Step through an object, key by key."""
        self.expect("{", "where an object starts")
        if self.peek() == "}":
            self._position += 1
            return
        while True:
            if self.peek() != '"':
                self.expect('"', "where a key starts")
            key = self.value()
            assert isinstance(key, str), "it starts with a quote"
            self.expect(":", "after a key")
            yield key
            if self.expect(",}", "after a value") == "}":
                return

    def value(self) -> object:
        """The whole next value."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error) and self._more():
                    self.decoder.take_repeated()
                    continue
                raise self._error(error) from error
            except (ValueError, RecursionError) as error:
                raise JsonError(self.line, reason_of(error)) from error
            # A number that ends where the text ends may go on.
            if end == len(self._text) and self._more():
                self.decoder.take_repeated()
                continue
            self._taken = slice(self._position, end)
            self._position = end
            return value

    @property
    def taken_text(self) -> str:
        """The text of the last value, until the cursor moves on."""
        return self._text[self._taken]

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return not self._ended and (
            error.msg.startswith("Unterminated string")
            or error.pos >= len(self._text) - _MAX_CUT_CHARACTERS
        )

    def _more(self) -> bool:
        """Read on: as much again as is waiting, so that a long row is decoded few times."""
        line = self.line
        waiting = self._text[self._position :]
        if len(waiting) > MAX_ROW_BYTES:
            limit = MAX_ROW_BYTES // 2**20
            raise JsonError(line, f": one value has more than {limit} MiB; split it into rows")
        part = "" if self._ended else self._read(max(_FIRST_READ, len(waiting)))
        self._ended = not part
        if not part:
            return False
        consumed = self._text[: self._position]
        last_break = consumed.rfind("\n")
        self._column = (
            len(consumed) - last_break if last_break >= 0 else (self._column + len(consumed))
        )
        self._text, self._position = waiting + part, 0
        self._line = self._counted_line = line
        self._counted = 0
        return True

    def _error(self, error: json.JSONDecodeError) -> JsonError:
        before = self._text[: error.pos]
        last_break = before.rfind("\n")
        column = error.pos - last_break if last_break >= 0 else self._column + error.pos
        line = self._line + before.count("\n")
        cause = cause_of(error.doc, error.pos)
        return JsonError(line, f" at column {column} ({error.msg})", cause)


def incremental_reader(
    read_bytes: Callable[[int], bytes | None],
) -> Callable[[int], str]:
    """A `read` for Cursor over UTF-8 bytes. Raises UnicodeDecodeError where they are not."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")

    def read(size: int) -> str:
        while data := read_bytes(size):
            if text := decoder.decode(data):
                return text
        return decoder.decode(b"", final=True)

    return read
