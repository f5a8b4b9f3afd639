"""The gate of the Concrete VAE, and the assignment of one distinct gene to each selector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmlab.nn.gates import CandidateGenes, Gate, GateOutput
from mmlab.nn.layers import RandomSource, gather_columns


class ConcreteGate(Gate):
    """Gate of the Concrete VAE: k concrete distributions over the genes (Balin et al. 2019).

    Each of the k distributions is a selector. The network sees one column per selector. In
    training mode the column is a convex combination of the free genes with the weights
    ``softmax((logits + Gumbel noise) / temperature)``; in evaluation mode it is a single gene.

    Parameters
    ----------
    random_panel
        If True, read the panel as published: draw the Gumbel noise once more, sum the weight
        vectors of the selectors and choose the genes with the largest sums. If False, each
        selector chooses the gene with its largest logit, in descending order of the selectors'
        largest weights; a selector whose gene is already chosen takes its next best gene.
    """

    def __init__(
        self, candidates: CandidateGenes, noise: RandomSource, random_panel: bool = False
    ) -> None:
        super().__init__(candidates, noise)
        self.n_inputs = candidates.n_markers
        self.random_panel = random_panel
        self._temperature: float | Tensor = 1.0
        self._random_weights: NDArray[np.float64] | None = None
        self.logits = nn.Parameter(noise.normal(candidates.n_free_markers, len(candidates.free)))

    def _weights(self, temperature: float | Tensor) -> Tensor:
        keys = self.logits + self.noise.gumbel(*self.logits.shape[1:])
        if isinstance(temperature, Tensor):
            temperature = temperature[:, :, None]
        return torch.softmax(keys / temperature, dim=-1)

    def train(self, mode: bool = True) -> ConcreteGate:
        """Set the mode; training mode discards the random weights of the last panel."""
        if mode:
            self._random_weights = None
        super().train(mode)
        return self

    def forward(self, x: Tensor, temperature: float | Tensor) -> GateOutput:
        """Return the included genes unchanged, followed by one column per selector."""
        if self.training:
            self._temperature = temperature
            mixed = x[..., self.free] @ self._weights(temperature).mT
            return GateOutput(torch.cat([x[..., self.include], mixed], dim=-1))
        genes = np.stack([self._column_genes(model) for model in range(len(self.logits))])
        selected = gather_columns(x, torch.tensor(genes, device=x.device))
        return GateOutput(torch.cat([x[..., self.include], selected], dim=-1))

    def _column_genes(self, model: int) -> NDArray[np.int64]:
        """Return the gene of each column in evaluation mode: the gene of the column's selector.

        If the rules replace some of these genes, each replacement takes the column of a removed
        gene. With ``random_panel`` no gene belongs to a selector, so the columns are in the order
        of the panel.
        """
        if self.random_panel:
            return self.ranking(model)[0]
        genes = self.candidates.free[assign_distinct_genes(self._noise_free_weights(model))]
        if self.candidates.has_rules:
            panel = self.ranking(model)[0]
            genes[~np.isin(genes, panel)] = panel[~np.isin(panel, genes)]
        return genes

    @torch.no_grad()
    def _noise_free_weights(self, model: int) -> NDArray[np.float64]:
        """Return the weights without noise at temperature 1, shape (n_selectors, n_free)."""
        return torch.softmax(self.logits[model], dim=-1).cpu().numpy().astype(np.float64)

    @torch.no_grad()
    def ranking(self, model: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the chosen genes, best first, without the included ones, and all scores.

        The score of a gene is its largest weight in any selector or, with ``random_panel``, the
        sum of its weights.
        """
        scores = np.zeros(self.candidates.n_genes)
        if self.random_panel:
            if self._random_weights is None:
                sums = self._weights(self._temperature).sum(dim=1)
                self._random_weights = sums.cpu().numpy().astype(np.float64)
            gene_weights = self._random_weights[model]
            order = np.argsort(-gene_weights, kind="stable")
            scores[self.candidates.free] = gene_weights
            return self.candidates.choose(self.candidates.free[order], scores, model), scores
        weights = self._noise_free_weights(model)
        scores[self.candidates.free] = weights.max(axis=0, initial=0.0)
        genes = assign_distinct_genes(weights)[order_by_largest_weight(weights)]
        return self.candidates.choose(self.candidates.free[genes], scores, model), scores


def assign_distinct_genes(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Assign a distinct gene to each selector.

    The selectors choose in descending order of their largest weight. Each takes the gene with
    its largest weight among those that are not yet chosen.

    Parameters
    ----------
    weights
        Shape (n_selectors, n_genes), n_selectors <= n_genes.

    Returns
    -------
    Gene index of each selector, int64, shape (n_selectors,).
    """
    remaining, genes = weights.copy(), np.empty(len(weights), dtype=np.int64)
    for selector in order_by_largest_weight(weights):
        genes[selector] = remaining[selector].argmax()
        remaining[:, genes[selector]] = -np.inf
    return genes


def order_by_largest_weight(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the indices of the selectors, in descending order of their largest weight."""
    return np.argsort(-weights.max(axis=1, initial=0.0), kind="stable")
