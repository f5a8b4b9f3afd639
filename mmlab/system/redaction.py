"""Passwords in texts that are printed or recorded."""

from __future__ import annotations

import re

_WORD = re.compile(r"\S+")
#: The user of a URI, up to the password.
_USER = re.compile(r"://[^:/@?#]*:")
#: Passwords among the parameters of a URI.
_PARAMETER = re.compile(
    r"([?&](?:password|passwd|pwd|token|access_token|secret|api_key|sslpassword)=)[^&\s'\"]+",
    re.IGNORECASE,
)
_MASK = "***"


def redact(text: str) -> str:
    """Return the text with ``***`` in place of the passwords of all URIs in it."""
    if "://" in text:
        text = _WORD.sub(lambda word: _mask_password(word[0]), text)
    return _PARAMETER.sub(rf"\g<1>{_MASK}", text)


def _mask_password(word: str) -> str:
    """Return a word with ``***`` for the password of a URI in it.

    Passwords may hold @ and /, so that all up to the last @ is taken. Each character is read a
    fixed number of times, however long the word is.
    """
    end = word.rfind("@")
    user = _USER.search(word, 0, max(end, 0))
    return word if user is None else f"{word[: user.end()]}{_MASK}{word[end:]}"
