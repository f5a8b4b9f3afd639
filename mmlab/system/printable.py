"""Text of users for a terminal: control characters are shown, not obeyed."""

from __future__ import annotations

import unicodedata

#: Categories of control characters, lone surrogates, and separators of lines and paragraphs.
_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: Characters that reverse or reorder the text around them.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    r"""Return the text with escapes such as ``\x1b`` for its control characters.

    Line feeds and tabs are kept.
    """
    return "".join(_escape(c) if _is_control(c) else c for c in text)


def encodable(text: str) -> str:
    r"""Return the text with escapes such as ``\udcff`` for what UTF-8 cannot encode.

    Arguments of commands and names of files are bytes; Python reads those that are not UTF-8 as
    lone surrogates.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_control(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in _HIDDEN or character in _DIRECTIONS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
