"""Marker selection methods by name.

A new method is a module in this package and one line in :data:`SELECTORS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmlab.errors import UserError, join_problems, unknown_name
from mmlab.selectors.base import Selector
from mmlab.spec.base import Scalar

__all__ = [
    "SELECTORS",
    "Selector",
    "control_methods",
    "default_params",
    "get_selector",
    "load_libraries",
    "quick_params",
    "resolve_params",
]


def _load(entry: str) -> type[Selector]:
    module, _, name = entry.partition(":")
    selector: type[Selector] = getattr(import_module(f"{__name__}.{module}"), name)
    return selector


#: The registry: ``module:Class`` by the method's name, in the order of tables and of
#: ``--methods all``.
SELECTORS: dict[str, type[Selector]] = {
    name: _load(entry)
    for name, entry in {
        "markermap_supervised": "markermap:MarkerMapSupervised",
        "markermap_unsupervised": "markermap:MarkerMapUnsupervised",
        "markermap_joint": "markermap:MarkerMapJoint",
        "concrete_vae": "concrete_vae:ConcreteVAE",
        "global_gumbel_vae": "global_gumbel_vae:GlobalGumbelVAE",
        "persist_supervised": "persist:PersistSupervised",
        "persist_unsupervised": "persist:PersistUnsupervised",
        "lassonet": "lassonet:LassoNet",
        "smash": "smash:Smash",
        "rankcorr": "rankcorr:RankCorr",
        "cosg": "cosg:Cosg",
        "scanpy_t_test": "scanpy_tests:ScanpyTTest",
        "scanpy_t_test_overestim_var": "scanpy_tests:ScanpyTTestOverestimVar",
        "scanpy_wilcoxon": "scanpy_tests:ScanpyWilcoxon",
        "scanpy_wilcoxon_tie_correct": "scanpy_tests:ScanpyWilcoxonTieCorrect",
        "scanpy_hvg": "scanpy_hvg:ScanpyHVG",
        "l1_logistic": "l1_logistic:L1Logistic",
        "mrmr": "mrmr:Mrmr",
        "ns_forest": "ns_forest:NSForest",
        "random": "controls:RandomSelector",
        "shuffled_labels": "controls:ShuffledLabels",
        "oracle": "controls:Oracle",
        "all_genes": "controls:AllGenes",
    }.items()
}


def __getattr__(name: str) -> type[Selector]:
    """Return a selector by its class name: ``from mmlab.selectors import MarkerMapJoint``."""
    for selector in SELECTORS.values():
        if selector.__name__ == name:
            return selector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


#: Constructor arguments that a trial sets itself, or that do not change the result.
_NOT_HYPERPARAMETERS = {"n_markers", "seed", "device", "markers"}


def get_selector(name: str) -> type[Selector]:
    """Return the class of a method; the error for an unknown name lists the known ones."""
    if name not in SELECTORS:
        raise unknown_name("method", name, SELECTORS, preferred="markermap_supervised")
    return SELECTORS[name]


def load_libraries(selectors: Iterable[Selector]) -> None:
    """Import what selectors import, or the first fit of a process would take seconds longer."""
    for name in dict.fromkeys(name for selector in selectors for name in selector.libraries):
        import_module(name)


def control_methods() -> set[str]:
    """Return the names of the controls: methods that bound the others and do not compete."""
    return {name for name, selector in SELECTORS.items() if selector.is_control}


def default_params(name: str) -> dict[str, Scalar]:
    """Return the parameters that a trial may set, with their defaults."""
    signature = inspect.signature(get_selector(name))
    return {
        key: parameter.default
        for key, parameter in signature.parameters.items()
        if key not in _NOT_HYPERPARAMETERS
    }


def quick_params(name: str, n_training_cells: int) -> dict[str, Scalar]:
    """Return the parameters of the quick training of a method that differ from its defaults.

    There are none if the method has no quick training, or if its default training takes few
    steps on so few cells.
    """
    quick = get_selector(name).quick
    return {} if quick is None else quick.params_for(n_training_cells, default_params(name))


def resolve_params(name: str, params: dict[str, Scalar]) -> dict[str, Scalar]:
    """Return all parameters of a method: the given ones over the defaults, as their declared type.

    Raises
    ------
    UserError
        Unknown parameters or values of the wrong type: all of them at once.
    """
    kinds = get_type_hints(get_selector(name).__init__)
    defaults = default_params(name)
    problems = []
    resolved = dict(defaults)
    for key, value in params.items():
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            problems.append(f"{key} is not a parameter of {name} (it has: {known})")
            continue
        kind, words = _kind(kinds[key])
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind and value not in words:
            expected = " or ".join([*([kind.__name__] if kind else []), *words])
            problems.append(f"{key} must be {expected}, got {value!r}")
        resolved[key] = value
    if problems:
        raise UserError(join_problems(problems))
    return resolved


def _kind(hint: Any) -> tuple[type | None, tuple[str, ...]]:
    """Return the type of a parameter and its allowed words: ``int | Literal["auto"]``.

    The type is None where only words are allowed: ``Literal["float32", "mixed"]``.
    """
    parts = (hint,) if get_origin(hint) is Literal else get_args(hint) or (hint,)
    kinds = [part for part in parts if isinstance(part, type)]
    words = [word for part in parts for word in get_args(part)]
    return next(iter(kinds), None), tuple(words)
