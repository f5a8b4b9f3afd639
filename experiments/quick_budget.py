"""Accuracy and time of MarkerMap by number of training steps: the measurement behind --quick.

    python experiments/quick_budget.py --splits 3 --pancreas baron_pancreas.h5ad

Panels are chosen and evaluated on the cells of a search: training and validation cells of random
splits. The held-out test set is never used. The candidates of a split are trained one after the
other, with one thread; their times are CPU seconds, so that a busy machine disturbs them little.
Trainings that are in the output file are not repeated.

The pancreas data are donor 1 of Baron et al. 2016 (GSE84133), an .h5ad file with the column
cell_type. Types with fewer than 10 cells and genes found in fewer than 10 cells are left out.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

from mmlab.comparison.shown_table import ShownTable, markdown
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells, make_cells
from mmlab.metrics.classification import accuracy, balanced_accuracy
from mmlab.preprocessing.expression import to_dense
from mmlab.preprocessing.splits import n_training_cells
from mmlab.selectors import get_selector
from mmlab.selectors.quick_training import steps_per_epoch
from mmlab.spec.base import Scalar
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system.threads import limit_threads
from mmlab.trial.run import Trial, prepare_replicate

ROOT = Path(__file__).parents[1]
#: Dataset and panel size.
SETTINGS = {
    "pbmc68k_reduced": [20],
    "zeisel": [10, 50],
    "citeseq": [50],
    "zeisel_subtypes": [50],
    "baron_pancreas": [50],
}
#: Steps, batch size and learning rate of the candidates. Those with another rate than 3e-3 were
#: added after the others had been measured.
CANDIDATES = {
    "250 steps of 128": (250, 128, 3e-3),
    "400 steps of 64": (400, 64, 3e-3),
    "400 steps of 128": (400, 128, 3e-3),
    "400 steps of 128, rate 1.5e-3": (400, 128, 1.5e-3),
    "700 steps of 128": (700, 128, 3e-3),
    "700 steps of 128, rate 1e-3": (700, 128, 1e-3),
}
#: Training by epochs, whatever the number of cells: epochs and batch size by mode.
EPOCHS_ONLY = {"supervised": (7, 128), "joint": (7, 128), "unsupervised": (9, 128)}
MODES = tuple(EPOCHS_ONLY)
#: The pancreas data: smallest number of cells of a type, and with a gene.
MIN_CELLS = 10
NOTE = """Written by `python experiments/quick_budget.py`, which says how. Seconds are CPU
seconds of one thread; differences and shares compare with the default training on the splits that
both have.

