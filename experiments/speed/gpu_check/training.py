"""Other ways to train on the GPU: all deep methods, range test, device names, cells on disk."""

from __future__ import annotations

import math
import time
import traceback
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from mmlab.nn.batches import Optimizer, fast_arithmetic, shuffled_minibatches
from mmlab.nn.cell_reader import CellReader, CellTensor
from mmlab.nn.losses import markermap_loss
from mmlab.nn.training_steps import StepRunner
from mmlab.selectors import get_selector
from mmlab.selectors.vae import train_batched

from .harness import Check
from .internals import counted_graphs
from .synthetic import build_model, make_selectors, n_true_markers, synthetic_cells

#: Deep methods that no other section trains, with small budgets.
METHODS: dict[str, dict[str, Any]] = {
    "persist_supervised": {"elimination_epochs": 3, "selection_epochs": 10},
    "persist_unsupervised": {"elimination_epochs": 3, "selection_epochs": 5},
    "lassonet": {"dense_epochs": 20, "path_epochs": 5, "path_multiplier": 1.3},
    "concrete_vae": {"max_epochs": 3, "min_epochs": 1},
    "global_gumbel_vae": {"max_epochs": 3, "min_epochs": 1},
}


def methods(check: Check) -> dict[str, Any]:
    """Fit each method on the CPU and on the GPU, and count the true markers in its panel."""
    n_cells, n_genes = (200, 60) if check.small else (2000, 1000)
    x, y = synthetic_cells(n_cells, n_genes, 5, strength=2.0, markers_per_type=5)
    result: dict[str, Any] = {"ok": True}
    for method, params in METHODS.items():
        for device in dict.fromkeys(["cpu", check.device]):
            row = fit_method(method, device, x, y, params)
            result[f"{method}, {device}"] = row
            result["ok"] &= "error" not in row
    return result


def fit_method(
    method: str,
    device: str,
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    params: dict[str, Any],
) -> dict[str, Any]:
    """Return the seconds of a fit, and how many of the 25 markers are among its 20 genes."""
    started = time.perf_counter()
    try:
        selector: Any = get_selector(method)(20, device=device, seed=1, **params)
        if method.startswith("persist"):
            selector.fit((x > 1).astype(np.float32), y)
        else:
            selector.fit(x, y, X_val=x[:100], y_val=y[:100])
        row: dict[str, Any] = {
            "seconds": time.perf_counter() - started,
            "true_markers_of_20": n_true_markers([selector], 25)[0],
        }
        if method.endswith("_vae"):
            row["shape_of_reconstruction"] = list(selector.reconstruct(x[:10]).shape)
    except Exception as error:
        return {
            "error": f"{type(error).__name__}: {str(error)[:300]}",
            "traceback": traceback.format_exc()[-800:],
        }
    return row


def range_test(check: Check) -> dict[str, Any]:
    """Train two epochs with ``faithful=True``: 500 launched steps find the learning rates."""
    n_cells, n_genes = (200, 60) if check.small else (2000, 1000)
    x, y = synthetic_cells(n_cells, n_genes, 5, strength=1.5, markers_per_type=5)
    params = {"faithful": True, "hidden_size": 32, "batch_size": 64}
    selectors, data = make_selectors(
        "markermap_supervised", 2, check.device, (x, y), (x[:100], y[:100]), 20, **params
    )
    started = time.perf_counter()
    with counted_graphs() as counts:
        steps = train_batched(selectors, data)
        for _ in range(2):
            next(steps)
    return {
        "seconds": time.perf_counter() - started,
        "true_markers": n_true_markers(selectors, 25),
        **counts,
    }


def device_names(check: Check) -> dict[str, Any]:
    """Train with the device ``cuda`` and with ``cuda:0``: panels and graphs must be the same."""
    if not check.cuda:
        return {"skipped": "needs CUDA"}
    x, y = synthetic_cells(400, 100, 4, markers_per_type=5)
    params = {"max_epochs": 3, "min_epochs": 3, "hidden_size": 32}
    found = []
    for device in ("cuda", "cuda:0"):
        selectors, data = make_selectors(
            "markermap_supervised", 2, device, (x, y), (x[:50], y[:50]), 10, **params
        )
        with counted_graphs() as counts:
            for _ in train_batched(selectors, data):
                pass
        found.append(([selector.panel_.tolist() for selector in selectors], dict(counts)))
    return {"ok": found[0] == found[1], "graphs": [counts for _, counts in found]}


class CellsOnDisk:
    """Sparse cells that are read in batches, in place of an Expression."""

    def __init__(self, x: NDArray[np.float32]) -> None:
        self.matrix = sp.csr_matrix(np.where(x > 1.2, x, 0).astype(np.float32))
        self.shape = x.shape

    def __getitem__(self, cells: NDArray[np.int64]) -> sp.csr_matrix:
        return self.matrix[cells]


def cells_on_disk(check: Check) -> dict[str, Any]:
    """Compare training on cells that are read in batches with cells in the GPU's memory."""
    n_cells, n_genes, n_models, hidden_size, batch_size = (
        (300, 80, 2, 16, 64) if check.small else (6000, 4581, 4, 250, 128)
    )
    x, y = synthetic_cells(n_cells, n_genes, 5, markers_per_type=5)
    sources: list[Any] = [CellsOnDisk(x)] * n_models
    labels = torch.tensor(np.stack([y] * n_models), device=check.device)
    loss = partial(markermap_loss, alpha=0.0, kl_weight=0.1, per_gene=True)
    result: dict[str, Any] = {}
    for place in ("disk", "memory"):
        cells: CellTensor = CellReader(sources, check.device)
        if place == "memory":
            dense = [source.matrix.toarray() for source in sources]
            cells = torch.tensor(np.stack(dense), device=check.device)
        with counted_graphs() as counts, fast_arithmetic():
            model = build_model(
                check.device,
                n_models,
                "MarkerMap",
                0.0,
                n_genes=n_genes,
                hidden_size=hidden_size,
                n_markers=min(50, n_genes // 2),
            )
            optimizer = Optimizer(model, [3e-3] * n_models)
            steps = StepRunner(model, optimizer, loss, cells, labels, batch_size)
            temperature = torch.full((n_models, 1), 1.0, device=check.device)
            for _ in range(3):
                model.train()
                check.synchronize()
                started = time.perf_counter()
                for indices in steps.prefetch(
                    shuffled_minibatches(n_cells, batch_size, model.gate.noise)
                ):
                    losses = steps.run(indices, temperature)
                check.synchronize()
                seconds = time.perf_counter() - started
        n_steps = math.ceil(n_cells / batch_size)
        result[place] = {
            "ms_per_step": 1e3 * seconds / n_steps,
            "losses": losses.tolist(),
            **counts,
        }
    return result
