"""Time and memory of training on cells that are read from disk, by number of cells.

    python experiments/speed/out_of_core.py

Runs trials of supervised MarkerMap (--quick) on simulated cells x 4,000 genes on disk, each in its
own process with two threads: one trains, one reads. For comparison, batches of the same random
cells are read by anndata's lazy access (``sparse_dataset`` of the same file) and transformed to the
same z-scores. The simulated cells stay in the cache (mmlab datasets list).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import matplotlib as mpl
import numpy as np
import pandas as pd

from mmlab.datasets import DATASETS
from mmlab.datasets.cache.cache_paths import counts_path
from mmlab.datasets.cache.cached_counts import open_cells
from mmlab.datasets.cache.install import simulate_dataset
from mmlab.datasets.cache.records import CacheRecord
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.expression import Expression
from mmlab.preprocessing.normalization import log_normalize, standardize
from mmlab.preprocessing.splits import n_training_cells
from mmlab.selectors import quick_params
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system.memory import PeakMemory
from mmlab.system.threads import limit_threads
from mmlab.trial.run import Trial

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
LIKE, N_GENES = "ssv4", 4000
#: Batches per measurement of the time to read.
N_BATCHES = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cells", type=int, nargs="+", default=[125_000, 250_000, 500_000, 1_000_000]
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--repeats", type=int, default=3, help="repeats of the measurement of reading"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "experiments/results/speed_out_of_core.parquet"
    )
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point is not None:
        print(json.dumps(measure(**options.point)))
        return
    rows = []
    for n_cells in options.cells:
        point = {"n_cells": n_cells, "epochs": options.epochs, "repeats": options.repeats}
        simulated(n_cells)
        command = [sys.executable, __file__, "--point", json.dumps(point)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"cells": n_cells, **json.loads(done.stdout)})
        print(f"{n_cells:,} cells: {done.stdout.strip()}", flush=True)
    table = pd.DataFrame(rows)
    table.to_parquet(options.output)
    draw(table, options.output.with_suffix(".png"))


def simulated(n_cells: int) -> CacheRecord:
    """Return the cache record of simulated cells, after simulating them if necessary."""
    name = f"{LIKE}_simulated_cells{n_cells}_genes{N_GENES}"
    return simulate_dataset(DATASETS[LIKE], name, n_cells=n_cells, n_genes=N_GENES)


def measure(n_cells: int, epochs: int, repeats: int) -> dict[str, Any]:
    """Return peak memory and seconds of a trial, and the times to read a batch."""
    record = simulated(n_cells)
    cells = open_cells(record)
    selector = "markermap_supervised"
    params = quick_params(selector, n_training_cells(n_cells))
    params |= {"max_epochs": epochs, "min_epochs": epochs}
    spec = TrialSpec(data=DataSpec(name=cells.name), selector=selector, params=params)
    memory, started = PeakMemory(), time.perf_counter()
    with limit_threads(1):
        trial = Trial(spec, cells)
        ends = [time.perf_counter() for _ in trial.epochs()]
        result = trial.result()
    finished = time.perf_counter()
    return {
        "peak_memory_mb": memory.read()["peak_memory_mb"],
        "seconds_an_epoch": float(np.median(np.diff(ends))),
        "seconds_of_the_trial": finished - started,
        "counts_mb": cells.adata.X.data.nbytes * 2 / 2**20,
        "dense_mb": n_cells * N_GENES * 4 / 2**20,
        "accuracy": result.metrics["knn/accuracy"],
        **reading_times(cells, record, int(trial.spec.params["batch_size"]), repeats),
    }


def reading_times(
    cells: Cells, record: CacheRecord, batch_size: int, repeats: int
) -> dict[str, float]:
    """Return the median milliseconds to read a batch, by mmlab and by anndata alternately."""
    rng = np.random.default_rng(0)
    n_cells, n_genes = cells.adata.shape
    mean, sd = np.zeros(n_genes, np.float32), np.ones(n_genes, np.float32)
    expression = Expression(cells.adata.X, "zscore", "total", mean, sd)
    times: dict[str, list[float]] = {"mmlab": [], "anndata": []}
    with h5py.File(counts_path(record.sha256)) as file:
        lazy_counts = ad.io.sparse_dataset(file["X"])
        # anndata reads the row pointers once; that is not measured.
        np.testing.assert_array_equal(lazy_counts[np.arange(3)].indptr, cells.adata.X[:3].indptr)
        for _ in range(repeats):
            batches = [np.sort(rng.choice(n_cells, batch_size)) for _ in range(N_BATCHES)]
            started = time.perf_counter()
            for rows in batches:
                expression[rows].toarray()
            times["mmlab"].append(time.perf_counter() - started)
            started = time.perf_counter()
            for rows in batches:
                standardize(log_normalize(lazy_counts[rows], "total").toarray(), mean, sd)
            times["anndata"].append(time.perf_counter() - started)
    ms = {reader: 1000 * float(np.median(took)) / N_BATCHES for reader, took in times.items()}
    return {
        "ms_a_batch": ms["mmlab"],
        "ms_a_batch_anndata": ms["anndata"],
        "times_as_fast": ms["anndata"] / ms["mmlab"],
    }


def draw(table: pd.DataFrame, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    left.plot(table["cells"], table["peak_memory_mb"] / 1024, marker="o", label="peak of the trial")
    left.plot(table["cells"], table["counts_mb"] / 1024, linestyle=":", label="counts on disk")
    left.plot(table["cells"], table["dense_mb"] / 1024, linestyle="--", label="dense z-scores")
    left.set_ylabel("GiB")
    left.legend(fontsize=8)
    right.plot(table["cells"], table["seconds_an_epoch"], marker="o")
    right.set_ylabel("seconds per epoch")
    for panel in (left, right):
        panel.set_xlabel("cells")
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
