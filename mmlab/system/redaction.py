"""Passwords in texts that are printed or recorded."""

from __future__ import annotations

import re

#: user:password@ of a URI. Passwords may hold @ and /, so that all up to the last @ is taken.
_USER_INFO = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@?#]*):\S*@", re.IGNORECASE)
#: Passwords among the parameters of a URI.
_PARAMETER = re.compile(
    r"([?&](?:password|passwd|pwd|token|access_token|secret|api_key|sslpassword)=)[^&\s'\"]+",
    re.IGNORECASE,
)
_MASK = "***"


def redact(text: str) -> str:
    """Return the text with ``***`` in place of the passwords of all URIs in it."""
    return _PARAMETER.sub(rf"\g<1>{_MASK}", _USER_INFO.sub(rf"\g<1>:{_MASK}@", text))
