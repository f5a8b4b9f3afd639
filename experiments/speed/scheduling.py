"""Overhead of scheduling and tracking: a search against its trials in a pool of processes.

    python experiments/speed/scheduling.py --dataset citeseq --trials 200 --epochs 4

Runs ``mmlab tune`` with a new tracking database. Then runs the same trials again, each for the same
number of epochs, in a pool of the same number of processes, without Ray, Optuna, MLflow and
figures. Both times are those of the whole command, imports included. The overhead per trial is the
difference, times the number of processes, divided by the number of trials.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system.threads import limit_threads
from mmlab.tracking import TrackingStore, open_study
from mmlab.trial.run import Trial

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="citeseq")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4, help="maximum per trial")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "experiments/results/speed_scheduling.parquet"
    )
    parser.add_argument("--replay", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.replay is not None:
        replay(options.replay, options.processes)
        return
    rows = []
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            search = run_search(options, Path(folder), repeat)
            own = [sys.executable, __file__, "--processes", str(options.processes)]
            pool, _ = timed([*own, "--replay", folder])
        overhead = (search - pool) * options.processes / options.trials
        rows.append(
            {
                "dataset": options.dataset,
                "trials": options.trials,
                "epochs": options.epochs,
                "processes": options.processes,
                "search_seconds": search,
                "pool_seconds": pool,
                "ratio": search / pool,
                "seconds_a_trial": overhead,
            }
        )
        print(
            f"search {search:.1f} s, its trials in a pool {pool:.1f} s: "
            f"ratio {search / pool:.3f}, overhead {overhead:.2f} s per trial",
            flush=True,
        )
    table = pd.DataFrame(rows)
    table.to_parquet(options.output)
    draw(table, options.output.with_suffix(".png"))


def draw(table: pd.DataFrame, path: Path) -> None:
    """Plot the seconds of the search and of its trials in a pool."""
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    names = {"search_seconds": "mmlab tune", "pool_seconds": "its trials in a pool"}
    axes.barh(list(names.values()), [table[name].median() for name in names])
    first = table.iloc[0]
    axes.set_xlabel("seconds")
    axes.set_title(
        f"{first['trials']} trials on {first['dataset']}: "
        f"{table['seconds_a_trial'].median():.2f} s per trial for scheduling and tracking",
        fontsize=10,
    )
    figure.savefig(path, dpi=120)


def timed(command: list[str]) -> tuple[float, str]:
    """Run a command; return its seconds and its standard output."""
    started = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, done.stdout


def run_search(options: argparse.Namespace, folder: Path, seed: int) -> float:
    """Run a search and return its seconds; write its trials and their epochs to the folder."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    command = [sys.executable, "-m", "mmlab", "tune", "--dataset", options.dataset]
    command += ["--trials", str(options.trials), "--max-concurrent", str(options.processes)]
    command += ["--epochs", str(options.epochs)]
    seconds, printed = timed([*command, "--seed", str(seed), "--tracking-uri", uri, "--json"])
    trials = [
        {
            "spec": trial.spec.model_dump(mode="json"),
            "epochs": int(trial.metrics["epoch"]),
            "outcome": str(trial.outcome),
        }
        for trial in open_study(TrackingStore(uri), json.loads(printed)["study"]).trials()
    ]
    (folder / "trials.json").write_text(json.dumps(trials), encoding="utf-8")
    return seconds


def replay(folder: Path, processes: int) -> None:
    """Run the trials of a search again in a pool of processes."""
    trials = json.loads((folder / "trials.json").read_text(encoding="utf-8"))
    with get_context("spawn").Pool(processes) as pool:
        for _ in pool.imap_unordered(run_again, trials):
            pass


@cache
def cells_named(name: str) -> Cells:
    """Return a dataset, loaded once per process."""
    return load_cells(DataSpec(name=name))


def run_again(trial: dict[str, Any]) -> None:
    """Run a trial for as many epochs as in the search."""
    spec = TrialSpec.model_validate(trial["spec"])
    with limit_threads(1):
        running = Trial(spec, cells_named(spec.data.title))
        for epoch in running.epochs():
            if epoch["epoch"] == trial["epochs"] and trial["outcome"] != "complete":
                return
        running.result()


if __name__ == "__main__":
    main()
