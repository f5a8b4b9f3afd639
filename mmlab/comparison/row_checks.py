"""Checks of finished replicates that come from a file: types and ranges, and whose they are."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmlab.errors import UserError
from mmlab.metrics import METRICS
from mmlab.trial.result import CONFUSION_PREFIX, NESTED_COLUMNS

#: Columns that every finished replicate has.
REQUIRED = (
    *("digest", "selector", "n_markers", "replicate", "panel", "seconds", "fit_seconds"),
    "knn/accuracy",
)
#: Columns that a row has in common with its trial.
_OF_TRIAL = ("fingerprint", "selector", "n_markers", "noise_level", "seed", "replicate")
#: No replicate takes this many seconds.
_MAX_SECONDS = 1e9
_ADVICE = "Give a file that an earlier comparison wrote."
#: Rounding may exceed the range of a metric by this.
_ROUNDING = 1e-6


def check_rows(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    metric_columns: Sequence[str],
    n_genes: Mapping[str, int],
) -> None:
    """Check the rows of a file.

    Parameters
    ----------
    metric_columns
        The columns of metrics; other columns that are not known are not checked.
    n_genes
        Number of genes of datasets by their fingerprint.

    Raises
    ------
    UserError
        A value is not possible, or two rows of one trial differ.
    """
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        genes = n_genes.get(str(row.get("fingerprint")), math.inf)
        bad = _find_bad_value(row, metric_columns, genes)
        if bad is None:
            same = first.setdefault(row["digest"], number)
            # Lists may contain NaN, which is not equal to itself.
            if same != number and repr(rows[same]) != repr(row):
                bad = "digest", f"is that of row {same}, which has other values"
        if bad is not None:
            raise UserError(
                f"{path}, row {number} (counted from 0), column {bad[0]}: {bad[1]}. {_ADVICE}"
            )


def check_planned(
    path: Path | None, rows: Mapping[str, Mapping[str, Any]], planned: Iterable[Mapping[str, Any]]
) -> None:
    """Check that the rows of planned trials have the dataset, method, size and seed of these.

    Parameters
    ----------
    rows
        Rows by digest, in ``planned`` or not.
    planned
        Rows of the planned trials, without results.

    Raises
    ------
    UserError
        A row does not belong to the trial whose digest it has.
    """
    for expected in planned:
        row = rows.get(expected["digest"], {})
        for column in _OF_TRIAL:
            if row.get(column, expected[column]) != expected[column]:
                raise UserError(
                    f"{path}, row with digest {expected['digest'][:8]}, column {column}: must be "
                    f"{expected[column]!r} as in the trial with this digest, got "
                    f"{reprlib.repr(row[column])}. {_ADVICE}"
                )


def _find_bad_value(
    row: Mapping[str, Any], metric_columns: Sequence[str], n_genes: float
) -> tuple[str, str] | None:
    """Return the first column of a row whose value is not possible, and why; None if all are."""
    for column in REQUIRED:
        if column not in row:
            return column, "is missing"
    for column, value in row.items():
        check = _CHECKS.get(column)
        problem = "" if check is None else check(value)
        if column in metric_columns:
            problem = _check_metric(column, value)
        elif column.startswith(NESTED_COLUMNS):
            problem = _check_nested(column, value)
        if problem:
            return column, f"{problem}, got {reprlib.repr(value)}"
    panel, size = row["panel"], row["n_markers"]
    if len(panel) != size:
        return "panel", f"must have n_markers = {size} genes, got {len(panel)}"
    beyond = [gene for gene in panel if gene >= n_genes]
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


def _check_nested(column: str, value: Any) -> str:
    """Check a confusion matrix, or the values of a metric by cell type or by cell."""
    lines: list[Any] = value if isinstance(value, list) else [None]
    if column.startswith(CONFUSION_PREFIX):
        square = all(isinstance(line, list) and len(line) == len(lines) for line in lines)
        counts = square and all(_is_index(count) for line in lines for count in line)
        return "" if counts else "must be a square matrix of numbers of cells"
    return "" if all(isinstance(v, int | float) for v in lines) else "must be a list of numbers"


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
_IS_SECONDS = _unless(
    lambda value: _is_number(value) and 0 <= value < _MAX_SECONDS, "must be a number of seconds"
)

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
    "epochs": _IS_INDEX,
    "device": _IS_TEXT,
    "seconds": _IS_SECONDS,
    "fit_seconds": _IS_SECONDS,
    "panel": _check_panel,
}