"""
KEYS = ["dataset", "mode", "k", "candidate", "replicate", "seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--n-markers", type=int, nargs="+", help="panel sizes, if not the usual")
    parser.add_argument("--modes", nargs="+", default=["supervised"], choices=MODES)
    parser.add_argument(
        "--candidates",
        nargs="+",
        default=["default", "epochs only", *CANDIDATES],
        choices=["default", "epochs only", *CANDIDATES],
    )
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pancreas", type=Path, help="the .h5ad file of baron_pancreas")
    parser.add_argument("--output", type=Path, default=ROOT / "experiments/results/quick_budget")
    options = parser.parse_args()
    path = options.output.with_suffix(".parquet")
    rows = pd.read_parquet(path).to_dict("records") if path.exists() else []
    finished = {tuple(row[key] for key in KEYS) for row in rows}
    for dataset in options.datasets:
        cells = load(dataset, options.pancreas)
        sizes = options.n_markers or SETTINGS[dataset]
        for mode, k, split in product(options.modes, sizes, range(options.splits)):
            for candidate in options.candidates:
                key = (dataset, mode, k, candidate, split, options.seed)
                if key in finished:
                    continue
                row = dict(zip(KEYS, key, strict=True)) | measure(cells, *key[1:])
                rows.append(row)
                print(row, flush=True)
                pd.DataFrame(rows).to_parquet(path)
    table = summary(pd.DataFrame(rows))
    print(table)
    options.output.with_suffix(".md").write_text(NOTE + table)


def load(dataset: str, pancreas: Path | None) -> Cells:
    """Return the cells of a dataset."""
    if dataset != "baron_pancreas":
        return load_cells(DataSpec(name=dataset))
    if pancreas is None:
        raise SystemExit("baron_pancreas needs --pancreas FILE.h5ad")
    adata = ad.read_h5ad(pancreas)
    sizes = adata.obs["cell_type"].value_counts()
    adata = adata[adata.obs["cell_type"].isin(sizes.index[sizes >= MIN_CELLS]).to_numpy()]
    found_in = np.asarray((adata.X > 0).sum(axis=0)).ravel()
    origin = "Baron et al. 2016, GSE84133, donor 1"
    return make_cells(
        adata[:, found_in >= MIN_CELLS],
        "cell_type",
        name=dataset,
        normalization="total",
        origin=origin,
    )


def parameters(method: str, mode: str, candidate: str, n_cells: int) -> dict[str, Scalar]:
    """Return the parameters of a candidate for a number of training cells."""
    if candidate == "default":
        return {}
    quick = get_selector(method).quick
    if candidate == "epochs only":
        (epochs, batch_size), rate = EPOCHS_ONLY[mode], 3e-3
    else:
        steps, batch_size, rate = CANDIDATES[candidate]
        epochs = replace(quick, steps=steps, batch_size=batch_size).epochs(n_cells)
    budget = {"max_epochs": epochs, "min_epochs": epochs, "batch_size": batch_size}
    return {**quick.params, **budget, "learning_rate": rate}


def measure(
    cells: Cells, mode: str, k: int, candidate: str, replicate: int, seed: int
) -> dict[str, Any]:
    """Train a candidate on a split of a search; return time, steps and accuracy of the panel."""
    method = f"markermap_{mode}"
    spec = TrialSpec(
        data=DataSpec(name=cells.name),
        selector=method,
        n_markers=k,
        protocol="search",
        first_replicate=replicate,
        seed=seed,
    )
    n_cells = n_training_cells(len(cells.y))
    spec = spec.model_copy(update={"params": parameters(method, mode, candidate, n_cells)})
    trial = Trial(spec, cells)
    trial.check_constraints()
    constraints = trial.panel_constraints[replicate]
    with limit_threads(1):
        prepared = prepare_replicate(trial.spec, cells, constraints, replicate)
        started = time.process_time()
        for _ in prepared.fit.selector.run(prepared.fit.data):
            pass
        seconds = time.process_time() - started
    split, panel = prepared.split, prepared.fit.selector.panel_
    x = [to_dense(prepared.zscore[part][:, panel]) for part in (split.train, split.validation)]
    knn = KNeighborsClassifier().fit(x[0], cells.y[split.train])
    predicted, y = knn.predict(x[1]), cells.y[split.validation]
    params = trial.spec.params
    return {
        "knn_accuracy": accuracy(y, predicted),
        "knn_balanced_accuracy": balanced_accuracy(y, predicted),
        "seconds": seconds,
        "steps": params["max_epochs"] * steps_per_epoch(len(split.train), params["batch_size"]),
        "epochs": params["max_epochs"],
        "batch_size": params["batch_size"],
    }


def summary(rows: pd.DataFrame) -> str:
    """Return a Markdown table: means, and differences from the default on the same splits."""
    settings, metrics = ["dataset", "mode", "k"], ["knn_accuracy", "knn_balanced_accuracy"]
    default = rows[rows["candidate"] == "default"].set_index([*settings, "replicate", "seed"])
    paired = rows.join(default[["seconds", *metrics]], on=default.index.names, rsuffix="_default")
    header = [*settings, "training", "splits", "steps", "kNN accuracy", "difference"]
    header += ["balanced accuracy", "difference", "seconds", "share of default", "shared splits"]
    lines = []
    for (*setting, candidate), group in paired.groupby([*settings, "candidate"], sort=False):
        mean, shared = group.mean(numeric_only=True), group.dropna()
        cells = [*setting, candidate, len(group), f"{mean['steps']:.0f}"]
        for name in metrics:
            difference = (shared[name] - shared[f"{name}_default"]).mean()
            cells += [f"{mean[name]:.3f}", f"{difference:+.3f}" if len(shared) else ""]
        share = shared["seconds"].sum() / shared["seconds_default"].sum() if len(shared) else None
        cells += [f"{mean['seconds']:.1f}", "" if share is None else f"{share:.2f}", len(shared)]
        lines.append([str(cell) for cell in cells])
    return markdown([ShownTable("Training of MarkerMap by number of steps", header, lines)])


if __name__ == "__main__":
    main()
