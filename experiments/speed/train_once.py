"""One training of MarkerMap in its own process, by mmlab or by the package markermap.

    python train_once.py {mmlab,markermap} SPLIT.npz MODE THREADS [--quick]

MODE is supervised, unsupervised or joint.
Prints one JSON document: seconds and CPU seconds of the training alone, peak memory of the
process, and the panel. The script runs in the environment of the package that it measures, so it
only imports packages that both environments have.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

#: Published benchmark, per mode: weight of the reconstruction, highest learning rate, patience.
PUBLISHED = {
    "supervised": (0.0, 1e-3, 3),
    "unsupervised": (1.0, 1e-4, 4),
    "joint": (0.5, 1e-4, 3),
}
#: Published benchmark: width of the hidden layers, by number of genes.
PUBLISHED_WIDTHS = {500: 64, 4000: 256}
N_MARKERS = 50

Split = dict[str, np.ndarray]


def train_with_mmlab(mode: str, quick: bool) -> Callable[[Split], list[int]]:
    """Return a function that trains with mmlab; the imports happen before it is called."""
    from mmlab.selectors import get_selector, quick_params

    name = f"markermap_{mode}"
    method: Any = get_selector(name)

    def train(split: Split) -> list[int]:
        params = quick_params(name, len(split["x"])) if quick else {}
        selector = method(N_MARKERS, seed=int(split["seed"]), **params)
        labels = (split["y"], split["y_val"]) if selector.supervised else (None, None)
        selector.fit(split["x"], labels[0], X_val=split["x_val"], y_val=labels[1])
        panel: list[int] = selector.panel_.tolist()
        return panel

    return train


def train_with_markermap(mode: str) -> Callable[[Split], list[int]]:
    """Return a function that trains with markermap, as in its published benchmark."""
    # markermap imports a package that is not on PyPI; MarkerMap itself does not use it.
    sys.modules["persist"] = types.ModuleType("persist")
    from markermap.vae_models import MarkerMap, train_model
    from torch.utils.data import DataLoader, TensorDataset

    def train(split: Split) -> list[int]:
        torch.manual_seed(int(split["seed"]))
        alpha, highest_rate, patience = PUBLISHED[mode]

        def loader(x: np.ndarray, y: np.ndarray, shuffle: bool) -> Any:
            data = TensorDataset(torch.tensor(x), torch.tensor(y))
            return DataLoader(data, batch_size=64, shuffle=shuffle)

        n_genes = split["x"].shape[1]
        model = MarkerMap(
            input_size=n_genes,
            hidden_layer_size=PUBLISHED_WIDTHS[n_genes],
            z_size=16,
            num_classes=int(split["y"].max()) + 1,
            k=N_MARKERS,
            loss_tradeoff=alpha,
        )
        train_model(
            model,
            loader(split["x"], split["y"], True),
            loader(split["x_val"], split["y_val"], False),
            min_epochs=25,
            max_epochs=100,
            auto_lr=True,
            max_lr=highest_rate,
            lr_explore_mode="linear",
            num_lr_rates=500,
            early_stopping_patience=patience,
        )
        return model.markers().cpu().numpy().tolist()

    return train


def main() -> None:
    package, path, mode, threads, *more = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(threads))
    split = dict(np.load(path))
    train = (
        train_with_mmlab(mode, more == ["--quick"])
        if package == "mmlab"
        else train_with_markermap(mode)
    )
    # torch imports this in the first step of an optimiser; here it is not part of the measurement.
    importlib.import_module("torch._dynamo")
    wall, cpu = time.perf_counter(), time.process_time()
    panel = train(split)
    result = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "panel": panel,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
