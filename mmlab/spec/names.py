"""Names that users give to studies and datasets, which become names of files."""

from __future__ import annotations

import re

from mmlab.errors import UserError

#: Maximum length of a name in characters.
MAX_LENGTH = 100
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_LENGTH - 1}}}")


def is_name(name: str) -> bool:
    """Return whether a study or dataset can have this name."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, kind: str) -> None:
    """Check the name of a study or dataset (``kind``).

    Raises
    ------
    UserError
        The name is empty, too long, or contains other characters than letters, digits and ``._-``.
    """
    if not is_name(name):
        shown = repr(name[:MAX_LENGTH]) + ("..." if len(name) > MAX_LENGTH else "")
        raise UserError(
            f"{shown} is not a valid name of a {kind}: use at most {MAX_LENGTH} letters, digits, "
            "dots, dashes and underscores, beginning with a letter or a digit."
        )


def name_from(title: str) -> str:
    """Return a valid part of a name from the title of a dataset or file."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", title)[:40]
