"""Errors caused by user input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Invalid user input; the message names the location, the value and a remedy.

    The command line prints the message without a traceback and exits with code 2.
    """


def join_problems(problems: Iterable[str]) -> str:
    """Return problems as one text: separated by semicolons, with one mark at the end of each."""
    text = ""
    for problem in problems:
        if text:
            text += " " if text.endswith("?") else "; "
        text += problem.rstrip(".")
    return text if text.endswith("?") else f"{text}."


def nearest_name(name: str, known: Iterable[str], preferred: str = "") -> str | None:
    """Return the known name that was probably meant; None if there is no such name.

    ``preferred`` is taken if ``name`` is its beginning, else the only known name that begins so,
    else the most similar name.
    """
    names = list(known)
    longer = [each for each in names if name and each.lower().startswith(name.lower())]
    if preferred in longer:
        return preferred
    if len(longer) == 1:
        return longer[0]
    return next(iter(difflib.get_close_matches(name, names, n=1)), None)


def unknown_name(kind: str, name: str, known: Iterable[str], preferred: str = "") -> UserError:
    """Return the error for an unknown name; it lists all known names and suggests the nearest."""
    names = sorted(known)
    near = nearest_name(name, names, preferred)
    hint = f" Did you mean {near!r}?" if near else ""
    return UserError(f"{kind} {name!r} is not among {', '.join(names)}.{hint}")
