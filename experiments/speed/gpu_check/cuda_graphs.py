"""StepRunner replayed as CUDA graphs against the same steps launched kernel by kernel."""

from __future__ import annotations

import traceback
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mmlab.nn.batches import Optimizer, fast_arithmetic, shuffled_minibatches
from mmlab.nn.losses import markermap_loss
from mmlab.nn.networks import Outputs
from mmlab.nn.training import evaluate_loss
from mmlab.nn.training_steps import StepRunner

from .harness import Check, logged_warnings
from .internals import counted_graphs
from .synthetic import GATES, build_model

N_MODELS, N_CELLS, BATCH_SIZE, N_EPOCHS = 3, 200, 64, 4
#: Learning rates, genes to include, genes to exclude, and whether products are rounded.
VARIANTS = (
    ((3e-3, 3e-3, 3e-3), (), (), False),
    ((1e-2, 3e-3, 1e-3), (6, 7), (9,), False),
    ((3e-3, 3e-3, 3e-3), (), (), True),
)


def graphs(check: Check) -> dict[str, Any]:
    """Train each variant with and without graphs, and a second time with them."""
    rows = []
    for gate_type, alpha, variant in product(GATES, (0.0, 0.5, 1.0), VARIANTS):
        rates, include, _, rounded = variant
        if gate_type != "MarkerMap" and alpha != 0.5:
            continue
        if check.small and (alpha != 0.5 or rounded or gate_type == "concrete"):
            continue
        replayed = take_steps(check, gate_type, alpha, variant)
        launched = take_steps(check, gate_type, alpha, variant, use_graphs=False)
        repeated = replayed if rounded else take_steps(check, gate_type, alpha, variant)
        rows.append(
            {
                "gate": gate_type,
                "alpha": alpha,
                "own_rates": len(set(rates)) > 1,
                "included_genes": len(include),
                "rounded": rounded,
                "captures": replayed["captures"],
                "replays": replayed["replays"],
                "largest_loss_difference": difference(replayed["losses"], launched["losses"]),
                "largest_state_difference": max(
                    difference(values, launched["state"][name])
                    for name, values in replayed["state"].items()
                ),
                "same_panels": replayed["panels"] == launched["panels"],
                "same_generators": same_tensors(replayed["generators"], launched["generators"]),
                "reproducible": same_tensors(
                    list(replayed["state"].values()), list(repeated["state"].values())
                ),
                "finite": bool(torch.isfinite(replayed["losses"]).all()),
            }
        )
    flags = {
        f"all_{flag}": all(row[flag] for row in rows)
        for flag in ("same_panels", "same_generators", "reproducible", "finite")
    }
    captures = int(check.cuda)
    flags["all_captured_once"] = all(row["captures"] == captures for row in rows)
    return {
        "ok": all(flags.values()),
        **flags,
        "largest_loss_difference": max(row["largest_loss_difference"] for row in rows),
        "rows": rows,
    }


def failed_capture(check: Check) -> dict[str, Any]:
    """Let a capture fail: mmlab must warn and continue without a graph.

    A failed capture can leave CUDA in an error state, so this runs in a process of its own.
    """
    if not check.child:
        return check.run_in_child("failed_capture", 90)
    variant = VARIANTS[0]
    launched = take_steps(check, "MarkerMap", 0.0, variant, use_graphs=False)
    with logged_warnings() as messages:
        try:
            after_failure = take_steps(check, "MarkerMap", 0.0, variant, break_capture=True)
        except Exception as error:
            return {
                "ok": False,
                "error": f"{type(error).__name__}: {str(error)[:400]}",
                "warnings": messages,
                "traceback": traceback.format_exc()[-1200:],
            }
    same = after_failure["panels"] == launched["panels"]
    return {
        "ok": same and (bool(messages) or not check.cuda),
        "warnings": messages,
        "same_panels": same,
        "largest_loss_difference": difference(after_failure["losses"], launched["losses"]),
    }


def take_steps(
    check: Check,
    gate_type: str,
    alpha: float,
    variant: tuple[Any, ...],
    *,
    use_graphs: bool = True,
    break_capture: bool = False,
) -> dict[str, Any]:
    """Train three models for a few epochs, with an evaluation after each.

    Returns the losses of the steps, the final state, the panels and evaluation losses of each
    epoch, the states of the generators, and the numbers of captures and replays.
    """
    rates, include, exclude, rounded = variant
    n_genes, hidden_size = (600, 256) if rounded else (300, 64)
    x, y = labelled_cells(check.device, n_genes)
    plain_loss = partial(markermap_loss, alpha=alpha, kl_weight=0.1, per_gene=True)

    def loss(outputs: Outputs, cells: Tensor, labels: Tensor) -> Tensor:
        if break_capture:
            float(cells.sum())  # waits for the GPU, which a capture does not allow
        return plain_loss(outputs, cells, labels)

    with counted_graphs(use_graphs) as counts, fast_arithmetic():
        model = build_model(
            check.device,
            N_MODELS,
            gate_type,
            alpha,
            n_genes=n_genes,
            hidden_size=hidden_size,
            n_markers=20,
            include=include,
            exclude=exclude,
            rounded=rounded,
        )
        noise = model.gate.noise
        steps = StepRunner(model, Optimizer(model, rates), loss, x, y, BATCH_SIZE)
        losses: list[Tensor] = []
        evaluated, panels = [], []
        for epoch in range(N_EPOCHS):
            model.train()
            temperature = torch.full((N_MODELS, 1), 3.0 / (epoch + 1), device=check.device)
            order = shuffled_minibatches(N_CELLS, BATCH_SIZE, noise)
            losses += [steps.run(indices, temperature) for indices in order]
            evaluated.append(evaluate_loss(model, plain_loss, x, y))
            panels.append([model.panel(i).tolist() for i in range(N_MODELS)])
    return {
        "losses": torch.stack(losses).cpu(),
        "state": {name: values.clone().cpu() for name, values in model.state_dict().items()},
        "panels": panels,
        "evaluated": evaluated,
        "generators": [generator.get_state() for generator in noise.generators],
        **counts,
    }


def labelled_cells(device: str, n_genes: int) -> tuple[Tensor, Tensor]:
    """Return cells (n_models, n_cells, n_genes) of five types with five markers each, and types."""
    generator = torch.Generator().manual_seed(5)
    y = torch.randint(5, (N_MODELS, N_CELLS), generator=generator)
    x = torch.randn(N_MODELS, N_CELLS, n_genes, generator=generator)
    x[:, :, :25] += 2.0 * (torch.arange(25)[None, None] // 5 == y[..., None])
    return x.to(device), y.to(device)


def difference(values: Tensor, others: Tensor) -> float:
    """Return the largest absolute difference."""
    return float((values.double() - others.double()).abs().max())


def same_tensors(values: list[Tensor], others: list[Tensor]) -> bool:
    """Whether all tensors are equal to the bit."""
    return all(torch.equal(a, b) for a, b in zip(values, others, strict=True))
