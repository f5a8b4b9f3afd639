"""Relaxed top-k subset sampling (Xie & Ermon, IJCAI 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# 1 - p is kept above this in float32, so that its logarithm and its inverse stay finite.
_MIN_COMPLEMENT = 1e-7


class _RelaxedTopK(torch.autograd.Function):
    """k successive softmaxes, each damping what the one before has taken; analytic backward."""

    @staticmethod
    def forward(ctx: Any, keys: Tensor, k: int, temperature: float) -> Tensor:
        draws = keys.new_empty((k, *keys.shape))
        remaining = keys
        for i in range(k):
            draws[i] = torch.softmax(remaining / temperature, dim=-1)
            if i + 1 < k:
                remaining = remaining + (1 - draws[i]).clamp_min(_MIN_COMPLEMENT).log()
        ctx.save_for_backward(draws)
        ctx.temperature = temperature
        return draws.sum(dim=0)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        grad_mask: Tensor = grad_outputs[0]
        (draws,) = ctx.saved_tensors
        # grad_keys is d loss / d remaining_i, built from the last draw to the first.
        grad_keys = torch.zeros_like(grad_mask)
        for i in range(len(draws) - 1, -1, -1):
            p = draws[i]
            complement = 1 - p
            through_damping = torch.where(
                complement > _MIN_COMPLEMENT, grad_keys / complement.clamp_min(_MIN_COMPLEMENT), 0
            )
            weighted = p * (grad_mask - through_damping)
            softmax_grad = weighted - p * weighted.sum(dim=-1, keepdim=True)
            grad_keys = grad_keys + softmax_grad / ctx.temperature
        return grad_keys, None, None


def relaxed_top_k(keys: Tensor, k: int, temperature: float) -> Tensor:
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
        Positive; as it goes to 0 the mask goes to the hard top-k.

    Returns
    -------
    Tensor of the shape of ``keys``; non-negative, sums to k over the last axis. An entry
    may exceed 1 at high temperature.

    References
    ----------
    Xie & Ermon, Reparameterizable subset sampling via continuous relaxations, IJCAI 2019.
    """
    result: Tensor = _RelaxedTopK.apply(keys, k, temperature)  # type: ignore[no-untyped-call]
    return result


def gumbel_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise of the shape, dtype and device of ``like``."""
    tiny = torch.finfo(like.dtype).tiny
    uniform = torch.empty_like(like).uniform_(generator=generator).clamp_min(tiny)
    # -log(u) is 0 where u rounds to 1: kept above tiny, so that the noise stays finite.
    return -(-uniform.log()).clamp_min(tiny).log()


def top_k_mask(logits: Tensor, k: int) -> Tensor:
    """Hard mask: 1 on the k largest logits of the last axis, 0 elsewhere."""
    indices = logits.topk(k, dim=-1).indices
    return torch.zeros_like(logits).scatter(-1, indices, 1.0)
