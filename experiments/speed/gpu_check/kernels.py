"""The Triton kernels of the relaxed top-k against the recursion in torch: error and time."""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from mmlab.nn import relaxed_top_k_triton
from mmlab.nn.relaxed_top_k import relaxed_top_k

from .harness import Check, logged_warnings
from .internals import without_triton_kernels

#: Lower bound of 1 - p, as in :mod:`mmlab.nn.relaxed_top_k`.
MIN_COMPLEMENT = 1e-7
#: Models, genes, markers, temperature.
CASES = (
    *((2, 33, 33, 1.0), (3, 1000, 1, 0.5), (10, 500, 50, 0.6), (1, 4581, 50, 0.6)),
    *((10, 4581, 50, 3.0), (10, 4581, 50, 0.6), (10, 4581, 50, 0.1), (10, 4581, 50, 1e-3)),
    *((132, 4581, 50, 0.6), (10, 31053, 50, 0.6), (10, 31053, 250, 0.3), (2, 65000, 20, 0.6)),
)
SMALL_CASES = ((2, 33, 33, 1.0), (3, 70, 1, 0.5), (1, 100, 7, 0.3))
#: Cases whose kernels are timed with several numbers of warps.
WARP_CASES = ((10, 4581, 50, 0.6), (10, 31053, 50, 0.6))


def kernels(check: Check) -> dict[str, Any]:
    """Compare mask and gradient with float64, in several shapes and at several temperatures.

    The kernels may be at most twice as far from float64 as the recursion in float32.
    """
    generator = torch.Generator(device=check.device).manual_seed(1)
    cases = [compare(check, generator, *case) for case in (SMALL_CASES if check.small else CASES)]
    keys, weights = (torch.randn(3, 40, device=check.device, generator=generator) for _ in range(2))
    # The gradient of the mask that arrives here is not contiguous.
    by_kernel = mask_and_gradient(keys, weights, 5, 0.5, transposed=True)[1]
    with without_triton_kernels():
        by_recursion = mask_and_gradient(keys, weights, 5, 0.5, transposed=True)[1]
    error = float((by_kernel - by_recursion).abs().max())
    return {
        "ok": all(case["ok"] for case in cases) and error < 1e-5,
        "error_of_transposed_gradient": error,
        "cases": cases,
    }


def no_compiler(check: Check) -> dict[str, Any]:
    """Use the kernels where Triton finds no C compiler: mmlab must warn and do without them."""
    if not check.child:
        return check.run_in_child("no_compiler", 60)
    keys = torch.randn(3, 40, device=check.device)
    with tempfile.TemporaryDirectory() as folder, logged_warnings() as messages:
        os.environ |= {"CC": "/nonexistent/cc", "TRITON_CACHE_DIR": folder}
        mask, gradient = mask_and_gradient(keys, keys, 5, 0.5)
    with without_triton_kernels():
        expected = mask_and_gradient(keys, keys, 5, 0.5)
    same = torch.equal(mask, expected[0]) and torch.equal(gradient, expected[1])
    return {"ok": same and len(messages) == check.cuda, "warnings": messages}


def compare(
    check: Check, generator: torch.Generator, n_models: int, n_genes: int, k: int, t: float
) -> dict[str, Any]:
    """Return errors relative to float64 and times in milliseconds of one case."""
    shape = n_models, n_genes
    random = partial(torch.rand, *shape, device=check.device, generator=generator)
    normal = partial(torch.randn, *shape, device=check.device, generator=generator)
    keys = normal() - torch.log(-torch.log(random().clamp_min(1e-20)))
    weights = normal()
    started = time.perf_counter()
    kernel = mask_and_gradient(keys, weights, k, t)
    check.synchronize()
    first_call = time.perf_counter() - started
    with without_triton_kernels():
        recursion = mask_and_gradient(keys, weights, k, t)
        exact = mask_and_gradient(keys.double(), weights.double(), k, t)
    result: dict[str, Any] = {
        **{"n_models": n_models, "n_genes": n_genes, "k": k, "temperature": t},
        "first_call_s": first_call,
        "mask_error_kernel": relative_error(kernel[0], exact[0]),
        "mask_error_recursion": relative_error(recursion[0], exact[0]),
        "gradient_error_kernel": relative_error(kernel[1], exact[1]),
        "gradient_error_recursion": relative_error(recursion[1], exact[1]),
        "largest_deviation_of_sum_from_k": float((kernel[0].sum(-1) - k).abs().max()),
    }
    finite = all(torch.isfinite(values).all() for values in kernel)
    result["ok"] = (
        finite
        and result["mask_error_kernel"] <= max(1e-5, 2 * result["mask_error_recursion"])
        and result["gradient_error_kernel"] <= max(1e-4, 2 * result["gradient_error_recursion"])
    )
    if check.cuda or n_genes < 50:
        result |= kernel_times(check, keys, weights, k, t)
    if check.cuda and n_models * n_genes < 60_000:
        with without_triton_kernels():
            result["recursion_both_directions_ms"] = check.median_ms(
                mask_and_gradient, keys, weights, k, t, repeats=5, warm_up=1
            )
    return result


