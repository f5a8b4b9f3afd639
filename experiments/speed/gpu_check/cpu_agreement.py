"""Training on the GPU against training on the CPU."""

from __future__ import annotations

from typing import Any

from sklearn.neighbors import KNeighborsClassifier

from mmlab.selectors import quick_params
from mmlab.selectors.vae import train_batched

from .harness import Check
from .internals import counted_graphs, random_numbers_of_the_cpu
from .synthetic import make_selectors, n_true_markers, synthetic_cells

METHODS = (
    *("markermap_supervised", "markermap_joint", "markermap_unsupervised"),
    *("concrete_vae", "global_gumbel_vae"),
)
#: Largest relative difference of the losses of the first epoch, without and with TF32.
TOLERANCES = {False: 2e-3, True: 5e-2}


def same_random_numbers(check: Check) -> dict[str, Any]:
    """Train on both devices with the same random numbers: only rounding differs."""
    n_cells, n_genes, n_epochs = (300, 120, 2) if check.small else (2000, 1000, 6)
    x, y = synthetic_cells(n_cells, n_genes, 5, strength=1.5)
    cut = int(0.8 * n_cells)
    params: dict[str, Any] = {"max_epochs": n_epochs, "min_epochs": n_epochs, "hidden_size": 64}
    # Few steps per epoch: rounding errors grow from step to step.
    params |= {"batch_size": 512, "learning_rate": 3e-3}
    rows = []
    for method in METHODS:
        for tf32, tolerance in TOLERANCES.items():
            losses, panels = [], []
            for device in ("cpu", check.device):
                with counted_graphs(enabled=False), random_numbers_of_the_cpu(tf32):
                    selectors, data = make_selectors(
                        method, 2, device, (x[:cut], y[:cut]), (x[cut:], y[cut:]), 25, **params
                    )
                    epochs = list(train_batched(selectors, data))
                losses.append([[one.train_loss for one in epoch if one] for epoch in epochs])
                panels.append([set(selector.panel_.tolist()) for selector in selectors])
            differences = [
                max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(cpu, gpu, strict=True))
                for cpu, gpu in zip(*losses, strict=True)
            ]
            rows.append(
                {
                    "method": method,
                    "tf32": tf32,
                    "common_genes_of_25": [len(a & b) for a, b in zip(*panels, strict=True)],
                    "relative_loss_difference_by_epoch": differences,
                    "ok": differences[0] < tolerance,
                }
            )
    return {"ok": all(row["ok"] for row in rows), "rows": rows}


def own_random_numbers(check: Check) -> dict[str, Any]:
    """Measure panels of quick trainings on both devices, each with its own random numbers."""
    n_cells, n_genes, n_models = (300, 120, 2) if check.small else (3000, 1500, 3)
    x, y = synthetic_cells(n_cells, n_genes, 5, strength=1.2)
    cut = int(0.8 * n_cells)
    rows = []
    for method in ("markermap_supervised", "markermap_unsupervised"):
        params: dict[str, Any] = quick_params(method, cut)
        params |= {"max_epochs": 2, "min_epochs": 2} if check.small else {}
        for device in dict.fromkeys(["cpu", check.device]):
            selectors, data = make_selectors(
                method, n_models, device, (x[:cut], y[:cut]), (x[cut:], y[cut:]), 50, **params
            )
            for _ in train_batched(selectors, data):
                pass
            panels = [selector.panel_ for selector in selectors]
            rows.append(
                {
                    "method": method,
                    "device": device,
                    "true_markers_of_50": n_true_markers(selectors, 50),
                    "knn_accuracy": [
                        KNeighborsClassifier()
                        .fit(x[:cut][:, panel], y[:cut])
                        .score(x[cut:][:, panel], y[cut:])
                        for panel in panels
                    ],
                }
            )
    return {"rows": rows}
