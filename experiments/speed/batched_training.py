r"""Time of models trained as one batch against the same models one after the other.

    python experiments/speed/batched_training.py --dataset citeseq --models 2 5 10
    python experiments/speed/batched_training.py --simulated 39583 4581 9 --models 1 10 \
        --epochs 12 --quick

The seconds per model are the seconds of all models, divided by their number. ``--simulated`` takes
the numbers of cells, genes and types; the cells are normal z-scores in which each type has ten
marker genes. mmlab trains replicates of a comparison as one batch on a GPU only.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch

from mmlab.constraints.measure import PanelConstraints
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.preprocessing.splits import n_training_cells, paper_split
from mmlab.selectors import get_selector, quick_params
from mmlab.selectors.training_data import TrainingData
from mmlab.selectors.vae import train_batched
from mmlab.spec.trial import DataSpec
from mmlab.system.threads import limit_threads
from mmlab.trial.fit_inputs import training_data

mpl.use("agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="citeseq")
    parser.add_argument("--simulated", type=int, nargs=3, metavar=("CELLS", "GENES", "TYPES"))
    parser.add_argument("--method", default="markermap_supervised")
    parser.add_argument("--models", type=int, nargs="+", default=[2, 5, 10])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "experiments/results/speed_packed.parquet"
    )
    options = parser.parse_args()
    method: Any = get_selector(options.method)
    cells = None if options.simulated else load_cells(DataSpec(name=options.dataset))
    n_cells = options.simulated[0] if cells is None else len(cells.y)
    params = quick_params(options.method, n_training_cells(n_cells)) if options.quick else {}
    params |= {"max_epochs": options.epochs, "min_epochs": options.epochs}
    selector = method(50, device=options.device, **params)
    if cells is None:
        name = "simulated {} x {}, {} types".format(*options.simulated)
        data = [simulated(selector, *options.simulated)] * max(options.models)
    else:
        name = options.dataset
        data = [replicate(selector, cells, index) for index in range(max(options.models))]
    rows = []
    for repeat in range(options.repeats):
        for n_models in options.models:
            for batched in (False, True):
                parts = [data[:n_models]] if batched else [[one] for one in data[:n_models]]
                seconds = sum(train(selector, part) for part in parts) / n_models
                how = "packed" if batched else "one by one"  # as in the stored results
                rows.append({"models": n_models, "how": how, "repeat": repeat, "seconds": seconds})
                description = "as one batch" if batched else "one by one"
                print(f"{n_models} models {description}: {seconds:.2f} s per model", flush=True)
    table = pd.DataFrame(rows).assign(dataset=name, method=options.method)
    table.to_parquet(options.output)
    medians = table.pivot_table("seconds", "models", "how", "median")
    print((medians["packed"] / medians["one by one"]).rename("ratio").round(3).to_string())
    medians = medians.rename(columns={"packed": "as one batch"})
    axis = medians.plot.bar(rot=0, ylabel="seconds per model", xlabel="models", title="training")
    plt.savefig(options.output.with_suffix(".png"), dpi=120)
    plt.close(axis.figure)


def replicate(selector: Any, cells: Cells, index: int) -> TrainingData:
    """Return the training data of one replicate."""
    split = paper_split(cells.y, random_stream(0, index, Stream.SPLIT))
    layers = prepare_layers(cells.adata, cells.normalization, "train_only", split.train)
    return training_data(selector, layers, cells.y, split, PanelConstraints([], [], None))


def simulated(selector: Any, n_cells: int, n_genes: int, n_types: int) -> TrainingData:
    """Return simulated training data, 80 % of the cells for training."""
    rng = np.random.default_rng(0)
    y = rng.integers(n_types, size=n_cells)
    x = rng.standard_normal((n_cells, n_genes), dtype=np.float32)
    for cell_type in range(n_types):
        x[y == cell_type, 10 * cell_type : 10 * cell_type + 10] += 1
    train = np.arange(n_cells) < 0.8 * n_cells
    return selector.check_data(x[train], y[train], X_val=x[~train], y_val=y[~train])


def train(selector: Any, part: Sequence[TrainingData]) -> float:
    """Train one model per item as one batch; return the seconds."""
    started = time.perf_counter()
    with limit_threads(1):
        for _ in train_batched([selector] * len(part), part):
            pass
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
