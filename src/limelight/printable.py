"""Texts of files as a terminal may show them: control characters are written out."""

from __future__ import annotations

_CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")}
"""Those that begin an escape sequence, ring, or move the cursor."""
_OF_DIRECTION = {0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
"""Those that change the direction of letters, and separators of lines and paragraphs."""
_NO_TEXT = {*range(0xD800, 0xE000)}
"""In Python's texts, bytes of paths that are no UTF-8; libraries refuse them."""
_WRITTEN_OUT = {code: f"\\u{code:04x}" for code in _CONTROLS | _OF_DIRECTION | _NO_TEXT}


def printable(text: str) -> str:
    r"""Return a text with its control characters as JSON writes them, ``\u001b``, except line breaks and tabs."""
    return text.translate(_WRITTEN_OUT)


def one_line(text: str) -> str:
    """Return a printable text on one line: line breaks and runs of spaces are a space."""
    return printable(" ".join(text.split()))
