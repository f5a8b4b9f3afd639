"""Layers whose random numbers come from an explicit generator.

Every random number of the engine (weights, dropout, Gumbel noise, latent sample) comes from one
explicit ``torch.Generator``, so that a model neither reads nor moves torch's global generator.
"""

from __future__ import annotations

import math

import torch
from torch import nn


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
