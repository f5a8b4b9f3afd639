"""Who proposes the panel: a module that shows a network only the genes that it would choose."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mmlab.nn.layers import hidden, linear
from mmlab.nn.subset import gumbel_noise, relaxed_top_k, top_k_mask


@dataclass(frozen=True)
class Choice:
    """What a panel is chosen from.

    Attributes
    ----------
    n_genes, n_markers
        Genes of the data and of the panel.
    include
        Indices of genes that are in every panel.
    free
        Indices of the genes that the others are chosen from, ascending.
    """

    n_genes: int
    n_markers: int
    include: NDArray[np.int64]
    free: NDArray[np.int64]

    @property
    def n_free_markers(self) -> int:
        """Genes of the panel that are left to choose."""
        return self.n_markers - len(self.include)


@dataclass(frozen=True)
class Shown:
    """What a proposal shows the network: ``cells`` times ``mask``, where there is one.

    Attributes
    ----------
    cells
        Shape (n_cells, n_inputs).
    mask
        Shape (n_inputs,), the same for all cells; None shows the cells as they are.
    """

    cells: Tensor
    mask: Tensor | None = None


class Proposal(nn.Module):
    """Base of the proposals.

    ``n_inputs`` is the width of what :meth:`forward` shows the network. In training mode that
    is a soft panel at a temperature, in evaluation mode the hard one.
    """

    n_inputs: int

    def __init__(self, choice: Choice, generator: torch.Generator) -> None:
        super().__init__()
        self.choice = choice
        self.generator = generator
        self.free: Tensor
        self.include: Tensor
        self.register_buffer("free", torch.tensor(choice.free, device=generator.device))
        self.register_buffer("include", torch.tensor(choice.include, device=generator.device))

    @abstractmethod
    def forward(self, x: Tensor, temperature: float) -> Shown:
        """What the network sees of cells ``x`` of shape (n_cells, n_genes)."""

    @abstractmethod
    def ranking(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Genes chosen, best first, the included ones left out; and a score a gene."""


