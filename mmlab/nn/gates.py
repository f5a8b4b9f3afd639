"""Who proposes the panel: a module that shows a network only the genes that it would choose."""

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
from mmlab.nn.layers import Linear, RandomSource, columns, hidden
from mmlab.nn.relaxed_top_k import relaxed_top_k


@dataclass(frozen=True)
class CandidateGenes:
    """What a panel is chosen from.

    Attributes
    ----------
    n_genes, n_markers
        Genes of the data and of the panel.
    include
        Indices of genes that are in every panel.
    free
        Indices of the genes that the others are chosen from, ascending.
    rules
        What a panel holds beside, one entry a model of the pack; empty where none holds any. A
        soft panel need not hold them, every hard one does.
    """

    n_genes: int
    n_markers: int
    include: NDArray[np.int64]
    free: NDArray[np.int64]
    rules: tuple[PanelRules | None, ...] = ()

    @property
    def n_free_markers(self) -> int:
        """Genes of the panel that are left to choose."""
        return self.n_markers - len(self.include)

    @property
    def has_rules(self) -> bool:
        """Whether some model has rules."""
        return any(rules is not None for rules in self.rules)

    def single(self, model: int) -> CandidateGenes:
        """The same for one model of the pack, by itself."""
        return replace(self, rules=self.rules[model : model + 1])

    def best(
        self, ranking: NDArray[np.int64], scores: NDArray[np.float64], model: int
    ) -> NDArray[np.int64]:
        """The genes to choose, best first, from a ranking of free genes and a score a gene."""
        n, rules = self.n_free_markers, self.rules[model] if self.rules else None
        if rules is None:
            return ranking[:n]
        chosen = solve_panel(rules, complete_ranking(ranking, scores, self.free), n, self.include)
        assert chosen is not None  # whether such a panel exists has been checked
        return chosen


@dataclass(frozen=True)
class GateOutput:
    """What a proposal shows the network: ``cells`` times ``mask``, where there is one.

    Attributes
    ----------
    cells
        Shape (n_models, n_cells, n_inputs), or (n_models, n_cells, n_shown) with ``inputs``.
    mask
        Shape (n_models, n_inputs), the same for all cells; None shows the cells as they are.
    inputs
        Indices (n_models, n_shown) of the inputs that ``cells`` holds; the others are zero.
    """

    cells: Tensor
    mask: Tensor | None = None
    inputs: Tensor | None = None


class Gate(nn.Module):
    """Base of the proposals of a pack of models (:mod:`mmlab.nn.layers`).

    ``n_inputs`` is the width of what :meth:`forward` shows the network. In training mode that
    is a soft panel at a temperature, in evaluation mode the hard one.
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
        """What the network sees of cells ``x`` of shape (n_models, n_cells, n_genes).

        ``temperature`` is one for all, or has the shape (n_models, 1).
        """

    @abstractmethod
    def ranking(self, model: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Genes that a model has chosen, best first, without the included; a score a gene."""


class MaskGate(Gate):
    """A proposal that multiplies all cells by one k-hot mask.

    ``logits`` has one a free gene, shape (n_models, n_free).
    """

    logits: Tensor

    def __init__(self, candidates: CandidateGenes, noise: RandomSource) -> None:
        super().__init__(candidates, noise)
        self.n_inputs = candidates.n_genes

    @abstractmethod
    def _current_logits(self, x: Tensor) -> Tensor:
        """Logits of the free genes for a training batch, with their gradient."""

    def forward(self, x: Tensor, temperature: float | Tensor) -> GateOutput:
        """All cells under one mask, a Gumbel draw and a relaxed top-k; or the hard panel alone."""
        k = self.candidates.n_free_markers
        if not self.training:
            chosen = self._constrained_panel() if self.candidates.has_rules else self._largest(k)
            panel = torch.cat([self.include.expand(len(chosen), -1), chosen], dim=-1)
            return GateOutput(columns(x, panel), inputs=panel)
        if k == 0:
            return GateOutput(x, self._whole(torch.zeros_like(self.logits)))
        logits = self._current_logits(x)
        keys = logits + self.noise.gumbel(logits.shape[-1])
        return GateOutput(x, self._whole(relaxed_top_k(keys, k, temperature)))

    def _largest(self, k: int) -> Tensor:
        """The k free genes with the largest logits, a row a model."""
        return self.free[self.logits.detach().topk(k, dim=-1).indices]

    def _constrained_panel(self) -> Tensor:
        """The genes of :meth:`ranking`, a row a model."""
        chosen = [self.ranking(model)[0] for model in range(len(self.logits))]
        return torch.tensor(np.stack(chosen), device=self.free.device)

    def _whole(self, mask: Tensor) -> Tensor:
        """Mask of all genes from the mask of the free ones."""
        if mask.shape[-1] == self.candidates.n_genes:
            return mask
        whole = mask.new_zeros(len(mask), self.candidates.n_genes)
        return whole.index_fill(1, self.include, 1.0).index_add(1, self.free, mask)

    def ranking(self, model: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Free genes with the largest logits; scores are the logits, the lowest elsewhere."""
        logits = self.logits[model].detach().cpu().numpy().astype(np.float64)
        order = np.argsort(-logits, kind="stable")
        scores = np.full(self.candidates.n_genes, logits.min(initial=0.0))
        scores[self.candidates.free] = logits
        return self.candidates.best(self.candidates.free[order], scores, model), scores


class MarkerMapGate(MaskGate):
    """MarkerMap's proposal: a network whose batch mean moves one running logit a gene.

    Per batch ``L <- beta * stopgrad(L) + (1 - beta) * mean_batch f(x)`` (METHODS: Gregory et
    al. 2024, "MarkerMap"), then one Gumbel draw shared by the batch and a relaxed top-k of
    ``L + noise``. At evaluation the mask is the hard top-k of ``L``.

    The logits are used as a batch mean alone, and the last layer of ``f`` is linear, so that
    layer is applied to the mean of the hidden units: the same number for 1/batch of the work.
    """

    def __init__(
        self,
        candidates: CandidateGenes,
        hidden_size: int,
        beta: float | Sequence[float],
        noise: RandomSource,
    ) -> None:
        """``beta`` is one for all models, or has one a model."""
        super().__init__(candidates, noise)
        betas = torch.tensor(beta, device=noise.device).reshape(-1, 1)
        self.beta: Tensor
        self.register_buffer("beta", betas.expand(len(noise), 1).clone())
        self.first = hidden(candidates.n_genes, hidden_size, noise)
        self.second = hidden(hidden_size, hidden_size, noise)
        self.last = Linear(hidden_size, len(candidates.free), noise)
        start = torch.zeros(len(noise), len(candidates.free), device=noise.device)
        self.register_buffer("logits", start)

    def _current_logits(self, x: Tensor) -> Tensor:
        units = self.first(x)
        keep = self.noise.coins(*units.shape[1:])
        units = functional.leaky_relu(self.second(units * keep * 2))
        gate: Tensor = self.last(units.mean(dim=1, keepdim=True)).squeeze(1)
        logits = self.beta * self.logits + (1 - self.beta) * gate
        self.logits.copy_(logits.detach())
        return logits


class FreeLogitsGate(MaskGate):
    """Global-Gumbel VAE's proposal: the logits are parameters, drawn from N(0, 1)."""

    def __init__(self, candidates: CandidateGenes, noise: RandomSource) -> None:
        super().__init__(candidates, noise)
        self.logits = nn.Parameter(noise.normal(len(candidates.free)))

    def _current_logits(self, x: Tensor) -> Tensor:
        return self.logits
