"""Read specifications from YAML files and dictionaries, with all mistakes in one error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mmlab.errors import UserError, join_problems
from mmlab.spec.base import short_repr
from mmlab.spec.yaml_text import parse_yaml
from mmlab.system.printable import encodable

SpecT = TypeVar("SpecT", bound=BaseModel)

#: Mistakes that a message lists.
_LISTED = 20


def read_spec(path: Path, spec_type: type[SpecT]) -> SpecT:
    """Read a specification from a YAML file.

    Raises
    ------
    UserError
        The file is missing, is not a YAML mapping, or has mistakes, which are all listed.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML: {detail}.") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} must contain a mapping with the keys {', '.join(spec_type.model_fields)}; "
            f"it contains {type(content).__name__}."
        )
    return parse_spec(spec_type, content, str(path))


def parse_spec(
    spec_type: type[SpecT],
    content: dict[str, Any],
    source: str,
    name_field: Callable[[str], str] = str,
    reword: Callable[[str], str] = str,
) -> SpecT:
    """Build a specification from a dictionary.

    Parameters
    ----------
    source
        Where the content is from: the beginning of the message; empty if it needs none.
    name_field
        Returns the name of a field, such as ``noise.level``, that its user knows.
    reword
        Returns a message about several fields with such names.

    Raises
    ------
    UserError
        The content has mistakes; the message starts with ``source`` and lists all of them.
    """
    mistakes = list(_text_mistakes(content, ""))
    try:
        if not mistakes:
            return spec_type.model_validate(content)
    except ValidationError as error:
        described = (_describe_error(detail, name_field, reword) for detail in error.errors())
        mistakes = list(dict.fromkeys(described))
    if len(mistakes) > _LISTED:
        mistakes[_LISTED:] = [f"and {len(mistakes) - _LISTED} more mistakes"]
    where = f"{source}: " if source else ""
    raise UserError(f"{where}{join_problems(mistakes)}")


def _text_mistakes(content: Any, field: str) -> Iterator[str]:
    """Yield one message per text that no file, tag or path can hold; ``field`` has the content."""
    if isinstance(content, str):
        if "\0" in content:
            yield f"{field}: text must not contain a null character, got {short_repr(content)}"
        if encodable(content) != content:
            yield f"{field}: text must be valid UTF-8, got {short_repr(content)}"
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _text_mistakes(key, f"a key of {field}" if field else "a key")
            yield from _text_mistakes(value, f"{field}.{key}" if field else str(key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _text_mistakes(value, f"{field}.{number}")


def _describe_error(
    detail: Any, name_field: Callable[[str], str], reword: Callable[[str], str]
) -> str:
    """Describe an error of pydantic: path of the field, rule, value."""
    location = [str(part) for part in detail["loc"] if part not in ("Range", "Choices")]
    field = name_field(".".join(location)) if location else ""
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"{field} is not a known key"
    if detail["type"] == "missing":
        return f"{field} is missing"
    if detail["type"] == "value_error":
        message = reword(message)
        return f"{field}: {message}" if field else message
    return f"{field}: {message[0].lower()}{message[1:]}, got {short_repr(detail['input'])}"


def default_search_space_file(selector: str, dataset: str) -> Path:
    """Return the shipped search space of a selector, the one for the dataset if it exists.

    Raises
    ------
    UserError
        No search space is shipped for this selector.
    """
    package = Path(__file__).parent.parent
    for folder in (package / "tune_configs", package.parent / "tune_configs"):
        for name in (f"{selector}.{dataset}.yaml", f"{selector}.yaml"):
            if (folder / name).is_file():
                return folder / name
    raise UserError(
        f"no search space is shipped for {selector}; define one in a YAML file and pass it "
        "with --search."
    )
