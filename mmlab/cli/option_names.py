"""Specifications made from options: their mistakes name the options as they are typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlab.spec.yaml import SpecT

#: Options that are not named like the field of the specification.
_OPTIONS = {
    "n_markers": "--n-markers (-k)",
    "noise.level": "--label-noise",
    "params": "--param",
    "name": "--dataset",
    "path": "--data",
}


def parse_options(spec_type: type[SpecT], content: dict[str, Any]) -> SpecT:
    """Build a specification from the options of a command.

    Raises
    ------
    UserError
        The options have mistakes; the message lists all of them.
    """
    from mmlab.spec.trial import DataSpec
    from mmlab.spec.yaml import parse_spec

    fields = {*DataSpec.model_fields, *spec_type.model_fields}

    def named(text: str) -> str:
        """Return a message with the options instead of the fields whose names show what they are.

        A name of one word may be a word of the sentence.
        """
        return re.sub(
            r"\b[a-z]+(?:_[a-z]+)+\b",
            lambda match: option_name(match[0]) if match[0] in fields else match[0],
            text,
        )

    return parse_spec(spec_type, content, "", option_name, named)


def option_name(field: str) -> str:
    """Return the option of a field such as ``label_key`` or ``noise.level``."""
    if field in _OPTIONS:
        return _OPTIONS[field]
    first, _, rest = field.partition(".")
    if first == "data":
        return option_name(rest)
    return _OPTIONS.get(first, f"--{first.replace('_', '-')}")
