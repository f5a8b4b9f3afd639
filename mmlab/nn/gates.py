"""Gates: modules that select the genes that a network sees, and thereby learn a panel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mmlab.constraints.solver import PanelRules, complete_ranking, solve_panel
from mmlab.nn.layers import Linear, RandomSource, gather_columns, hidden_layer
from mmlab.nn.relaxed_top_k import relaxed_top_k


@dataclass(frozen=True)
class CandidateGenes:
    """The genes that a panel is chosen from, and the constraints on the panel.

    Attributes
    ----------
    n_genes, n_markers
        Number of genes in the data and in the panel.
    include
        Indices of the genes that every panel includes.
    free
        Indices of the genes from which the rest of the panel is chosen, ascending.
    rules
        Further constraints on the panel, one entry per model (None for a model without any);
        empty if no model has any. Hard panels satisfy them, soft panels need not.
    """

    n_genes: int
    n_markers: int
    include: NDArray[np.int64]
    free: NDArray[np.int64]
    rules: tuple[PanelRules | None, ...] = ()

    @property
    def n_free_markers(self) -> int:
        """Number of genes to choose in addition to the included ones."""
        return self.n_markers - len(self.include)

    @property
    def has_rules(self) -> bool:
        """Whether any model has rules."""
        return any(rules is not None for rules in self.rules)

    def single(self, model: int) -> CandidateGenes:
        """Return the candidate genes with the rules of one model only."""
        return replace(self, rules=self.rules[model : model + 1])

    def choose(
        self, ranking: NDArray[np.int64], scores: NDArray[np.float64], model: int
    ) -> NDArray[np.int64]:
        """Return the ``n_free_markers`` best genes that satisfy the rules, best first.

        Parameters
        ----------
        ranking
            Free genes, best first.
        scores
            One score per gene, shape (n_genes,).
        model
            Index of the model whose rules apply.
        """
        n, rules = self.n_free_markers, self.rules[model] if self.rules else None
        if rules is None:
            return ranking[:n]
        chosen = solve_panel(rules, complete_ranking(ranking, scores, self.free), n, self.include)
        assert chosen is not None  # it has been checked before that such a panel exists
        return chosen


@dataclass(frozen=True)
class GateOutput:
    """Input of the network behind a gate: ``cells``, multiplied by ``mask`` if there is one.

    Attributes
    ----------
    cells
        Shape (n_models, n_cells, n_inputs), or (n_models, n_cells, n_selected) with ``inputs``.
    mask
        Shape (n_models, n_inputs), the same for all cells; None leaves the cells unchanged.
    inputs
        Indices (n_models, n_selected) of the inputs in ``cells``; all other inputs are zero.
    """

    cells: Tensor
    mask: Tensor | None = None
    inputs: Tensor | None = None


class Gate(nn.Module):
    """Base class of the gates of models trained as one batch (:mod:`mmlab.nn.layers`).

    A gate selects the genes that the network sees: a soft panel at a given temperature in
    training mode, the hard panel in evaluation mode. ``n_inputs`` is the width of the network's
    input.
    """

    n_inputs: int

    def __init__(self, candidates: CandidateGenes, noise: RandomSource) -> None:
        super().__init__()
        self.candidates = candidates
        self.noise = noise
        self.free = torch.tensor(candidates.free, device=noise.device)
        self.include = torch.tensor(candidates.include, device=noise.device)

    @abstractmethod
    def forward(self, x: Tensor, temperature: float | Tensor) -> GateOutput:
        """Return the network's input for cells ``x`` of shape (n_models, n_cells, n_genes).

        ``temperature`` is one number for all models, or has the shape (n_models, 1).
        """

    @abstractmethod
    def ranking(self, model: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the chosen genes of a model, best first, and the scores of all genes.

        Included genes are not among the chosen ones. The scores have the shape (n_genes,).
        """


