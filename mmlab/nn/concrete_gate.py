"""Concrete VAE's proposal, and how selectors come to a gene each."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmlab.nn.gates import CandidateGenes, Gate, GateOutput
from mmlab.nn.layers import RandomSource, columns


class ConcreteGate(Gate):
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
        self, candidates: CandidateGenes, noise: RandomSource, random_panel: bool = False
    ) -> None:
        super().__init__(candidates, noise)
        self.n_inputs = candidates.n_markers
        self.random_panel = random_panel
        self._temperature: float | Tensor = 1.0
        self._drawn: NDArray[np.float64] | None = None
        self.logits = nn.Parameter(noise.normal(candidates.n_free_markers, len(candidates.free)))

    def _weights(self, temperature: float | Tensor) -> Tensor:
        keys = self.logits + self.noise.gumbel(*self.logits.shape[1:])
        if isinstance(temperature, Tensor):
            temperature = temperature[:, :, None]
        return torch.softmax(keys / temperature, dim=-1)

    def train(self, mode: bool = True) -> ConcreteGate:
        """Training goes on: what was drawn for the last panel no longer holds."""
        if mode:
            self._drawn = None
        super().train(mode)
        return self

    def forward(self, x: Tensor, temperature: float | Tensor) -> GateOutput:
        """Included genes as they are, then the k columns of the selectors."""
        if self.training:
            self._temperature = temperature
            mixed = x[..., self.free] @ self._weights(temperature).mT
            return GateOutput(torch.cat([x[..., self.include], mixed], dim=-1))
        chosen = np.stack([self._column_genes(model) for model in range(len(self.logits))])
        own = columns(x, torch.tensor(chosen, device=x.device))
        return GateOutput(torch.cat([x[..., self.include], own], dim=-1))

    def _column_genes(self, model: int) -> NDArray[np.int64]:
        """The gene in each column at evaluation: that of the selector which trained the column.

        A gene that the rules put in another's place takes the column of one that they left out.
        The published panel has no selectors: its columns are in the order of the panel.
        """
        if self.random_panel:
            return self.ranking(model)[0]
        own = self.candidates.free[distinct_choices(self._hard_weights(model))]
        if self.candidates.has_rules:
            panel = self.ranking(model)[0]
            own[~np.isin(own, panel)] = panel[~np.isin(panel, own)]
        return own

    @torch.no_grad()
    def _hard_weights(self, model: int) -> NDArray[np.float64]:
        """Weights without noise at temperature 1, shape (n_selectors, n_free)."""
        return torch.softmax(self.logits[model], dim=-1).cpu().numpy().astype(np.float64)

    @torch.no_grad()
    def ranking(self, model: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See ``random_panel``; the score of a gene is its largest or summed weight."""
        scores = np.zeros(self.candidates.n_genes)
        if self.random_panel:
            if self._drawn is None:
                drawn = self._weights(self._temperature).sum(dim=1)
                self._drawn = drawn.cpu().numpy().astype(np.float64)
            mine = self._drawn[model]
            order = np.argsort(-mine, kind="stable")
            scores[self.candidates.free] = mine
            return self.candidates.best(self.candidates.free[order], scores, model), scores
        weights = self._hard_weights(model)
        scores[self.candidates.free] = weights.max(axis=0, initial=0.0)
        genes = distinct_choices(weights)[surest_first(weights)]
        return self.candidates.best(self.candidates.free[genes], scores, model), scores


def distinct_choices(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """The gene of each selector, all distinct: the surest selector chooses first.

    Parameters
    ----------
    weights
        Shape (n_selectors, n_genes), n_selectors <= n_genes.
    """
    left, genes = weights.copy(), np.empty(len(weights), dtype=np.int64)
    for selector in surest_first(weights):
        genes[selector] = left[selector].argmax()
        left[:, genes[selector]] = -np.inf
    return genes


def surest_first(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Selectors by their largest weight, descending."""
    return np.argsort(-weights.max(axis=1, initial=0.0), kind="stable")