class MaskProposal(Proposal):
    """A proposal that multiplies all cells by one k-hot mask; ``logits`` has one a free gene."""

    logits: Tensor

    def __init__(self, choice: Choice, generator: torch.Generator) -> None:
        super().__init__(choice, generator)
        self.n_inputs = choice.n_genes

    @abstractmethod
    def _current_logits(self, x: Tensor) -> Tensor:
        """Logits of the free genes for a training batch, with their gradient."""

    def forward(self, x: Tensor, temperature: float) -> Shown:
        """All cells under one mask: a Gumbel draw and a relaxed top-k, or the hard top-k."""
        k = self.choice.n_free_markers
        if k == 0:
            return Shown(x, self._whole(self.logits.new_zeros(len(self.free))))
        if not self.training:
            return Shown(x, self._whole(top_k_mask(self.logits.detach(), k)))
        logits = self._current_logits(x)
        keys = logits + gumbel_noise(logits, self.generator)
        return Shown(x, self._whole(relaxed_top_k(keys, k, temperature)))

    def _whole(self, mask: Tensor) -> Tensor:
        """Mask of all genes from the mask of the free ones."""
        if len(mask) == self.choice.n_genes:
            return mask
        whole = mask.new_zeros(self.choice.n_genes)
        return whole.index_fill(0, self.include, 1.0).index_add(0, self.free, mask)

    def ranking(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Free genes with the largest logits; scores are the logits, the lowest elsewhere."""
        logits = self.logits.detach().cpu().numpy().astype(np.float64)
        order = np.argsort(-logits, kind="stable")[: self.choice.n_free_markers]
        scores = np.full(self.choice.n_genes, logits.min(initial=0.0))
        scores[self.choice.free] = logits
        return self.choice.free[order], scores


class GeneLogits(MaskProposal):
    """MarkerMap's proposal: a network whose batch mean moves one running logit a gene.

    Per batch ``L <- beta * stopgrad(L) + (1 - beta) * mean_batch f(x)`` (METHODS: Gregory et
    al. 2024, "MarkerMap"), then one Gumbel draw shared by the batch and a relaxed top-k of
    ``L + noise``. At evaluation the mask is the hard top-k of ``L``.

    The logits are used as a batch mean alone, and the last layer of ``f`` is linear, so that
    layer is applied to the mean of the hidden units: the same number for 1/batch of the work.
    """

    def __init__(
        self, choice: Choice, hidden_size: int, beta: float, generator: torch.Generator
    ) -> None:
        super().__init__(choice, generator)
        self.beta = beta
        self.first = hidden(choice.n_genes, hidden_size, generator)
        self.second = hidden(hidden_size, hidden_size, generator)
        self.last = linear(hidden_size, len(choice.free), generator)
        self.register_buffer("logits", torch.zeros(len(choice.free), device=generator.device))

    def _current_logits(self, x: Tensor) -> Tensor:
        units = self.first(x)
        keep = torch.empty_like(units).bernoulli_(0.5, generator=self.generator)
        units = functional.leaky_relu(self.second(units * keep * 2))
        proposal: Tensor = self.last(units.mean(dim=0))
        logits = self.beta * self.logits + (1 - self.beta) * proposal
        self.logits = logits.detach()
        return logits


class FreeLogits(MaskProposal):
    """Global-Gumbel VAE's proposal: the logits are parameters, drawn from N(0, 1)."""

    def __init__(self, choice: Choice, generator: torch.Generator) -> None:
        super().__init__(choice, generator)
        start = torch.empty(len(choice.free), device=generator.device)
        self.logits = nn.Parameter(start.normal_(generator=generator))

    def _current_logits(self, x: Tensor) -> Tensor:
        return self.logits


class ConcreteSelectors(Proposal):
    """Concrete VAE's proposal: k concrete distributions over the genes (Balin et al. 2019).

    The network sees k columns, each a convex combination of genes with the weights
    ``softmax((logits + Gumbel) / t)``; at evaluation each column is one gene.

    Parameters
    ----------
    random_panel
        The published way to read the panel: draw the Gumbel noise again, add the k weight
        vectors, take the k largest. Otherwise every selector gives the gene with its largest
        logit, the surest selector first, and a gene that is taken already is replaced by the
        next best of that selector.
    """

    def __init__(
        self, choice: Choice, generator: torch.Generator, random_panel: bool = False
    ) -> None:
        super().__init__(choice, generator)
        self.n_inputs = choice.n_markers
        self.random_panel = random_panel
        self._temperature = 1.0
        self._drawn: NDArray[np.float64] | None = None
        shape = (choice.n_free_markers, len(choice.free))
        start = torch.empty(shape, device=generator.device)
        self.logits = nn.Parameter(start.normal_(generator=generator))

    def _weights(self, temperature: float) -> Tensor:
        keys = self.logits + gumbel_noise(self.logits, self.generator)
        return torch.softmax(keys / temperature, dim=-1)

    def forward(self, x: Tensor, temperature: float) -> Shown:
        """Included genes as they are, then the k columns of the selectors."""
        if self.training:
            self._temperature, self._drawn = temperature, None
            columns = x[:, self.free] @ self._weights(temperature).T
            return Shown(torch.cat([x[:, self.include], columns], dim=1))
        chosen, _ = self.ranking()
        return Shown(x[:, torch.cat([self.include, torch.tensor(chosen, device=x.device)])])

    @torch.no_grad()
    def ranking(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See ``random_panel``; the score of a gene is its largest or summed weight."""
        scores = np.zeros(self.choice.n_genes)
        if self.random_panel:
            if self._drawn is None:
                drawn = self._weights(self._temperature).sum(dim=0)
                self._drawn = drawn.cpu().numpy().astype(np.float64)
            order = np.argsort(-self._drawn, kind="stable")[: self.choice.n_free_markers]
            scores[self.choice.free] = self._drawn
            return self.choice.free[order], scores
        weights = torch.softmax(self.logits, dim=-1).cpu().numpy().astype(np.float64)
        scores[self.choice.free] = weights.max(axis=0, initial=0.0)
        genes = distinct_choices(weights)
        return self.choice.free[genes], scores


def distinct_choices(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """One gene a selector, all distinct: the surest selector chooses first.

    Parameters
    ----------
    weights
        Shape (n_selectors, n_genes), n_selectors <= n_genes.
    """
    taken: list[int] = []
    for row in np.argsort(-weights.max(axis=1, initial=0.0), kind="stable"):
        own = weights[row].copy()
        own[taken] = -np.inf
        taken.append(int(own.argmax()))
    return np.array(taken, dtype=np.int64)
