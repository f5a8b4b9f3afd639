"""Time, memory and accuracy of MarkerMap: mmlab against the package markermap.

    python experiments/speed/reference.py --splits 3

Creates a virtual environment for markermap 1.0.3 (once). Trains every mode on the same splits, with
each implementation in turn, and each training in its own process. The three implementations are
markermap with the parameters of its published benchmark, mmlab with its defaults, and mmlab with a
quick training. With ``--side-by-side`` two trainings of mmlab run at once with one thread each; the
time of one is then half the time of both, which is the throughput of a search on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

from mmlab.datasets import load_cells
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.preprocessing.splits import paper_split
from mmlab.spec.trial import DataSpec

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("train_once.py")
MODES = ("supervised", "joint", "unsupervised")
RIVALS = ("markermap", "mmlab", "mmlab quick")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["zeisel", "citeseq"])
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--rivals", nargs="+", default=list(RIVALS), choices=RIVALS)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="threads of each training")
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="run two trainings of mmlab at once, with one thread each",
    )
    parser.add_argument("--environment", type=Path, default=ROOT / ".speed" / "markermap")
    parser.add_argument("--output", type=Path, default=ROOT / "experiments/results/speed_reference")
    options = parser.parse_args()
    python = reference_python(options.environment) if "markermap" in options.rivals else ""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for dataset, split in itertools.product(options.datasets, range(options.splits)):
            path = Path(folder) / f"{dataset}-{split}.npz"
            evaluate = write_split(dataset, options.seed, split, path)
            for mode, rival in itertools.product(options.modes, options.rivals):
                interpreter = python if rival == "markermap" else sys.executable
                at_once = 2 if options.side_by_side and rival != "markermap" else 1
                result = train(interpreter, rival, path, mode, options.threads, at_once)
                row = {"dataset": dataset, "mode": mode, "rival": rival, "split": split, **result}
                row |= evaluate(row.pop("panel"))
                rows.append(row)
                print(
                    f"{dataset} {mode} split {split} {rival}: {row['seconds']:.1f} s, "
                    f"kNN accuracy {row['accuracy']:.4f}",
                    flush=True,
                )
    table = pd.DataFrame(rows)
    table.to_parquet(options.output.with_suffix(".parquet"))
    ratios = summary(table)
    print(ratios.round(4).to_string())
    draw(ratios, options.output.with_suffix(".png"))


def reference_python(environment: Path) -> str:
    """Return the Python of the environment with markermap; create the environment if needed."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", "torch"], check=True)
        subprocess.run([*pip, "markermap==1.0.3", "pytorch-lightning>=2.5.6"], check=True)
    return str(python)


def write_split(dataset: str, seed: int, replicate: int, path: Path) -> Any:
    """Write training and validation cells; return a function that evaluates a panel.

    The function returns the kNN accuracy of a panel on the test cells.
    """
    cells = load_cells(DataSpec(name=dataset))
    split = paper_split(cells.y, random_stream(seed, replicate, Stream.SPLIT))
    z = prepare_layers(cells.adata, cells.normalization, "train_only", split.train)["zscore"]
    x, y = np.asarray(z), cells.y
    np.savez(
        path,
        x=x[split.train],
        y=y[split.train],
        x_val=x[split.validation],
        y_val=y[split.validation],
        seed=replicate,
    )
    fit_cells, test = split.train_validation, split.test

    def evaluate(panel: list[int]) -> dict[str, float]:
        classifier = KNeighborsClassifier().fit(x[fit_cells][:, panel], y[fit_cells])
        return {"accuracy": classifier.score(x[test][:, panel], y[test])}

    return evaluate


def train(
    python: str, rival: str, path: Path, mode: str, threads: int, at_once: int
) -> dict[str, Any]:
    """Return the result of one training.

    With ``at_once`` trainings side by side it is the result of the first; its seconds are those of
    all, divided by their number.
    """
    package, _, quick = rival.partition(" ")
    command = [python, str(WORKER), package, str(path), mode]
    command.append("1" if at_once > 1 else str(threads))
    command += ["--quick"] if quick else []
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(at_once)
    ]
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    seconds = max(result["seconds"] for result in results) / at_once
    return results[0] | {"seconds": seconds}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return medians over the splits, mean accuracies, and how many times faster than markermap."""
    groups = table.groupby(["dataset", "mode", "rival"], sort=False)
    statistics = groups[["seconds", "cpu_seconds", "peak_memory_mb"]].median()
    statistics["accuracy"] = groups["accuracy"].mean()
    for column in ("seconds", "cpu_seconds"):
        wide = table.pivot_table(index=["dataset", "mode", "split"], columns="rival", values=column)
        if "markermap" in wide:
            ratios = wide.rdiv(wide["markermap"], axis=0).groupby(["dataset", "mode"]).median()
            statistics[f"times_less_{column}"] = ratios.stack()
    return statistics


def draw(ratios: pd.DataFrame, path: Path) -> None:
    """Plot seconds and accuracy of every implementation, one panel each."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axis, column, title in zip(
        axes, ("seconds", "accuracy"), ("seconds per training", "kNN accuracy"), strict=True
    ):
        ratios[column].unstack("rival").plot.bar(ax=axis, rot=25, xlabel="", title=title)
    axes[0].set_yscale("log")
    axes[1].set_ylim(ratios["accuracy"].min() - 0.05, 1)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
