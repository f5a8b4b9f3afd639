"""Table of finished replicates: one row per replicate of one method, in memory or as Parquet.

A row is a row of ``TrialResult.replicates`` plus the trial's digest and the parts of its
specification that the tables need. A later study with the same trials reuses the rows.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmlab.comparison.row_checks import REQUIRED, check_rows
from mmlab.errors import UserError
from mmlab.metrics import METRICS
from mmlab.metrics.stability import mean_jaccard, nogueira_stability
from mmlab.spec.base import canonical_json
from mmlab.spec.trial import TrialSpec
from mmlab.system.files import atomic_write, set_aside
from mmlab.trial.evaluate import CLASSIFIERS, CLEAN_PREFIX

ResultRow = dict[str, Any]

#: Columns that identify a row; the others are results.
_IDENTITY = (
    *("digest", "dataset", "fingerprint", "method", "setting"),
    *("selector", "params", "n_markers", "noise_level", "seed"),
)
#: First and last bytes of a Parquet file.
_MAGIC = b"PAR1"
#: Minimum time between two writes: each write replaces the whole file.
_SECONDS_BETWEEN_WRITES = 5.0
_PREFIXES = (
    *CLASSIFIERS,
    *(CLEAN_PREFIX + name for name in CLASSIFIERS),
    *("linear", "decoder", "panel", "leiden"),
)


def make_row(spec: TrialSpec, digest: str, fingerprint: str, replicate: ResultRow) -> ResultRow:
    """Return the row of a resolved trial with one replicate.

    ``replicate`` is the row of that replicate in ``TrialResult.replicates``.
    """
    return {
        "digest": digest,
        "dataset": spec.data.title,
        "fingerprint": fingerprint,
        "selector": spec.selector,
        "params": canonical_json(spec.params),
        "n_markers": spec.n_markers,
        "noise_level": spec.noise.level,
        "seed": spec.seed,
        **replicate,
    }


def is_metric(column: str) -> bool:
    """Return whether a column of the table is a registered metric."""
    prefix, _, name = column.partition("/")
    return prefix in _PREFIXES and name in METRICS


def read_rows(path: Path, n_genes: Mapping[str, int] | None = None) -> list[ResultRow]:
    """Read the rows that an earlier comparison wrote as Parquet; none if there is no file.

    Parameters
    ----------
    n_genes
        Number of genes of datasets by their fingerprint, to check the panels.

    Raises
    ------
    UserError
        The file is not a table of finished replicates, or has impossible values.
    """
    if not path.exists():
        return []
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many types
        raise UserError(f"{path} cannot be read as Parquet: {str(error).rstrip('.')}.") from error
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise UserError(
            f"{path} is not a table of finished replicates: it has no column {missing[0]!r}. "
            "Give a file that an earlier comparison wrote."
        )
    rows = [row_from_parquet(row) for row in table.to_dict(orient="records")]
    metrics = [name for name in map(str, table.columns) if is_metric(name)]
    check_rows(path, rows, metrics, n_genes or {})
    return rows


def row_from_parquet(row: Mapping[Any, Any]) -> ResultRow:
    """Return a Parquet row as plain values: lists instead of arrays, missing values left out."""
    plain: ResultRow = {}
    for key, value in row.items():
        if isinstance(value, np.ndarray):
            plain[key] = [v.tolist() if isinstance(v, np.ndarray) else v for v in value.tolist()]
        elif value is not None and not (isinstance(value, float) and np.isnan(value)):
            plain[key] = value
    return plain


def write_rows(rows: Iterable[ResultRow], path: Path) -> None:
    """Write rows as Parquet, sorted by selector and digest; the file is replaced atomically."""
    table = pd.DataFrame(list(rows))
    known = [name for name in _IDENTITY if name in table.columns]
    table = table[known + [name for name in table.columns if name not in known]]
    table = table.sort_values(["selector", "digest"], kind="stable")
    with atomic_write(path) as temporary:
        table.to_parquet(temporary, index=False)


@dataclass
class ResultFile:
    """Finished replicates by digest, and the Parquet file that they are written to, if any.

    ``error`` says why the file could not be written at last; it is empty after a success.
    """

    by_digest: dict[str, ResultRow]
    path: Path | None = None
    error: str = ""
    _written_at: float = -math.inf

    @classmethod
    def read(cls, path: Path | None, n_genes: Mapping[str, int] | None = None) -> ResultFile:
        """Read the rows of a file; no rows if the file does not exist or ``path`` is None.

        A Parquet file of which a part is missing is set aside. See :func:`read_rows` for
        ``n_genes`` and what is raised.
        """
        if path is not None and is_torn_parquet(path):
            set_aside(path, "file of finished replicates")
        rows = [] if path is None else read_rows(path, n_genes)
        return cls({str(row["digest"]): row for row in rows}, path)

    def add(self, row: ResultRow) -> None:
        """Add a row; the file is written at most every few seconds."""
        self.by_digest[row["digest"]] = row
        if time.monotonic() - self._written_at > _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write all rows to the file; a full disk does not stop a study, see :attr:`error`."""
        if self.path is None or not self.by_digest:
            return
        self._written_at = time.monotonic()
        try:
            write_rows(self.by_digest.values(), self.path)
        except OSError as error:
            self.error = str(error.strerror or error)
        else:
            self.error = ""