def mask_and_gradient(
    keys: Tensor, weights: Tensor, k: int, t: float, transposed: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the mask, and the gradient of the sum of mask times ``weights``."""
    leaf = keys.detach().clone().requires_grad_()
    temperature = torch.full((len(keys), 1), t, device=keys.device, dtype=keys.dtype)
    mask = relaxed_top_k(leaf, k, temperature)
    product = mask.T * weights.T.contiguous() if transposed else mask * weights
    product.sum().backward()
    assert leaf.grad is not None
    return mask.detach(), leaf.grad


def relative_error(values: Tensor, exact: Tensor) -> float:
    return float((values.double() - exact).norm() / exact.norm())


def kernel_times(check: Check, keys: Tensor, weights: Tensor, k: int, t: float) -> dict[str, Any]:
    """Return the milliseconds of both kernels, and of moving the draws at 3 TB/s."""
    temperature = torch.full((len(keys),), t, device=keys.device)
    draws, _ = relaxed_top_k_triton.draws_and_mask(keys, k, temperature, MIN_COMPLEMENT)
    forward = partial(relaxed_top_k_triton.draws_and_mask, keys, k, temperature, MIN_COMPLEMENT)
    backward = partial(relaxed_top_k_triton.gradient, draws, temperature, weights, MIN_COMPLEMENT)
    repeats = 20 if check.cuda else 1
    result: dict[str, Any] = {
        "forward_ms": check.median_ms(forward, repeats=repeats, warm_up=1),
        "backward_ms": check.median_ms(backward, repeats=repeats, warm_up=1),
        "lower_bound_ms": 2 * k * keys.numel() * 4 / 3e12 * 1e3,
    }
    if check.cuda and (*keys.shape, k, t) in WARP_CASES:
        n_warps = (4, 8, 16, 32) if keys.shape[1] < 10_000 else (16, 32)
        result["warps"] = {n: times_with_warps(check, keys, weights, draws, t, n) for n in n_warps}
    return result


def times_with_warps(
    check: Check, keys: Tensor, weights: Tensor, draws: Tensor, t: float, n_warps: int
) -> dict[str, Any]:
    """Return times, registers and spills of both kernels with a given number of warps."""
    n_models, n_genes = keys.shape
    temperature = torch.full((n_models,), t, device=keys.device)
    mask, gradient = torch.empty_like(keys), torch.empty_like(keys)
    sizes = n_models, n_genes, len(draws), MIN_COMPLEMENT
    launch = {"BLOCK": triton.next_power_of_2(n_genes), "num_warps": n_warps}
    result: dict[str, Any] = {}
    for name, kernel, arguments in (
        (
            "forward",
            relaxed_top_k_triton._forward_kernel,
            (keys, temperature, draws, mask, *sizes, torch.finfo(keys.dtype).tiny),
        ),
        (
            "backward",
            relaxed_top_k_triton._backward_kernel,
            (draws, temperature, weights, gradient, *sizes),
        ),
    ):
        try:
            compiled = kernel[(n_models,)](*arguments, **launch)
            result[name] = {
                "ms": check.median_ms(partial(kernel[(n_models,)], *arguments, **launch)),
                "registers": getattr(compiled, "n_regs", None),
                "spills": getattr(compiled, "n_spills", None),
            }
        except Exception as error:
            result[name] = repr(error)[:200]
    return result
