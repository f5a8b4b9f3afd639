"""Layers of several models side by side: a pack.

The models of a pack have the same shapes and nothing else in common. The first axis of every
tensor counts the models, so that one batched product does for all of them what each would do in
turn; a single model is a pack of one.

Every random number of the engine (weights, batch order, dropout, Gumbel noise, latent sample)
comes from its model's own generator: a model neither reads nor moves torch's global generator, and
what it draws does not depend on what else is in the pack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class RandomSource:
    """Random numbers of a pack, each model's from a generator of its own.

    The methods give tensors of shape (n_models, \\*shape), float32.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)
        self.device = self.generators[0].device

    def __len__(self) -> int:
        return len(self.generators)

    def __deepcopy__(self, memo: dict[int, Any]) -> RandomSource:
        """The same source: torch cannot copy a generator."""
        return self

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty((len(self), *shape), device=self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform numbers in [low, high)."""
        out = self._empty(shape)
        for row, generator in zip(out, self.generators, strict=True):
            row.uniform_(low, high, generator=generator)
        return out

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        out = self._empty(shape)
        for row, generator in zip(out, self.generators, strict=True):
            row.normal_(generator=generator)
        return out

    def gumbel(self, *shape: int) -> Tensor:
        """Standard Gumbel noise."""
        tiny = torch.finfo(torch.float32).tiny
        uniform = self.uniform(*shape).clamp_min_(tiny)
        # -log(u) is 0 where u rounds to 1: kept above tiny, so that the noise stays finite.
        return uniform.log_().neg_().clamp_min_(tiny).log_().neg_()

    def coins(self, *shape: int) -> Tensor:
        """0 or 1 with the same probability."""
        out = self._empty(shape)
        for row, generator in zip(out, self.generators, strict=True):
            row.bernoulli_(0.5, generator=generator)
        return out

    def permutations(self, n: int) -> Tensor:
        """An order of ``n`` things for each model, int64, shape (n_models, n)."""
        orders = [torch.randperm(n, generator=g, device=self.device) for g in self.generators]
        return torch.stack(orders)


def columns(values: Tensor, indices: Tensor) -> Tensor:
    """Columns ``indices`` (n_models, n) of each model's matrix (n_models, n_rows, n_columns)."""
    return values.gather(2, indices[:, None].expand(-1, values.shape[1], -1))


class Linear(nn.Module):
    """A linear layer a model, initialised as torch does it.

    With a mask (n_models, n_in), one weight a feature for all cells of a model, the layer sees
    its input times the mask, and there is no gradient for the input. With G the gradient of the
    outputs times the unmasked input, the gradient of the weights is G times the mask and that
    of the mask is the sum over the outputs of weights times G: one matrix product where plain
    differentiation takes two.

    ``rounded`` layers round the factors and the results of their products to bfloat16 while they
    are trained; weights, sums and gradients are kept in float32.
    """

    rounded = False

    def __init__(self, n_in: int, n_out: int, noise: RandomSource) -> None:
        super().__init__()
        bound = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(noise.uniform(n_out, n_in, low=-bound, high=bound))
        self.bias = nn.Parameter(noise.uniform(n_out, low=-bound, high=bound))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, inputs: Tensor | None = None
    ) -> Tensor:
        """Outputs (n_models, n_cells, n_out) for ``x`` (n_models, n_cells, n_in).

        With ``inputs``, indices (n_models, n_shown), ``x`` holds these inputs alone.
        """
        weight = self.weight if inputs is None else columns(self.weight, inputs)
        # For one row reading the weights takes the time, and rounding reads them once more.
        rounded = self.rounded and self.training and x.shape[1] > 1
        result: Tensor = _Linear.apply(x, mask, weight, self.bias, rounded)  # type: ignore[no-untyped-call]
        return result


class _Linear(torch.autograd.Function):
    """Written out because plain differentiation of ``baddbmm`` transposes every weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor, rounded: bool
    ) -> Tensor:
        seen = x if mask is None else x * mask[:, None]
        ctx.rounded = rounded
        if not rounded:
            ctx.save_for_backward(x, mask, weight)
            return torch.baddbmm(bias[:, None], seen, weight.mT)
        seen = seen.bfloat16()
        ctx.save_for_backward(seen if mask is None else x.bfloat16(), mask, weight)
        return bias[:, None] + torch.bmm(seen, weight.bfloat16().mT)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        grad: Tensor = grad_outputs[0]
        x, mask, weight = ctx.saved_tensors
        factor = grad.bfloat16() if ctx.rounded else grad
        grad_x = grad_mask = None
        grad_weight = torch.bmm(factor.mT, x).to(weight.dtype)
        if mask is not None:
            grad_mask = (weight * grad_weight).sum(dim=1)
            grad_weight.mul_(mask[:, None])
        elif ctx.needs_input_grad[0]:
            grad_x = torch.bmm(factor, weight.to(factor.dtype)).to(grad.dtype)
        return grad_x, grad_mask, grad_weight, grad.sum(dim=1), None


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the cells of each model; its weights and statistics lie model by model."""

    def __init__(self, n_features: int, noise: RandomSource) -> None:
        super().__init__(len(noise) * n_features, device=noise.device)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised ``x``, shape (n_models, n_cells, n_features)."""
        n_models, n_cells, n_features = x.shape
        flat = x.transpose(0, 1).reshape(n_cells, n_models * n_features)
        if self.training and self.momentum is not None:
            # Without the counter of batches, which a plain mean alone needs.
            result = functional.batch_norm(
                flat,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                True,
                self.momentum,
                self.eps,
            )
        else:
            result = super().forward(flat)
        return result.view(n_cells, n_models, n_features).transpose(0, 1)


def linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """A plain ``nn.Linear`` with torch's default initialisation, drawn from ``generator``."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, device=generator.device)
    bound = 1 / math.sqrt(n_in)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def hidden(n_in: int, n_out: int, noise: RandomSource, norm: bool = True) -> nn.Sequential:
    """A linear layer, batch norm unless told otherwise, and a leaky ReLU (slope 0.01)."""
    layers: list[nn.Module] = [Linear(n_in, n_out, noise)]
    if norm:
        layers.append(BatchNorm(n_out, noise))
    layers.append(nn.LeakyReLU())
    return nn.Sequential(*layers)
