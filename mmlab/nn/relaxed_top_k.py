"""Relaxed top-k subset sampling (Xie & Ermon, IJCAI 2019)."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Lower bound of 1 - p in float32, which keeps its logarithm and its inverse finite.
_MIN_COMPLEMENT = 1e-7

_log = logging.getLogger(__name__)

_HAS_TRITON = importlib.util.find_spec("triton") is not None


class _RelaxedTopK(torch.autograd.Function):
    """k successive softmaxes, each of which lowers the keys for the next; analytic backward.

    Forward and backward are loops of k small, dependent steps. Operations on all draws at once
    are therefore outside the loops, and the loops work in place. If Triton is available on
    CUDA, each direction is a single kernel instead.
    """

    @staticmethod
    def forward(ctx: Any, keys: Tensor, k: int, temperature: Tensor) -> Tensor:
        if _uses_triton(keys):
            from mmlab.nn import relaxed_top_k_triton

            rows, temperatures = keys.reshape(-1, keys.shape[-1]), _per_row(temperature, keys)
            draws, mask = relaxed_top_k_triton.draws_and_mask(
                rows, k, temperatures, _MIN_COMPLEMENT
            )
            ctx.save_for_backward(draws, temperatures)
            return mask.reshape(keys.shape)
        draws = keys.new_empty((k, *keys.shape))
        remaining, scratch = keys.clone(), torch.empty_like(keys)
        for draw in draws.unbind():
            torch.softmax(torch.div(remaining, temperature, out=scratch), dim=-1, out=draw)
            torch.clamp_max(draw, 1 - _MIN_COMPLEMENT, out=scratch)
            remaining.add_(scratch.neg_().log1p_())
        _flush_denormals(draws)
        ctx.save_for_backward(draws, temperature)
        return draws.sum(dim=0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        grad_mask: Tensor = grad_outputs[0]
        draws, temperature = ctx.saved_tensors
        if _uses_triton(draws):
            from mmlab.nn import relaxed_top_k_triton

            rows = grad_mask.reshape(draws.shape[1:])
            grad = relaxed_top_k_triton.gradient(draws, temperature, rows, _MIN_COMPLEMENT)
            return grad.reshape(grad_mask.shape), None, None
        # d log(1 - p) / dp is -1 / (1 - p), and 0 where 1 - p was clamped to its minimum.
        complement = functional.threshold(1 - draws, _MIN_COMPLEMENT, math.inf)
        ratios = (draws / complement).unbind()
        through_mask = (draws * grad_mask).unbind()
        # The loop goes from the last draw to the first; after each iteration grad_keys is the
        # gradient of the loss with respect to the keys of that draw.
        grad_keys = torch.zeros_like(grad_mask)
        for draw, weighted, ratio in zip(
            reversed(draws.unbind()), reversed(through_mask), reversed(ratios), strict=True
        ):
            weighted.addcmul_(ratio, grad_keys, value=-1)
            weighted.addcmul_(draw, weighted.sum(dim=-1, keepdim=True), value=-1)
            grad_keys.add_(weighted.div_(temperature))
        return grad_keys, None, None


def _uses_triton(values: Tensor) -> bool:
    """Return whether the Triton kernels support the device and the dtype of a tensor."""
    device_supported = values.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    supported = device_supported and values.dtype == torch.float32 and _HAS_TRITON
    return supported and _kernels_run(values.device)


@cache
def _kernels_run(device: torch.device) -> bool:
    """Try a kernel on a device once; return whether it ran, and log a warning if it did not.

    Triton needs a C compiler and Python's header files.
    """
    from mmlab.nn import relaxed_top_k_triton

    keys, temperature = torch.zeros(1, 2, device=device), torch.ones(1, device=device)
    try:
        relaxed_top_k_triton.draws_and_mask(keys, 1, temperature, _MIN_COMPLEMENT)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers fail in many ways
        _log.warning("Triton cannot run kernels; training is slower without them: %s", error)
        return False
    return True


def _per_row(temperature: Tensor, keys: Tensor) -> Tensor:
    """Return the temperatures as a vector with one value per row of the keys."""
    return temperature.expand(*keys.shape[:-1], 1).reshape(-1).contiguous()


def _flush_denormals(probabilities: Tensor) -> Tensor:
    """Set denormal numbers to zero, in place; no value may be negative."""
    smallest = torch.finfo(probabilities.dtype).tiny
    return functional.threshold(probabilities, smallest, 0.0, inplace=True)


def relaxed_top_k(keys: Tensor, k: int, temperature: float | Tensor) -> Tensor:
    """Return a differentiable relaxation of the k-hot mask of the k largest keys.

    With ``a_1 = keys`` and, for i = 1..k, ``p_i = softmax(a_i / t)`` and
    ``a_{i+1} = a_i + log(1 - p_i)``, the mask is the sum of the ``p_i``.

    Parameters
    ----------
    keys
        Float tensor of shape (..., n_genes): logits plus Gumbel noise.
    k
        Number of genes to draw, 1 <= k <= n_genes.
    temperature
        Positive; as it approaches 0, the mask approaches the hard top-k mask. A tensor of shape
        (..., 1) has one temperature per row of the keys.

    Returns
    -------
    Mask of the same shape as ``keys``; non-negative, sums to k over the last axis. A value may
    exceed 1 at high temperature.

    References
    ----------
    Xie & Ermon, Reparameterizable subset sampling via continuous relaxations, IJCAI 2019.
    """
    temperature = torch.as_tensor(temperature, dtype=keys.dtype, device=keys.device)
    mask: Tensor = _RelaxedTopK.apply(keys, k, temperature)  # type: ignore[no-untyped-call]
    return mask
