"""Specifications from YAML files and plain data, every mistake of a file in one error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from mmlab.errors import UserError

SpecT = TypeVar("SpecT", bound=BaseModel)


class _Yaml(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number, as YAML 1.2 does, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Mapping of a node; the same key twice is an error."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str) -> Any:
    """Plain data from YAML text, which may hold numbers such as 1e-4.

    Raises
    ------
    yaml.YAMLError, ValueError
        The text is not valid.
    """
    return yaml.load(text, _Yaml)


def read_spec(path: Path, kind: type[SpecT]) -> SpecT:
    """Read a specification from a YAML file.

    Raises
    ------
    UserError
        The file is missing, is no YAML mapping, or has mistakes: all of them are listed.
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
            f"{path} must hold a mapping with the keys {', '.join(kind.model_fields)}; "
            f"it holds {type(content).__name__}."
        )
    return parse_spec(kind, content, str(path))


def parse_spec(kind: type[SpecT], content: dict[str, Any], where: str) -> SpecT:
    """Make a specification from plain data; every mistake becomes a line of one error."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        lines = dict.fromkeys(_describe(detail) for detail in error.errors())
        raise UserError(f"{where}: " + "; ".join(lines) + ".") from error


def _describe(detail: Any) -> str:
    """One mistake found by pydantic: the field's path, the value, what would be right."""
    location = [str(part) for part in detail["loc"] if part not in ("Range", "Choices")]
    field = ".".join(location)
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"{field} is not a known key"
    if detail["type"] == "missing":
        return f"{field} is missing"
    if detail["type"] == "value_error":
        return f"{field}: {message}" if field else message
    return f"{field}: {message[0].lower()}{message[1:]}, got {detail['input']!r}"


def default_search_space_file(selector: str, dataset: str) -> Path:
    """The shipped search space of a selector: the dataset's own if there is one.

    Raises
    ------
    UserError
        None is shipped for this selector.
    """
    package = Path(__file__).parent.parent
    for folder in (package / "tune_configs", package.parent / "tune_configs"):
        for name in (f"{selector}.{dataset}.yaml", f"{selector}.yaml"):
            if (folder / name).is_file():
                return folder / name
    raise UserError(
        f"no search space is shipped for {selector}; describe one in a YAML file and name it "
        "with --search."
    )
