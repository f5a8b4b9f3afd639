"""Relaxed top-k subset sampling (Xie & Ermon, IJCAI 2019)."""

from __future__ import annotations

import importlib.util
import math
import os
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# 1 - p is kept above this in float32, so that its logarithm and its inverse stay finite.
_MIN_COMPLEMENT = 1e-7

_HAS_TRITON = importlib.util.find_spec("triton") is not None


class _RelaxedTopK(torch.autograd.Function):
    """k successive softmaxes, each damping what the one before has taken; analytic backward.

    Both directions are k small steps one after the other: what can be done for all draws at
    once stands outside the loops, and the loops write in place. Where Triton is, the whole of
    a direction is one kernel.
    """

    @staticmethod
    def forward(ctx: Any, keys: Tensor, k: int, temperature: Tensor) -> Tensor:
        if _fused(keys):
            from mmlab.nn import relaxed_top_k_triton

            rows, warm = keys.reshape(-1, keys.shape[-1]), _one_a_row(temperature, keys)
            draws, mask = relaxed_top_k_triton.draws_and_mask(rows, k, warm, _MIN_COMPLEMENT)
            ctx.save_for_backward(draws, warm)
            return mask.reshape(keys.shape)
        draws = keys.new_empty((k, *keys.shape))
        remaining, scratch = keys.clone(), torch.empty_like(keys)
        for draw in draws.unbind():
            torch.softmax(torch.div(remaining, temperature, out=scratch), dim=-1, out=draw)
            torch.clamp_max(draw, 1 - _MIN_COMPLEMENT, out=scratch)
            remaining.add_(scratch.neg_().log1p_())
        without_denormals(draws)
        ctx.save_for_backward(draws, temperature)
        return draws.sum(dim=0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        grad_mask: Tensor = grad_outputs[0]
        draws, temperature = ctx.saved_tensors
        if _fused(draws):
            from mmlab.nn import relaxed_top_k_triton

            rows = grad_mask.reshape(draws.shape[1:])
            grad = relaxed_top_k_triton.gradient(draws, temperature, rows, _MIN_COMPLEMENT)
            return grad.reshape(grad_mask.shape), None, None
        # d log(1 - p) / dp is -1 / (1 - p), and 0 where 1 - p was kept above its minimum.
        complement = functional.threshold(1 - draws, _MIN_COMPLEMENT, math.inf)
        damped = (draws / complement).unbind()
        through_mask = (draws * grad_mask).unbind()
        # Seen from the last draw to the first, grad_keys is d loss / d (keys of that draw).
        grad_keys = torch.zeros_like(grad_mask)
        for draw, weighted, damp in zip(
            reversed(draws.unbind()), reversed(through_mask), reversed(damped), strict=True
        ):
            weighted.addcmul_(damp, grad_keys, value=-1)
            weighted.addcmul_(draw, weighted.sum(dim=-1, keepdim=True), value=-1)
            grad_keys.add_(weighted.div_(temperature))
        return grad_keys, None, None


def _fused(values: Tensor) -> bool:
    """Whether the Triton kernels can take these numbers."""
    where = values.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    return where and values.dtype == torch.float32 and _HAS_TRITON


def _one_a_row(temperature: Tensor, keys: Tensor) -> Tensor:
    """Temperatures as a vector, one a row of the keys."""
    return temperature.expand(*keys.shape[:-1], 1).reshape(-1).contiguous()


def without_denormals(probabilities: Tensor) -> Tensor:
    """Set what is too small for a normal float to zero, in place; nothing may be negative."""
    smallest = torch.finfo(probabilities.dtype).tiny
    return functional.threshold(probabilities, smallest, 0.0, inplace=True)


def relaxed_top_k(keys: Tensor, k: int, temperature: float | Tensor) -> Tensor:
    """Differentiable k-hot mask of the k largest keys.

    With ``a_1 = keys``, for i = 1..k: ``p_i = softmax(a_i / t)`` and
    ``a_{i+1} = a_i + log(1 - p_i)``; the mask is the sum of the ``p_i``.

    Parameters
    ----------
    keys
        Float tensor of shape (..., n_genes): logits plus Gumbel noise.
    k
        Number of genes to draw, 1 <= k <= n_genes.
    temperature
        Positive; as it goes to 0 the mask goes to the hard top-k. A tensor of shape (..., 1)
        has one for each row of the keys.

    Returns
    -------
    Tensor of the shape of ``keys``; non-negative, sums to k over the last axis. An entry
    may exceed 1 at high temperature.

    References
    ----------
    Xie & Ermon, Reparameterizable subset sampling via continuous relaxations, IJCAI 2019.
    """
    warm = torch.as_tensor(temperature, dtype=keys.dtype, device=keys.device)
    result: Tensor = _RelaxedTopK.apply(keys, k, warm)  # type: ignore[no-untyped-call]
    return result
