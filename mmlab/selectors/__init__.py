"""Marker selection methods by name."""

from __future__ import annotations

import inspect
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmlab.errors import UserError, unknown_name
from mmlab.selectors.base import Selector
from mmlab.selectors.concrete_vae import ConcreteVAE
from mmlab.selectors.controls import AllGenes, Oracle, RandomSelector, ShuffledLabels
from mmlab.selectors.cosg import Cosg
from mmlab.selectors.global_gumbel_vae import GlobalGumbelVAE
from mmlab.selectors.l1_logistic import L1Logistic
from mmlab.selectors.lassonet import LassoNet
from mmlab.selectors.markermap import MarkerMapJoint, MarkerMapSupervised, MarkerMapUnsupervised
from mmlab.selectors.mrmr import Mrmr
from mmlab.selectors.ns_forest import NSForest
from mmlab.selectors.persist import PersistSupervised, PersistUnsupervised
from mmlab.selectors.rankcorr import RankCorr
from mmlab.selectors.scanpy_hvg import ScanpyHVG
from mmlab.selectors.scanpy_tests import (
    ScanpyTTest,
    ScanpyTTestOverestimVar,
    ScanpyWilcoxon,
    ScanpyWilcoxonTieCorrect,
)
from mmlab.selectors.smash import Smash
from mmlab.spec.base import Scalar

__all__ = [
    "SELECTORS",
    "AllGenes",
    "ConcreteVAE",
    "Cosg",
    "GlobalGumbelVAE",
    "L1Logistic",
    "LassoNet",
    "MarkerMapJoint",
    "MarkerMapSupervised",
    "MarkerMapUnsupervised",
    "Mrmr",
    "NSForest",
    "Oracle",
    "PersistSupervised",
    "PersistUnsupervised",
    "RandomSelector",
    "RankCorr",
    "ScanpyHVG",
    "ScanpyTTest",
    "ScanpyTTestOverestimVar",
    "ScanpyWilcoxon",
    "ScanpyWilcoxonTieCorrect",
    "Selector",
    "ShuffledLabels",
    "Smash",
    "control_methods",
    "default_params",
    "get_selector",
    "resolve_params",
]

SELECTORS: dict[str, type[Selector]] = {
    "markermap_supervised": MarkerMapSupervised,
    "markermap_unsupervised": MarkerMapUnsupervised,
    "markermap_joint": MarkerMapJoint,
    "concrete_vae": ConcreteVAE,
    "global_gumbel_vae": GlobalGumbelVAE,
    "persist_supervised": PersistSupervised,
    "persist_unsupervised": PersistUnsupervised,
    "lassonet": LassoNet,
    "smash": Smash,
    "rankcorr": RankCorr,
    "cosg": Cosg,
    "scanpy_t_test": ScanpyTTest,
    "scanpy_t_test_overestim_var": ScanpyTTestOverestimVar,
    "scanpy_wilcoxon": ScanpyWilcoxon,
    "scanpy_wilcoxon_tie_correct": ScanpyWilcoxonTieCorrect,
    "scanpy_hvg": ScanpyHVG,
    "l1_logistic": L1Logistic,
    "mrmr": Mrmr,
    "ns_forest": NSForest,
    "random": RandomSelector,
    "shuffled_labels": ShuffledLabels,
    "oracle": Oracle,
    "all_genes": AllGenes,
}

#: Constructor arguments that a trial sets by itself, or that do not change what is computed.
_NOT_SEARCHED = {"n_markers", "seed", "device", "markers"}


def get_selector(name: str) -> type[Selector]:
    """Class of a selector; an unknown name lists the known ones."""
    if name not in SELECTORS:
        raise unknown_name("method", name, SELECTORS)
    return SELECTORS[name]


def control_methods() -> set[str]:
    """Names of the selectors that bound the others and do not compete."""
    return {name for name, selector in SELECTORS.items() if selector.is_control}


def default_params(name: str) -> dict[str, Scalar]:
    """The parameters that a trial may set, with their defaults."""
    signature = inspect.signature(get_selector(name))
    return {
        key: parameter.default
        for key, parameter in signature.parameters.items()
        if key not in _NOT_SEARCHED
    }


def resolve_params(name: str, params: dict[str, Scalar]) -> dict[str, Scalar]:
    """All parameters of a selector: the given ones over the defaults, as the declared type.

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
        raise UserError("; ".join(problems) + ".")
    return resolved


def _kind(hint: Any) -> tuple[type | None, tuple[str, ...]]:
    """Type of a parameter, and the words that may stand instead: ``int | Literal["auto"]``.

    No type where only words may stand: ``Literal["float32", "mixed"]``.
    """
    parts = (hint,) if get_origin(hint) is Literal else get_args(hint) or (hint,)
    kinds = [part for part in parts if isinstance(part, type)]
    words = [word for part in parts for word in get_args(part)]
    return next(iter(kinds), None), tuple(words)
