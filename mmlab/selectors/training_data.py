"""The checked input of a selector: cells, labels, raw counts and constraints on the panel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmlab.constraints.solver import PanelRules, complete_ranking, solve_panel

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingData:
    """The checked input of a selector.

    Attributes
    ----------
    x, x_val
        Training and validation cells in the layer that the method reads, shape (n_cells,
        n_genes): float32, dense or CSR, or an
        :class:`~mmlab.preprocessing.expression.Expression` for a method that reads from disk.
        ``x_val`` is None without validation cells.
    y, y_val
        Class index of each cell, shape (n_cells,); None without labels.
    counts
        Raw counts of the training cells, shape of ``x``; None unless the method needs them.
    include, exclude
        Indices of the genes that are in every panel, and of those that are in none.
    rules
        Further constraints on the panel; None if there are none.
    """

    x: Any
    y: NDArray[np.int64] | None
    x_val: Any
    y_val: NDArray[np.int64] | None
    counts: Any
    include: Indices
    exclude: Indices
    rules: PanelRules | None = None

    @property
    def allowed(self) -> Indices:
        """Indices of the genes that are not excluded, ascending."""
        return np.setdiff1d(np.arange(self.x.shape[1]), self.exclude)

    @property
    def free(self) -> Indices:
        """Indices of the genes to choose from, neither included nor excluded, ascending."""
        return np.setdiff1d(self.allowed, self.include)

    def panel(self, ranking: Any, scores: NDArray[np.float64], n_markers: int) -> Indices:
        """Return the panel: the included genes, then the best of the ranking.

        With rules, the genes after the included ones are those with the smallest sum of weighted
        ranks among all sets that satisfy the rules. Genes that are not in the ranking follow it,
        ordered by score.

        Parameters
        ----------
        ranking
            Distinct gene indices, best first.
        scores
            One score per gene, shape (n_genes,), higher is better.
        n_markers
            Size of the panel.
        """
        if self.rules is None:
            genes = dict.fromkeys([*self.include.tolist(), *np.asarray(ranking).tolist()])
            return np.array(list(genes)[:n_markers], dtype=np.int64)
        order = complete_ranking(np.asarray(ranking), scores, self.free)
        chosen = solve_panel(self.rules, order, n_markers - len(self.include), self.include)
        assert chosen is not None  # check_rules_feasible has found a panel
        return np.concatenate([self.include, chosen])


def labels_or_zeros(x: Any, y: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the class indices of the cells ``x``; zeros where there are no labels."""
    return np.zeros(x.shape[0], np.int64) if y is None else y
