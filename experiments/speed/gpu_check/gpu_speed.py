"""Time and memory of trainings of MarkerMap on data of the size of mouse_brain."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from torch.profiler import ProfilerActivity, profile

from mmlab.nn.training import Epoch
from mmlab.selectors import quick_params
from mmlab.selectors.vae import train_batched

from .harness import Check
from .internals import counted_graphs, estimated_bytes_per_model
from .synthetic import Cells, make_selectors, n_true_markers, synthetic_cells


def speed(check: Check) -> dict[str, Any]:
    """Measure trainings of one model and of ten models, quick and with default parameters.

    Trainings that would take long run for a few epochs; their whole time is extrapolated. The
    results are saved after every training.
    """
    n_cells, n_genes, n_types = (500, 100, 3) if check.small else (39583, 4581, 9)
    x, y = synthetic_cells(n_cells, n_genes, n_types, markers_per_type=3 if check.small else 10)
    train, validation = int(0.7 * n_cells), int(0.8 * n_cells)
    data = (x[:train], y[:train]), (x[train:validation], y[train:validation])
    result: dict[str, Any] = {"cells_genes_types": [n_cells, n_genes, n_types], "runs": []}
    check.results["speed"] = result

    def run(mode: str, n_models: int, quick: bool, **options: Any) -> dict[str, Any]:
        row, profiled = measure(check, data, f"markermap_{mode}", n_models, quick, **options)
        result["runs"].append(row)
        if profiled:
            result[f"kernels, {row['run']}"] = profiled
        check.save()
        return row

    many = 2 if check.small else 10
    run("supervised", 1, True, n_epochs=2, note="warm-up")
    alone = run("supervised", 1, True, time_score=True)
    quick = run("supervised", many, True)
    default = run("supervised", many, False, n_epochs=3)
    run("supervised", 1, False, n_epochs=3)
    unsupervised = run("unsupervised", many, True, time_score=True)
    if check.seconds_left() > 120:
        run("unsupervised", many, False, n_epochs=2)
        run("joint", many, True, n_epochs=3)
        run("supervised", many, True, n_epochs=3, use_graphs=False, note="without graphs")
        run("supervised", many, False, n_epochs=3, profiled=True, note="profiled")
        run("supervised", many, True, n_epochs=3, profiled=True, note="profiled")
    scores = many * quick["n_epochs_of_whole_training"] * alone["score_of_one_panel_s"]
    result["goal_10_supervised_under_20_s"] = {
        "quick": quick["total_s"] < 20,
        "default": default["whole_training_s"] < 20,
        "quick_with_scores_of_all_epochs_s": quick["total_s"] + scores,
    }
    scores = many * unsupervised["n_epochs_of_whole_training"]
    scores *= unsupervised["score_of_one_panel_s"]
    result["goal_10_unsupervised_under_60_s"] = {
        "quick": unsupervised["total_s"] < 60,
        "quick_with_scores_of_all_epochs_s": unsupervised["total_s"] + scores,
    }
    result["time_of_one_batch_over_one_after_the_other"] = quick["total_s"] / (
        many * alone["total_s"]
    )
    return result


def measure(
    check: Check,
    data: tuple[Cells, Cells],
    method: str,
    n_models: int,
    quick: bool,
    *,
    n_epochs: int | None = None,
    use_graphs: bool = True,
    time_score: bool = False,
    profiled: bool = False,
    note: str = "",
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train models as one batch and measure time and memory.

    Parameters
    ----------
    n_epochs
        Epochs to train; None for those of the method.
    time_score
        Measure how long the validation score of one panel takes; not part of the epochs.
    profiled
        Profile the second epoch.

    Returns
    -------
    A row of results, and the 28 kernels of the profiled epoch with the longest time.
    """
    params: dict[str, Any] = quick_params(method, len(data[0][0])) if quick else {}
    whole = params.get("max_epochs", 60)
    if n_epochs is not None:
        params |= {"max_epochs": n_epochs, "min_epochs": n_epochs}
    selectors, checked = make_selectors(method, n_models, check.device, *data, 50, **params)
    check.reset_peak_memory()
    kernel_times: list[dict[str, Any]] = []
    score_s, started = None, time.perf_counter()
    with counted_graphs(use_graphs) as counts:
        steps = train_batched(selectors, checked)
        first_s, epochs = timed_epoch(check, steps)
        if time_score:
            score_started = time.perf_counter()
            assert epochs[0] is not None and epochs[0].compute_score is not None
            epochs[0].compute_score()
            score_s = time.perf_counter() - score_started
        later = []
        if profiled:
            activity = ProfilerActivity.CUDA if check.cuda else ProfilerActivity.CPU
            with profile(activities=[activity]) as profiler:
                later.append(timed_epoch(check, steps)[0])
            kernel_times = slowest_kernels(profiler)
        while (timed := timed_epoch(check, steps))[1]:
            later.append(timed[0])
    total_s = time.perf_counter() - started
    (n_cells, n_genes), n_classes = data[0][0].shape, len(set(data[0][1].tolist()))
    first = selectors[0]
    hidden_size = int(first.data_dependent_params(n_genes)["hidden_size"])
    n_steps = math.ceil(n_cells / first.batch_size)
    epoch_s = median(later) if later else first_s
    n_bytes = bytes_per_step(n_models, n_genes, hidden_size, first.batch_size, first.alpha)
    row: dict[str, Any] = {
        "run": ", ".join(
            [method, "quick" if quick else "default", f"{n_models} models", *[note] * bool(note)]
        ),
        "method": method,
        "n_models": n_models,
        "quick": quick,
        "use_graphs": use_graphs,
        "n_epochs": 1 + len(later),
        "n_epochs_of_whole_training": whole,
        "n_steps_per_epoch": n_steps,
        "hidden_size": hidden_size,
        "batch_size": first.batch_size,
        "total_s": total_s,
        "first_epoch_with_upload_s": first_s,
        "epoch_s": epoch_s,
        "ms_per_step_with_evaluation": 1e3 * epoch_s / n_steps,
        "whole_training_s": first_s + (whole - 1) * epoch_s,
        "score_of_one_panel_s": score_s,
        "true_markers": n_true_markers(selectors, (3 if check.small else 10) * n_classes),
        "n_distinct_panels": len({tuple(sorted(one.panel_)) for one in selectors}),
        **counts,
        **check.peak_memory(),
        "estimated_mib_per_model": estimated_bytes_per_model(first, checked[0]) / 2**20,
        "bytes_per_step": n_bytes,
    }
    copy_rate = check.results.get("bandwidth", {}).get("copy_gb_per_s")
    if check.cuda and copy_rate:
        row["lower_bound_ms_per_step"] = n_bytes / copy_rate / 1e6
    if not check.child:
        print(
            f"   {row['run']}: {total_s:.2f} s, whole {row['whole_training_s']:.1f} s", flush=True
        )
    return row, kernel_times


