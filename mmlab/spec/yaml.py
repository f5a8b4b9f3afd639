"""Read specifications from YAML files and dictionaries, with all mistakes in one error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mmlab.errors import UserError

SpecT = TypeVar("SpecT", bound=BaseModel)
#: Largest number of characters of an invalid value in an error.
_MAX_SHOWN = 100


class _SpecLoader(yaml.SafeLoader):
    """Safe YAML loader that reads 1e-4 as a number, as in YAML 1.2, and rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node; a duplicate key is an error."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key.value!r}", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_SpecLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Parse YAML text; numbers such as 1e-4 become floats.

    Raises
    ------
    yaml.YAMLError, ValueError
        The text is not valid YAML.
    """
    return yaml.load(text, _SpecLoader)


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


def parse_spec(spec_type: type[SpecT], content: dict[str, Any], source: str) -> SpecT:
    """Build a specification from a dictionary.

    Raises
    ------
    UserError
        The content has mistakes; the message starts with ``source`` and lists all of them.
    """
    try:
        return spec_type.model_validate(content)
    except ValidationError as error:
        mistakes = dict.fromkeys(_describe_error(detail) for detail in error.errors())
        raise UserError(f"{source}: " + "; ".join(mistakes) + ".") from error


def _describe_error(detail: Any) -> str:
    """Describe an error of pydantic: path of the field, rule, value."""
    location = [str(part) for part in detail["loc"] if part not in ("Range", "Choices")]
    field = ".".join(location)
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"{field} is not a known key"
    if detail["type"] == "missing":
        return f"{field} is missing"
    if detail["type"] == "value_error":
        return f"{field}: {message}" if field else message
    value = " ".join(repr(detail["input"]).split())
    shown = value if len(value) <= _MAX_SHOWN else f"{value[:_MAX_SHOWN]}..."
    return f"{field}: {message[0].lower()}{message[1:]}, got {shown}"


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
