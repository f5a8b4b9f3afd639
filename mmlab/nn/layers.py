"""Layers whose random numbers come from an explicit generator.

Every random number of the engine (weights, dropout, Gumbel noise, latent sample) comes from one
explicit ``torch.Generator``, so that a model neither reads nor moves torch's global generator.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """``nn.Linear`` with torch's default initialisation, drawn from ``generator``."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, device=generator.device)
    bound = 1 / math.sqrt(n_in)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def hidden(n_in: int, n_out: int, generator: torch.Generator, norm: bool = True) -> nn.Sequential:
    """A linear layer, batch norm unless told otherwise, and a leaky ReLU (slope 0.01)."""
    layers: list[nn.Module] = [linear(n_in, n_out, generator)]
    if norm:
        layers.append(nn.BatchNorm1d(n_out, device=generator.device))
    layers.append(nn.LeakyReLU())
    return nn.Sequential(*layers)


def masked_linear(layer: nn.Linear, x: Tensor, mask: Tensor) -> Tensor:
    """``layer`` on ``x`` (n_cells, n_in) times ``mask`` (n_in,), one weight for all cells.

    With G the gradient of the outputs times the unmasked ``x``, the gradient of the weights is
    G times the mask and that of the mask is the sum over the outputs of weights times G: one
    matrix product where plain differentiation takes two. There is no gradient for ``x``.
    """
    result: Tensor = _MaskedLinear.apply(x, mask, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return result


class _MaskedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, mask, weight)
        return functional.linear(x * mask, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        grad: Tensor = grad_outputs[0]
        x, mask, weight = ctx.saved_tensors
        unmasked = grad.T @ x
        grad_mask = (weight * unmasked).sum(dim=0)
        return None, grad_mask, unmasked.mul_(mask), grad.sum(dim=0)