class MaskGate(Gate):
    """Gate that multiplies all cells of a model by the same k-hot mask.

    ``logits`` has one value per free gene, shape (n_models, n_free).
    """

    logits: Tensor

    def __init__(self, candidates: CandidateGenes, noise: RandomSource) -> None:
        super().__init__(candidates, noise)
        self.n_inputs = candidates.n_genes

    @abstractmethod
    def _current_logits(self, x: Tensor) -> Tensor:
        """Return the logits of the free genes for a training minibatch, with gradient."""

    def forward(self, x: Tensor, temperature: float | Tensor) -> GateOutput:
        """Return all cells and a soft mask in training mode, else the genes of the hard panel.

        The soft mask is the relaxed top-k of the logits plus one draw of Gumbel noise per model.
        """
        k = self.candidates.n_free_markers
        if not self.training:
            chosen = self._constrained_panel() if self.candidates.has_rules else self._top_k(k)
            panel = torch.cat([self.include.expand(len(chosen), -1), chosen], dim=-1)
            return GateOutput(gather_columns(x, panel), inputs=panel)
        if k == 0:
            return GateOutput(x, self._full_mask(torch.zeros_like(self.logits)))
        logits = self._current_logits(x)
        keys = logits + self.noise.gumbel(logits.shape[-1])
        return GateOutput(x, self._full_mask(relaxed_top_k(keys, k, temperature)))

    def _top_k(self, k: int) -> Tensor:
        """Return the k free genes with the largest logits, shape (n_models, k)."""
        return self.free[self.logits.detach().topk(k, dim=-1).indices]

    def _constrained_panel(self) -> Tensor:
        """Return the genes of :meth:`ranking`, one row per model."""
        chosen = [self.ranking(model)[0] for model in range(len(self.logits))]
        return torch.tensor(np.stack(chosen), device=self.free.device)

    def _full_mask(self, mask: Tensor) -> Tensor:
        """Extend a mask of the free genes to all genes: 1 if included, 0 if excluded."""
        if mask.shape[-1] == self.candidates.n_genes:
            return mask
        full = mask.new_zeros(len(mask), self.candidates.n_genes)
        return full.index_fill(1, self.include, 1.0).index_add(1, self.free, mask)

    def ranking(self, model: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the free genes with the largest logits, and the scores of all genes.

        The scores are the logits; genes that are not free get the lowest of them.
        """
        logits = self.logits[model].detach().cpu().numpy().astype(np.float64)
        order = np.argsort(-logits, kind="stable")
        scores = np.full(self.candidates.n_genes, logits.min(initial=0.0))
        scores[self.candidates.free] = logits
        return self.candidates.choose(self.candidates.free[order], scores, model), scores


class MarkerMapGate(MaskGate):
    """Gate of MarkerMap: a network f updates a running logit per gene (Gregory et al. 2024).

    For each minibatch, ``L <- beta * stopgrad(L) + (1 - beta) * mean_cells f(x)``; the mask is
    the relaxed top-k of ``L`` plus one draw of Gumbel noise, which all cells of the minibatch
    share. In evaluation mode the mask is the hard top-k of ``L``.

    Only the mean of ``f(x)`` over the cells is used, and the last layer of ``f`` is linear.
    Therefore that layer is applied to the mean of the hidden activations: the result is the
    same, at 1 / batch_size of the cost.
    """

    def __init__(
        self,
        candidates: CandidateGenes,
        hidden_size: int,
        beta: float | Sequence[float],
        noise: RandomSource,
    ) -> None:
        """``beta`` is one number for all models, or a sequence with one number per model."""
        super().__init__(candidates, noise)
        betas = torch.tensor(beta, device=noise.device).reshape(-1, 1)
        self.beta: Tensor
        self.register_buffer("beta", betas.expand(len(noise), 1).clone())
        self.first = hidden_layer(candidates.n_genes, hidden_size, noise)
        self.second = hidden_layer(hidden_size, hidden_size, noise)
        self.last = Linear(hidden_size, len(candidates.free), noise)
        zeros = torch.zeros(len(noise), len(candidates.free), device=noise.device)
        self.register_buffer("logits", zeros)

    def _current_logits(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        dropout = self.noise.bernoulli(*hidden.shape[1:])  # keeps a unit with probability 1/2
        hidden = functional.leaky_relu(self.second(hidden * dropout * 2))
        batch_logits: Tensor = self.last(hidden.mean(dim=1, keepdim=True)).squeeze(1)
        logits = self.beta * self.logits + (1 - self.beta) * batch_logits
        self.logits.copy_(logits.detach())
        return logits


class FreeLogitsGate(MaskGate):
    """Gate of the Global-Gumbel VAE: the logits are parameters, initialised from N(0, 1)."""

    def __init__(self, candidates: CandidateGenes, noise: RandomSource) -> None:
        super().__init__(candidates, noise)
        self.logits = nn.Parameter(noise.normal(len(candidates.free)))

    def _current_logits(self, x: Tensor) -> Tensor:
        return self.logits
