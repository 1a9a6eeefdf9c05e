"""The elements of a JSON list or object one by one, so that a large file never is in memory whole.

The standard library's decoder reads the elements; only the brackets and commas between them are
read here. A repeated key of an object is not lost: each entry is an element.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

_CHUNK_CHARS = 1 << 16
# An element that the buffer cuts off fails where the buffer ends, but for what may be left open:
# a string fails where it starts, and "-Infinity" is the longest literal.
_LONGEST_LITERAL = 16
_SPACE = " \t\n\r"


def elements(file: TextIO) -> Iterator[tuple[str | None, Any]]:
    """Yields `(None, value)` for each item of a list, `(key, value)` for each entry of an object.

    Raises:
        ValueError: when the text is not JSON, naming the line, or neither list nor object.
        RecursionError: when it is nested too deeply.
    """
    stream = _Stream(file)
    opening = stream.peek()
    if not opening:
        raise stream.fault("Expecting value")
    if opening not in "[{":
        stream.value()  # what is not JSON at all is told as such
        raise ValueError("expected an object {path: prompt} or a list of {video, prompt}")
    closing = "]" if opening == "[" else "}"
    stream.step()
    first = True
    while stream.peek() != closing:
        if not first:
            stream.expect(",")
            if stream.peek() == closing:
                raise stream.fault("Illegal trailing comma before end")
        first = False
        key = None
        if opening == "{":
            if stream.peek() != '"':
                raise stream.fault("Expecting property name enclosed in double quotes")
            key = stream.value()
            stream.expect(":")
        yield key, stream.value()
    stream.step()
    if stream.peek():
        raise stream.fault("Extra data")


class _Stream:
    """A text file as a buffer that grows at its end, and a position in it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._position = 0
        self._line = 1  # of the buffer's first character

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in _SPACE:
                    return character
                self._position += 1
            if not self._read():
                return ""

    def step(self) -> None:
        self._position += 1

    def expect(self, character: str) -> None:
        if self.peek() != character:
            raise self.fault(f"Expecting '{character}' delimiter")
        self.step()

    def value(self) -> Any:
        """Decodes the next value, reading on as long as the buffer cuts it off."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string")
                cut = cut or error.pos >= len(self._text) - _LONGEST_LITERAL
                if not (cut and self._read()):
                    raise self.fault(error.msg, error.pos) from None
                continue
            if end >= len(self._text) - len("e+") and self._read():
                continue  # the rest of a number may follow
            self._position = end
            return value

    def fault(self, message: str, position: int | None = None) -> ValueError:
        """The error at a place in the buffer, by default the present one."""
        end = self._position if position is None else position
        line = self._line + self._text.count("\n", 0, end)
        return ValueError(f"not JSON: line {line}: {message}")

    def _read(self) -> bool:
        """Drops what was consumed and reads on, twice as much as is waiting; False at the end."""
        more = self._file.read(max(_CHUNK_CHARS, len(self._text) - self._position))
        if more:
            self._line += self._text.count("\n", 0, self._position)
            self._text = self._text[self._position:] + more
            self._position = 0
        return bool(more)
