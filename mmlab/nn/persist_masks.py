"""The masks over genes that PERSIST learns (Covert et al. 2023)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

#: Probability with which every gene is kept before the elimination has learned anything.
_INITIAL_KEEP = 0.99
#: Stored logits are divided by these before use, so that a step of Adam moves them further.
_GATE_SCALE = 1 / 2
_SELECTOR_SCALE = 1 / 3


class _ConcreteMaxMask(torch.autograd.Function):
    """Softmax over genes, then the maximum over selectors; analytic backward."""

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
        # A mask value hangs on the selector alone that gives the maximum. Of selectors that
        # tie each gets the whole gradient: they tie at 0 or 1, where a softmax has none.
        wins = torch.eq(draws, mask, out=ctx.scratch)
        passed = wins.mul_(mask * grad_outputs[0])
        through_sum = torch.einsum("jc,jcg->jg", passed.sum(dim=-1), draws)
        return (passed.sum(dim=1) - through_sum) / ctx.temperature, None, None, None


def concrete_max_mask(logits: Tensor, noise: Tensor, draws: Tensor, temperature: float) -> Tensor:
    """Mask of k concrete draws: ``m_g = max_j softmax_g((logits_j + noise_j) / temperature)``.

    Parameters
    ----------
    logits
        Shape (n_selectors, n_genes).
    noise
        Standard Gumbel noise, shape (n_selectors, n_cells, n_genes); overwritten.
    draws
        Of the shape of ``noise``, receives the draws. Both may be used again once the backward
        pass is over: new memory a step, for the largest tensors of all, would take longer than
        the arithmetic.
    temperature
        Positive; as it goes to 0 every draw goes to one gene.

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
    # A clamped uniform number of 0 gives the smallest noise there is; it is never 1.
    return out.uniform_(generator=generator).clamp_min_(tiny).log_().neg_().log_().neg_()


class GeneMask(nn.Module):
    """Base of the learned masks; ``logits`` are the stored parameters."""

    logits: nn.Parameter

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    @abstractmethod
    def forward(self, n_cells: int, temperature: float) -> Tensor:
        """Soft masks in [0, 1], drawn anew for every cell; shape (n_cells, n_genes)."""

    @abstractmethod
    def probabilities(self) -> Tensor:
        """What the mask has learned, without gradient and noise."""


class BinaryGates(GeneMask):
    """One binary concrete gate a gene; of the elimination.

    A gate is ``sigmoid((l + logistic noise) / temperature)`` with ``l`` twice the stored logit.
    """

    def __init__(self, n_genes: int, generator: torch.Generator) -> None:
        super().__init__(generator)
        start = _GATE_SCALE * math.log(_INITIAL_KEEP / (1 - _INITIAL_KEEP))
        self.logits = nn.Parameter(torch.full((n_genes,), start, device=generator.device))

    def forward(self, n_cells: int, temperature: float) -> Tensor:
        """Gates of every cell, shape (n_cells, n_genes)."""
        noise = self.logits.new_empty((n_cells, len(self.logits)))
        noise.uniform_(generator=self.generator).logit_(eps=1e-7)
        return ((self.logits / _GATE_SCALE + noise) / temperature).sigmoid()

    def probabilities(self) -> Tensor:
        """Probability that a gene is kept, shape (n_genes,)."""
        return (self.logits.detach() / _GATE_SCALE).sigmoid()


class ConcreteMask(GeneMask):
    """k selectors, each a concrete distribution over the genes; of the selection.

    A mask is the maximum over the selectors, see :func:`concrete_max_mask`, of three times the
    stored logits.
    """

    def __init__(self, n_selectors: int, n_genes: int, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.logits = nn.Parameter(torch.zeros(n_selectors, n_genes, device=generator.device))
        self._workspace: list[Tensor] = []

    def forward(self, n_cells: int, temperature: float) -> Tensor:
        """Masks of every cell, shape (n_cells, n_genes)."""
        n_selectors, n_genes = self.logits.shape
        shape = (n_selectors, n_cells, n_genes)
        if not self._workspace or self._workspace[0].shape != shape:
            self._workspace = [torch.empty(shape, device=self.logits.device) for _ in range(2)]
        noise, draws = self._workspace
        fill_with_gumbel_noise(noise, self.generator)
        return concrete_max_mask(self.logits / _SELECTOR_SCALE, noise, draws, temperature)

    def probabilities(self) -> Tensor:
        """Probability with which each selector takes each gene, shape (n_selectors, n_genes)."""
        return (self.logits.detach() / _SELECTOR_SCALE).softmax(dim=-1)

    @torch.no_grad()
    def reset_repeated(self) -> bool:
        """Draw the stored logits of a selector from N(0, 1) if a later one prefers its gene.

        Returns
        -------
        Whether there was one.
        """
        favourites = self.logits.argmax(dim=1)
        same = favourites[:, None] == favourites[None, :]
        repeated = same.triu(diagonal=1).any(dim=1)
        n_repeated = int(repeated.sum())
        if n_repeated:
            fresh = self.logits.new_empty((n_repeated, self.logits.shape[1]))
            self.logits[repeated] = fresh.normal_(generator=self.generator)
        return n_repeated > 0
