"""YAML text of bounded size, depth and expansion, with YAML 1.2's numbers and no duplicate keys."""

from __future__ import annotations

import re
import reprlib
from typing import Any

import yaml

from mmlab.errors import UserError
from mmlab.spec.base import LARGE_INTEGER, MAX_INTEGER

#: Largest text in characters, and depth of its collections.
MAX_LENGTH, MAX_DEPTH = 10_000_000, 20
#: Largest number of scalars and collections once every alias is replaced by what it stands for.
MAX_NODES = 1_000_000

#: Characters of an integer that are parsed: 64 bits have fewer, also with _ between the digits.
_MAX_DIGITS = 200


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

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Return an integer; one that does not fit into 64 bits is an error."""
        short = len(node.value) <= _MAX_DIGITS
        value = int(self.construct_yaml_int(node)) if short else MAX_INTEGER
        if abs(value) >= MAX_INTEGER:
            raise _LargeIntegerError(None, None, LARGE_INTEGER, node.start_mark)
        return value


class _LargeIntegerError(yaml.constructor.ConstructorError):
    """An integer that does not fit into 64 bits."""


_SpecLoader.add_constructor("tag:yaml.org,2002:int", _SpecLoader.construct_integer)

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
        The text is not valid YAML, or it is too large; aliases count as often as they are used.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters, at most {MAX_LENGTH} are read")
    _check_depth(text)
    loader = _SpecLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _count_nodes(root, {})
        return loader.construct_document(root)
    finally:
        loader.dispose()


def parse_value(text: str, option: str) -> Any:
    """Parse the value of an option as YAML: a number, a boolean or a string.

    Raises
    ------
    UserError
        It is not valid YAML.
    """
    try:
        return parse_yaml(text)
    except _LargeIntegerError as error:
        raise UserError(f"{option} {reprlib.repr(text)}: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(
            f"{option} {reprlib.repr(text)} is not a number, true, false or plain text; put quotes "
            "around text with special characters."
        ) from error


def _check_depth(text: str) -> None:
    """Raise ``ValueError`` for collections in collections in ... that no recursion can follow."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = "" if event.start_mark is None else f"line {event.start_mark.line + 1} "
                raise ValueError(f"{line}is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _count_nodes(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return the number of nodes below a node, its aliases expanded.

    ``known`` has the numbers by the node's id; None marks a node that is being counted.
    """
    if id(node) in known:
        number = known[id(node)]
        if number is None:
            raise ValueError(f"line {node.start_mark.line + 1} contains itself")
        return number
    known[id(node)] = None
    number = 1
    if isinstance(node, yaml.SequenceNode):
        number += sum(_count_nodes(child, known) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        number += sum(_count_nodes(child, known) for pair in node.value for child in pair)
    if number > MAX_NODES:
        raise ValueError(
            f"line {node.start_mark.line + 1} stands for more than {MAX_NODES} values once its "
            "aliases are replaced"
        )
    known[id(node)] = number
    return number
