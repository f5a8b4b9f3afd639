"""Marker selection methods by name."""

from __future__ import annotations

import inspect

from mmlab.config import Scalar
from mmlab.errors import UserError, unknown_name
from mmlab.selectors.base import Selector
from mmlab.selectors.markermap import MarkerMapJoint, MarkerMapSupervised, MarkerMapUnsupervised
from mmlab.selectors.random import RandomSelector
from mmlab.selectors.scanpy_t_test import ScanpyTTest

__all__ = [
    "SELECTORS",
    "MarkerMapJoint",
    "MarkerMapSupervised",
    "MarkerMapUnsupervised",
    "RandomSelector",
    "ScanpyTTest",
    "Selector",
    "default_params",
    "get_selector",
    "resolve_params",
]

SELECTORS: dict[str, type[Selector]] = {
    "markermap_supervised": MarkerMapSupervised,
    "markermap_unsupervised": MarkerMapUnsupervised,
    "markermap_joint": MarkerMapJoint,
    "random": RandomSelector,
    "scanpy_t_test": ScanpyTTest,
}

#: Constructor arguments that a trial sets by itself, or that do not change what is computed.
_NOT_SEARCHED = {"n_markers", "seed", "device"}


def get_selector(name: str) -> type[Selector]:
    """Class of a selector; an unknown name lists the known ones."""
    if name not in SELECTORS:
        raise unknown_name("method", name, SELECTORS)
    return SELECTORS[name]


def default_params(name: str) -> dict[str, Scalar]:
    """The parameters that a trial may set, with their defaults."""
    signature = inspect.signature(get_selector(name))
    return {
        key: parameter.default
        for key, parameter in signature.parameters.items()
        if key not in _NOT_SEARCHED
    }


def resolve_params(name: str, params: dict[str, Scalar]) -> dict[str, Scalar]:
    """All parameters of a selector: the given ones over the defaults, as the default's type.

    Raises
    ------
    UserError
        Unknown parameters or values of the wrong type: all of them at once.
    """
    defaults = default_params(name)
    problems = []
    resolved = dict(defaults)
    for key, value in params.items():
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            problems.append(f"{key} is not a parameter of {name} (it has: {known})")
            continue
        kind = type(defaults[key])
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            problems.append(f"{key} must be {kind.__name__}, got {value!r}")
        resolved[key] = value
    if problems:
        raise UserError("; ".join(problems) + ".")
    return resolved