def is_torn_parquet(path: Path) -> bool:
    """Return whether a file begins as Parquet and does not end so; such a file has lost its end."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        begins = file.read(len(_MAGIC)) == _MAGIC
        file.seek(0, os.SEEK_END)
        length = file.tell()
        file.seek(max(length - len(_MAGIC), 0))
        return begins and (length < 3 * len(_MAGIC) or file.read() != _MAGIC)


def summarise_rows(rows: pd.DataFrame, n_genes: int) -> pd.DataFrame:
    """Return mean and sample standard deviation of every metric of every method.

    Parameters
    ----------
    rows
        One row per finished replicate, with the columns ``method`` and ``setting``.
    n_genes
        Number of genes of the dataset, for the stability of the panels.

    Returns
    -------
    Columns dataset, method, n_markers, setting, metric, mean, std (sample standard deviation, NaN
    for one replicate), n (replicates), low, high. With two or more replicates the metrics include
    the stability of the panels: ``stability/nogueira``, with its 95 % confidence interval as low
    and high, and ``stability/jaccard``.
    """
    parts = []
    for (dataset, method, n_markers, setting), group in rows.groupby(
        ["dataset", "method", "n_markers", "setting"], sort=False
    ):
        metrics = _metric_rows(group) + _stability_rows(group, n_genes)
        parts += [
            {
                "dataset": dataset,
                "method": method,
                "n_markers": n_markers,
                "setting": setting,
                **row,
            }
            for row in metrics
        ]
    return pd.DataFrame(parts)


def _metric_rows(group: pd.DataFrame) -> list[ResultRow]:
    columns = [name for name in group.columns if is_metric(name)]
    rows = []
    for name in [*columns, "fit_seconds"]:
        values = group[name].dropna().to_numpy(dtype=float)
        if len(values):
            std = values.std(ddof=1) if len(values) > 1 else np.nan
            rows.append({"metric": name, "mean": values.mean(), "std": std, "n": len(values)})
    return rows


def _stability_rows(group: pd.DataFrame, n_genes: int) -> list[ResultRow]:
    panels = [np.asarray(panel, dtype=np.int64) for panel in group["panel"]]
    if len(panels) < 2 or len(panels[0]) == n_genes:
        return []
    stability = nogueira_stability(panels, n_genes)
    return [
        {
            "metric": "stability/nogueira",
            "mean": stability.value,
            "std": np.nan,
            "n": len(panels),
            "low": stability.low,
            "high": stability.high,
        },
        {
            "metric": "stability/jaccard",
            "mean": mean_jaccard(panels),
            "std": np.nan,
            "n": len(panels),
        },
    ]
