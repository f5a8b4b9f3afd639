"""The one exception that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: what, where, which value, and what would be right.

    The command line prints its message alone and ends with exit code 2.
    """


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """Error for a name that is not among the known ones; names the nearest and lists all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"{what} {name!r} is not among {', '.join(names)}.{hint}")
