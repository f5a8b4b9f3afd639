"""Behaviour of batched training when GPU memory is short or shared."""

from __future__ import annotations

import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch

from mmlab.selectors.vae import train_batched
from mmlab.trial.batched_fit import Fit, run_fits

from .harness import Check, logged_warnings
from .internals import assumed_free_memory
from .synthetic import Cells, make_selectors, synthetic_cells


def out_of_memory(check: Check) -> dict[str, Any]:
    """Limit the GPU memory: mmlab must train fewer models at a time.

    The limit stays with the process, so this runs in a process of its own.
    """
    if not check.child:
        return check.run_in_child("out_of_memory", 120)
    n_cells, n_genes, n_models = (200, 60, 4) if check.small else (8000, 4581, 6)
    x, y = synthetic_cells(n_cells, n_genes, 4, markers_per_type=5)
    cut = int(0.9 * n_cells)
    data = (x[:cut], y[:cut]), (x[cut:], y[cut:])
    # mmlab expects enough memory for all models, so that CUDA's own error comes.
    with assumed_free_memory(1e15):
        panels, peak = fit_models(check, data, n_models)
        _, peak_of_one = fit_models(check, data, 1)
        result: dict[str, Any] = {"peak_of_all": peak, "peak_of_one": peak_of_one, "ok": True}
        if check.cuda:
            for share in (0.6, 0.4):
                limit = share * peak["reserved_mib"] * 2**20
                row = fit_with_limit(check, data, panels, limit)
                result[f"limit of {share} of the peak"] = row
                result["ok"] &= row["ok"]
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()
            result["allocated_after_mib"] = torch.cuda.memory_allocated() / 2**20
            result["free_after_mib"] = torch.cuda.mem_get_info()[0] / 2**20
    return result


def fit_models(
    check: Check, data: tuple[Cells, Cells], n_models: int
) -> tuple[list[list[int]], dict[str, float]]:
    """Return the panels of models fitted for two epochs, and the peak memory."""
    params: dict[str, Any] = {"max_epochs": 2, "min_epochs": 2, "batch_size": 128}
    selectors, checked = make_selectors(
        "markermap_supervised", n_models, check.device, *data, 50, **params
    )
    check.reset_peak_memory()
    for _ in run_fits([Fit(*pair) for pair in zip(selectors, checked, strict=True)]):
        pass
    return [selector.panel_.tolist() for selector in selectors], check.peak_memory()


def fit_with_limit(
    check: Check, data: tuple[Cells, Cells], expected: list[list[int]], limit: float
) -> dict[str, Any]:
    """Fit as many models as there are ``expected`` panels, with ``limit`` bytes of GPU memory."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    with logged_warnings() as messages:
        try:
            panels, peak = fit_models(check, data, len(expected))
        except Exception as error:
            return {
                "ok": False,
                "error": f"{type(error).__name__}: {str(error)[:300]}",
                "warnings": messages,
                "traceback": traceback.format_exc()[-1200:],
            }
    return {
        "ok": bool(messages) and all(len(panel) == 50 for panel in panels),
        # Batches of other sizes round differently.
        "common_genes_of_50": [
            len({*panel} & {*other}) for panel, other in zip(panels, expected, strict=True)
        ],
        "warnings": messages,
        **peak,
    }


def shared_gpu(check: Check) -> dict[str, Any]:
    """Measure epochs of a training alone, and of two at once, as with --gpus-per-trial 0.5."""
    if not check.child:
        alone = check.run_in_child("shared_gpu", 90)
        run = partial(check.run_in_child, "shared_gpu", 120)
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda copy: run(copy=copy), (1, 2)))
        results = [alone, *together]
        return {
            "ok": all(result.get("ok", True) for result in results),
            "alone": alone,
            "together": together,
        }
    n_cells, n_genes, n_models, hidden_size = (
        (300, 80, 2, 16) if check.small else (10000, 4581, 5, 250)
    )
    x, y = synthetic_cells(n_cells, n_genes, 5, markers_per_type=5)
    params: dict[str, Any] = {
        "max_epochs": 4,
        "min_epochs": 4,
        "hidden_size": hidden_size,
        "batch_size": 128,
    }
    selectors, data = make_selectors(
        "markermap_supervised", n_models, check.device, (x, y), (x[:100], y[:100]), 20, **params
    )
    seconds, started = [], time.perf_counter()
    for _ in train_batched(selectors, data):
        check.synchronize()
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return {"epochs_s": seconds, **check.peak_memory()}
