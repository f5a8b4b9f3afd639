"""Layers for several models that are trained as one batch.

The models of the batch have layers of the same shapes, but share neither weights nor data. The
first axis of every tensor is the model axis, so that one batched matrix product computes a layer
of all models. A single model is a batch with ``n_models`` equal to 1.

Every random number (weights, order of the cells, dropout, Gumbel noise, latent sample) comes from
the model's own generator. A model neither reads nor advances torch's global generator, and its
random numbers do not depend on the other models of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class RandomSource:
    """Random numbers for models trained as one batch, from one generator per model.

    The methods return tensors of shape (n_models, \\*shape), float32.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)
        self.device = self.generators[0].device

    def __len__(self) -> int:
        return len(self.generators)

    def __deepcopy__(self, memo: dict[int, Any]) -> RandomSource:
        """Return the same object, because torch cannot copy a generator."""
        return self

    def states(self) -> list[Tensor]:
        """Return the states of the generators, from which :meth:`renew_generators` continues."""
        return [generator.get_state() for generator in self.generators]

    def renew_generators(self, states: Sequence[Tensor]) -> None:
        """Replace the generators by new ones with the given states, one per model."""
        for i, state in enumerate(states):
            self.generators[i] = torch.Generator(self.device)
            self.generators[i].set_state(state)

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty((len(self), *shape), device=self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Draw uniform numbers from [low, high)."""
        out = self._empty(shape)
        for values, generator in zip(out, self.generators, strict=True):
            values.uniform_(low, high, generator=generator)
        return out

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        out = self._empty(shape)
        for values, generator in zip(out, self.generators, strict=True):
            values.normal_(generator=generator)
        return out

    def gumbel(self, *shape: int) -> Tensor:
        """Draw standard Gumbel noise."""
        tiny = torch.finfo(torch.float32).tiny
        uniform = self.uniform(*shape).clamp_min_(tiny)
        # -log(u) is 0 if u rounds to 1. The second clamp keeps the noise finite.
        return uniform.log_().neg_().clamp_min_(tiny).log_().neg_()

    def bernoulli(self, *shape: int) -> Tensor:
        """Draw 0 or 1 with equal probability."""
        out = self._empty(shape)
        for values, generator in zip(out, self.generators, strict=True):
            values.bernoulli_(0.5, generator=generator)
        return out

    def permutations(self, n: int) -> Tensor:
        """Draw one permutation of ``range(n)`` per model, int64, shape (n_models, n)."""
        orders = [torch.randperm(n, generator=g, device=self.device) for g in self.generators]
        return torch.stack(orders)


def gather_columns(values: Tensor, indices: Tensor) -> Tensor:
    """Return columns ``indices`` (n_models, n) of ``values`` (n_models, n_rows, n_columns)."""
    return values.gather(2, indices[:, None].expand(-1, values.shape[1], -1))


class Linear(nn.Module):
    """Linear layers, one per model, with torch's default initialisation.

    With a mask of shape (n_models, n_in), which has one factor per feature for all cells of a
    model, the input is multiplied by the mask and receives no gradient. Let G be the gradient of
    the outputs times the unmasked input. The gradient of the weights is G times the mask; the
    gradient of the mask is the sum over the outputs of the weights times G. This takes one
    matrix product, while autograd takes two.

    With ``mixed_precision``, the layer rounds the factors and the results of its matrix products
    to bfloat16 in training mode. Weights, sums and gradients stay in float32.
    """

    mixed_precision = False

    def __init__(self, n_in: int, n_out: int, noise: RandomSource) -> None:
        super().__init__()
        bound = 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(noise.uniform(n_out, n_in, low=-bound, high=bound))
        self.bias = nn.Parameter(noise.uniform(n_out, low=-bound, high=bound))

    def forward(
        self, x: Tensor, mask: Tensor | None = None, inputs: Tensor | None = None
    ) -> Tensor:
        """Return the outputs (n_models, n_cells, n_out) for ``x`` (n_models, n_cells, n_in).

        With ``inputs``, indices of shape (n_models, n_selected), ``x`` contains only these
        inputs and has the shape (n_models, n_cells, n_selected).
        """
        weight = self.weight if inputs is None else gather_columns(self.weight, inputs)
        # With a single row most of the time goes into reading the weights, and rounding would
        # read them once more.
        mixed = self.mixed_precision and self.training and x.shape[1] > 1
        result: Tensor = _Linear.apply(x, mask, weight, self.bias, mixed)  # type: ignore[no-untyped-call]
        return result


class _Linear(torch.autograd.Function):
    """Linear layer with an explicit backward: autograd of ``baddbmm`` transposes each weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor, mixed: bool
    ) -> Tensor:
        masked = x if mask is None else x * mask[:, None]
        ctx.mixed = mixed
        if not mixed:
            ctx.save_for_backward(x, mask, weight)
            return torch.baddbmm(bias[:, None], masked, weight.mT)
        masked = masked.bfloat16()
        ctx.save_for_backward(masked if mask is None else x.bfloat16(), mask, weight)
        return bias[:, None] + torch.bmm(masked, weight.bfloat16().mT)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:
        grad: Tensor = grad_outputs[0]
        x, mask, weight = ctx.saved_tensors
        factor = grad.bfloat16() if ctx.mixed else grad
        grad_x = grad_mask = None
        grad_weight = torch.bmm(factor.mT, x).to(weight.dtype)
        if mask is not None:
            grad_mask = (weight * grad_weight).sum(dim=1)
            grad_weight.mul_(mask[:, None])
        elif ctx.needs_input_grad[0]:
            grad_x = torch.bmm(factor, weight.to(factor.dtype)).to(grad.dtype)
        return grad_x, grad_mask, grad_weight, grad.sum(dim=1), None


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over the cells, separately for each model.

    Weights and statistics have the shape (n_models * n_features,), ordered by model.
    """

    def __init__(self, n_features: int, noise: RandomSource) -> None:
        super().__init__(len(noise) * n_features, device=noise.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised ``x``, shape (n_models, n_cells, n_features)."""
        n_models, n_cells, n_features = x.shape
        flat = x.transpose(0, 1).reshape(n_cells, n_models * n_features)
        if self.training and self.momentum is not None:
            # Calls the function directly, because the module's forward also increments
            # num_batches_tracked, which is only needed if momentum is None.
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
    """Return an ``nn.Linear`` with torch's default initialisation, drawn from ``generator``."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, n_in, n_out, device=generator.device)
    bound = 1 / math.sqrt(n_in)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


def hidden_layer(n_in: int, n_out: int, noise: RandomSource, norm: bool = True) -> nn.Sequential:
    """Return a linear layer, batch norm (if ``norm``) and a leaky ReLU (slope 0.01)."""
    layers: list[nn.Module] = [Linear(n_in, n_out, noise)]
    if norm:
        layers.append(BatchNorm(n_out, noise))
    layers.append(nn.LeakyReLU())
    return nn.Sequential(*layers)
