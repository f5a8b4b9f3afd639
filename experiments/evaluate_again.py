"""Evaluate the panels of finished replicates again, after a change of the metrics.

    python experiments/evaluate_again.py experiments/results/zeisel.parquet

The panels are kept: only the metrics are computed again, except those of a decoder, whose trained
model is not stored. The replicates get the digests of the present protocol number, so that the file
can be passed to ``--rows``. For every metric that changes, the largest change is printed.
``--keep-classifiers`` also keeps the metrics of the classifiers, which take most of the time.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np

from mmlab.comparison.result_table import (
    ResultRow,
    is_metric,
    make_row,
    read_rows,
    row_from_parquet,
    write_rows,
)
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.spec.protocol import PROTOCOL_NUMBER, Recipe
from mmlab.spec.trial import DataSpec, LabelNoise, TrialSpec
from mmlab.trial.batched_fit import Fit
from mmlab.trial.evaluate import CLASSIFIERS
from mmlab.trial.replicate import replicate_constraints
from mmlab.trial.result import replicate_row
from mmlab.trial.run import prepare_replicate

#: Seeds that are tried for replicates without a recorded seed.
_SEEDS = range(10)


def find_spec(row: ResultRow, fingerprint: str) -> TrialSpec:
    """Return the specification of a replicate: the one that gives its digest.

    Raises
    ------
    ValueError
        No recipe, seed and protocol number gives the digest.
    """
    seeds = [int(row["seed"])] if "seed" in row else _SEEDS
    numbers = range(PROTOCOL_NUMBER, 0, -1)
    for seed, recipe, number in product(seeds, get_args(Recipe), numbers):
        spec = TrialSpec(
            data=DataSpec(name=row["dataset"]),
            selector=row["selector"],
            params=json.loads(row["params"]),
            n_markers=row["n_markers"],
            noise=LabelNoise(level=row["noise_level"]),
            recipe=recipe,
            seed=seed,
            first_replicate=row["replicate"],
        )
        if spec.digest(fingerprint, number) == row["digest"]:
            return spec
    raise ValueError(f"no specification gives the digest {row['digest']} of {row['selector']}")


def evaluate_again(row: ResultRow, cells: Cells) -> ResultRow:
    """Return a finished replicate with new metrics and the digest of the present protocol."""
    spec, index = find_spec(row, cells.fingerprint), int(row["replicate"])
    constraints = replicate_constraints(spec, cells, [index])[index]
    prepared = prepare_replicate(spec, cells, constraints, index)
    panel = np.asarray(row["panel"], dtype=np.int64)
    fitted: Any = SimpleNamespace(
        panel_=panel, scores_=np.zeros(0), reconstruct=lambda x: None, get_params=dict
    )
    result = replace(prepared, fit=Fit(fitted, prepared.fit.data)).evaluate()
    kept = {name: row[name] for name in ("epochs", "fit_seconds", "seconds")}
    new = row | replicate_row(result) | kept | {"device": row.get("device", "cpu")}
    identity = make_row(spec, spec.digest(cells.fingerprint), cells.fingerprint, {})
    return row_from_parquet(new | identity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, nargs="+", help="Parquet file of finished replicates")
    parser.add_argument("--keep-classifiers", action="store_true")
    options = parser.parse_args()
    if options.keep_classifiers:
        CLASSIFIERS.clear()
    for path in options.rows:
        old_rows = read_rows(path)
        cells = {name: load_cells(DataSpec(name=name)) for name in {r["dataset"] for r in old_rows}}
        changes: dict[str, float] = {}
        new_rows = []
        for old in old_rows:
            new = evaluate_again(old, cells[old["dataset"]])
            for name in filter(is_metric, new):
                change = abs(new[name] - old.get(name, np.nan))
                changes[name] = max(changes.get(name, 0.0), change)
            new_rows.append(new)
        write_rows(new_rows, path)
        print(f"{path}: {len(new_rows)} replicates evaluated again")
        for name, change in changes.items():
            if change:
                print(f"  {name} changed by at most {change:.2g}")


if __name__ == "__main__":
    main()
