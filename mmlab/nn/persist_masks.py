"""Learned masks over genes for PERSIST (Covert et al. 2023)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

#: Probability that the elimination keeps a gene before training.
_INITIAL_KEEP_PROBABILITY = 0.99
#: Stored logits are divided by these before use, so that a step of Adam changes them more.
_BINARY_SCALE = 1 / 2
_SELECTOR_SCALE = 1 / 3


class _ConcreteMaxMask(torch.autograd.Function):
    """Softmax over genes, then maximum over selectors, with an analytic backward."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, noise: Tensor, draws: Tensor, temperature: float
    ) -> Tensor:
        keys = noise.add_(logits[:, None, :]).div_(temperature)
        torch.softmax(keys, dim=-1, out=draws)
        mask = draws.amax(dim=0)
        ctx.save_for_backward(draws, mask)
        ctx.scratch = keys
        ctx.temperature = temperature
        return mask

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None, None]:
        draws, mask = ctx.saved_tensors
        # A mask value depends only on the selector with the maximum. If several selectors tie,
        # each gets the whole gradient: they tie at 0 or 1, where the softmax has no gradient.
        is_maximum = torch.eq(draws, mask, out=ctx.scratch)
        weighted = is_maximum.mul_(mask * grad_outputs[0])
        through_sum = torch.einsum("jc,jcg->jg", weighted.sum(dim=-1), draws)
        return (weighted.sum(dim=1) - through_sum) / ctx.temperature, None, None, None


def concrete_max_mask(logits: Tensor, noise: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """Return the mask ``m_g = max_j softmax_g((logits_j + noise_j) / temperature)``.

    The maximum is over the k selectors j, each of which is a concrete distribution over genes.

    Parameters
    ----------
    logits
        Shape (n_selectors, n_genes).
    noise
        Standard Gumbel noise, shape (n_selectors, n_cells, n_genes); overwritten.
    draws
        Output buffer for the softmax of each selector, same shape as ``noise``. Both buffers
        may be reused after the backward pass. They are the largest tensors, and allocating them
        in every step would take longer than the arithmetic.
    temperature
        Positive; as it approaches 0, each softmax approaches a one-hot vector.

    Returns
    -------
    Tensor of shape (n_cells, n_genes) in [0, 1], differentiable in ``logits``.

    References
    ----------
    Covert et al., Nature Communications 14:2400 (2023). Maddison et al., ICLR 2017 (concrete).
    """
    mask: Tensor = _ConcreteMaxMask.apply(  # type: ignore[no-untyped-call]
        logits, noise, draws, temperature
    )
    return mask


def fill_with_gumbel_noise(out: Tensor, generator: torch.Generator) -> Tensor:
    """Fill ``out`` with standard Gumbel noise, in place."""
    tiny = torch.finfo(out.dtype).tiny
    # torch's uniform numbers are in [0, 1): the clamp avoids log(0), and u = 1 cannot occur.
    return out.uniform_(generator=generator).clamp_min_(tiny).log_().neg_().log_().neg_()


class GeneMask(nn.Module):
    """Base class of the learned masks; ``logits`` are the stored parameters."""

    logits: nn.Parameter

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    @abstractmethod
    def forward(self, n_cells: int, temperature: float) -> Tensor:
        """Draw a soft mask in [0, 1] for each cell, shape (n_cells, n_genes)."""

    @abstractmethod
    def probabilities(self) -> Tensor:
        """Return the learned probabilities, without gradient and without noise."""


class BinaryConcreteMask(GeneMask):
    """Mask of the elimination: one binary concrete variable per gene.

    A value of the mask is ``sigmoid((l + logistic noise) / temperature)``, where ``l`` is twice
    the stored logit.
    """

    def __init__(self, n_genes: int, generator: torch.Generator) -> None:
        super().__init__(generator)
        odds = _INITIAL_KEEP_PROBABILITY / (1 - _INITIAL_KEEP_PROBABILITY)
        logit = _BINARY_SCALE * math.log(odds)
        self.logits = nn.Parameter(torch.full((n_genes,), logit, device=generator.device))

    def forward(self, n_cells: int, temperature: float) -> Tensor:
        """Draw a mask for each cell, shape (n_cells, n_genes)."""
        noise = self.logits.new_empty((n_cells, len(self.logits)))
        noise.uniform_(generator=self.generator).logit_(eps=1e-7)
        return ((self.logits / _BINARY_SCALE + noise) / temperature).sigmoid()

    def probabilities(self) -> Tensor:
        """Return the probability that each gene is kept, shape (n_genes,)."""
        return (self.logits.detach() / _BINARY_SCALE).sigmoid()


class ConcreteMask(GeneMask):
    """Mask of the selection: k selectors, each a concrete distribution over the genes.

    The mask is the maximum over the selectors (:func:`concrete_max_mask`). The logits of the
    distributions are three times the stored logits.
    """

    def __init__(self, n_selectors: int, n_genes: int, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.logits = nn.Parameter(torch.zeros(n_selectors, n_genes, device=generator.device))
        self._workspace: list[Tensor] = []

    def forward(self, n_cells: int, temperature: float) -> Tensor:
        """Draw a mask for each cell, shape (n_cells, n_genes)."""
        n_selectors, n_genes = self.logits.shape
        shape = (n_selectors, n_cells, n_genes)
        if not self._workspace or self._workspace[0].shape != shape:
            self._workspace = [torch.empty(shape, device=self.logits.device) for _ in range(2)]
        noise, draws = self._workspace
        fill_with_gumbel_noise(noise, self.generator)
        return concrete_max_mask(self.logits / _SELECTOR_SCALE, noise, draws, temperature)

    def probabilities(self) -> Tensor:
        """Return each selector's probability of each gene, shape (n_selectors, n_genes)."""
        return (self.logits.detach() / _SELECTOR_SCALE).softmax(dim=-1)

    @torch.no_grad()
    def reset_duplicates(self) -> bool:
        """Reset each selector whose most probable gene is also that of a later selector.

        The stored logits of such a selector are drawn anew from N(0, 1).

        Returns
        -------
        True if any selector was reset.
        """
        genes = self.logits.argmax(dim=1)
        equal = genes[:, None] == genes[None, :]
        is_duplicate = equal.triu(diagonal=1).any(dim=1)
        n_duplicates = int(is_duplicate.sum())
        if n_duplicates:
            new_logits = self.logits.new_empty((n_duplicates, self.logits.shape[1]))
            self.logits[is_duplicate] = new_logits.normal_(generator=self.generator)
        return n_duplicates > 0
