"""Scaling of training time and memory with cells, genes, panel size and hidden size.

    python experiments/speed/growth.py --repeats 3

Trains supervised MarkerMap on simulated z-scores with one thread, each training in its own
process. Each of the four sizes in turn is halved, doubled and quadrupled. Times and memory are
ratios to the training with all sizes unchanged; the slope over the logarithms is the exponent of
the growth (1: linear).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray

from mmlab.selectors import MarkerMapSupervised
from mmlab.system.memory import PeakMemory
from mmlab.system.threads import limit_threads

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
BASE = {"cells": 8000, "genes": 2000, "n_markers": 50, "hidden_size": 128}
FACTORS = (0.5, 1.0, 2.0, 4.0)
N_CLASSES, EPOCHS = 8, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "experiments/results/speed_growth.parquet"
    )
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point is not None:
        print(json.dumps(train(**options.point)))
        return
    rows = []
    for repeat in range(options.repeats):
        for axis in BASE:
            for factor in FACTORS:
                point = BASE | {axis: int(BASE[axis] * factor)}
                command = [sys.executable, __file__, "--point", json.dumps(point)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                measured = json.loads(done.stdout)
                rows.append({"axis": axis, "factor": factor, "repeat": repeat, **point, **measured})
                print(f"{axis} x {factor:g}: {done.stdout.strip()}", flush=True)
    table = pd.DataFrame(rows)
    table.to_parquet(options.output)
    ratios = summary(table)
    print(ratios.round(2).to_string())
    for (axis, column), slope in slopes(ratios).items():
        print(f"{column} grows with {axis} to the power of {slope:.2f}")
    draw(ratios, options.output.with_suffix(".png"))


def train(cells: int, genes: int, n_markers: int, hidden_size: int) -> dict[str, float]:
    """Return CPU seconds per epoch, and the peak memory of data and training in MiB."""
    selector = MarkerMapSupervised(
        n_markers, hidden_size=hidden_size, max_epochs=EPOCHS, min_epochs=EPOCHS, device="cpu"
    )
    with limit_threads(1):
        # Imports and other costs that a process has once are not measured.
        selector.fit(*simulated(200, genes))
        resident, peak = psutil.Process().memory_info().rss / 2**20, PeakMemory()
        x, y = simulated(cells, genes)
        started = time.process_time()
        selector.fit(x, y)
        seconds = time.process_time() - started
    return {"seconds": seconds / EPOCHS, "memory_mb": peak.read()["peak_memory_mb"] - resident}


def simulated(cells: int, genes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return z-scores (cells, genes) and classes (cells,); each class has one marker gene."""
    rng = np.random.default_rng(0)
    y = rng.integers(N_CLASSES, size=cells)
    x = rng.standard_normal((cells, genes), dtype=np.float32)
    x[:, :N_CLASSES] += 3 * np.eye(N_CLASSES, dtype=np.float32)[y]
    return x, y


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return medians as ratios to those of the unchanged training, per axis and factor."""
    medians = table.groupby(["axis", "factor"], sort=False)[["seconds", "memory_mb"]].median()
    return medians / medians.xs(1.0, level="factor")


def slopes(ratios: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Return the exponent of the growth per axis and column."""
    return {
        (axis, column): float(np.polyfit(np.log(part.index), np.log(part[column]), 1)[0])
        for axis in BASE
        for part in [ratios.xs(axis, level="axis")]
        for column in ratios.columns
    }


def draw(ratios: pd.DataFrame, path: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    for panel, (column, title) in zip(
        axes, {"seconds": "CPU seconds per epoch", "memory_mb": "peak memory"}.items(), strict=True
    ):
        for axis in BASE:
            part = ratios.xs(axis, level="axis")
            panel.loglog(part.index, part[column], marker="o", label=axis.replace("_", " "))
        panel.loglog(FACTORS, FACTORS, color="gray", linestyle=":", label="linear")
        panel.set_title(f"{title}, ratio", fontsize=10)
        panel.set_xlabel("factor")
        panel.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
