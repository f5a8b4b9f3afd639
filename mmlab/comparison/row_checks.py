"""Checks of finished replicates that come from a file: types and ranges of all columns."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmlab.metrics import METRICS

#: Columns that every finished replicate has.
REQUIRED = ("digest", "selector", "n_markers", "replicate", "panel", "seconds", "fit_seconds")
#: Rounding may exceed the range of a metric by this.
_ROUNDING = 1e-6


def find_bad_value(
    row: Mapping[str, Any], metric_columns: Sequence[str], n_genes: float
) -> tuple[str, str] | None:
    """Return the first column of a row whose value is not possible, and why; None if all are.

    Parameters
    ----------
    metric_columns
        The columns of metrics; other columns that are not known are not checked.
    n_genes
        Number of genes of the dataset; infinity if it is not known.
    """
    for column in REQUIRED:
        if column not in row:
            return column, "is missing"
    for column, value in row.items():
        check = _CHECKS.get(column)
        problem = "" if check is None else check(value)
        if column in metric_columns:
            problem = _check_metric(column, value)
        if problem:
            return column, f"{problem}, got {reprlib.repr(value)}"
    beyond = [gene for gene in row["panel"] if gene >= n_genes]
    if beyond:
        return "panel", f"must be indices of the {n_genes} genes, got {beyond[0]}"
    return None


def _check_metric(column: str, value: Any) -> str:
    metric = METRICS[column.partition("/")[2]]
    if not _is_number(value):
        return "must be a number"
    if not metric.low - _ROUNDING <= value <= metric.high + _ROUNDING:
        return f"must be between {metric.low:g} and {metric.high:g}"
    return ""


def _check_panel(value: Any) -> str:
    """Check a panel: distinct indices of genes."""
    if not isinstance(value, list) or not value or not all(map(_is_index, value)):
        return "must be a list of gene indices"
    return "must not contain a gene twice" if len(set(value)) < len(value) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_index(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _unless(accept: Callable[[Any], bool], problem: str) -> Callable[[Any], str]:
    return lambda value: "" if accept(value) else problem


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


_IS_TEXT = _unless(lambda value: isinstance(value, str), "must be text")
_IS_INDEX = _unless(_is_index, "must be a non-negative integer")
_IS_SECONDS = _unless(lambda value: _is_number(value) and value >= 0, "must be a number of seconds")

#: Checks of columns: each returns what is wrong, or "".
_CHECKS: Mapping[str, Callable[[Any], str]] = {
    "digest": _unless(_is_digest, "must be a SHA-256 in hexadecimal"),
    "dataset": _IS_TEXT,
    "fingerprint": _IS_TEXT,
    "selector": _IS_TEXT,
    "params": _IS_TEXT,
    "n_markers": _unless(
        lambda value: _is_index(value) and value > 0, "must be a positive integer"
    ),
    "noise_level": _unless(lambda v: _is_number(v) and 0 <= v <= 1, "must be between 0 and 1"),
    "seed": _IS_INDEX,
    "replicate": _IS_INDEX,
    "seconds": _IS_SECONDS,
    "fit_seconds": _IS_SECONDS,
    "panel": _check_panel,
}