def timed_epoch(
    check: Check, steps: Iterator[list[Epoch | None]]
) -> tuple[float, list[Epoch | None]]:
    """Return the seconds of the next epoch and what it yields; an empty list after the last."""
    started = time.perf_counter()
    epochs = next(steps, [])
    check.synchronize()
    return time.perf_counter() - started, epochs


def slowest_kernels(profiler: profile) -> list[dict[str, Any]]:
    """Return name, number of calls and milliseconds of the 28 kernels with the longest time."""
    kernels = [
        {
            "kernel": event.key[:90],
            "calls": event.count,
            "ms": (getattr(event, "self_device_time_total", 0) or event.self_cpu_time_total) / 1e3,
        }
        for event in profiler.key_averages()
    ]
    return sorted(kernels, key=lambda kernel: -kernel["ms"])[:28]


def bytes_per_step(
    n_models: int, n_genes: int, hidden_size: int, batch_size: int, alpha: float
) -> int:
    """Return the bytes that a step has to move at least, in float32 with Adam.

    Adam makes seven passes over the weights and the products three more; the cells of the batch
    are read and written twice each.
    """
    weights = n_models * n_genes * hidden_size * 4 * (3 + (2 if alpha > 0 else 0))
    return 10 * weights + 4 * n_models * batch_size * n_genes * 4
