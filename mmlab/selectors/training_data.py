"""What selectors are fitted on, and how it is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmlab.constraints.solver import PanelRules, complete_ranking, solve_panel
from mmlab.errors import UserError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingData:
    """What a method is fitted on, checked.

    Attributes
    ----------
    x, x_val
        Cells (n_cells, n_genes), float32, dense or CSR, or an
        :class:`~mmlab.preprocessing.expression.Expression` for a method that reads from disk; ``x_val`` may be
        None.
    y, y_val
        Class indices, shape (n_cells,); None for a method that got no labels.
    counts
        Raw counts of the cells ``x``, same shape; None unless they were given.
    include, exclude
        Indices of genes that the panel must and must not hold.
    rules
        What else the panel holds; None for nothing.
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
        """Indices of the genes that a method chooses from: neither included nor excluded."""
        return np.setdiff1d(self.allowed, self.include)

    def panel(self, ranking: Any, scores: NDArray[np.float64], n_markers: int) -> Indices:
        """The panel that a ranking and a score a gene make: included genes, then the best others.

        With rules the others are those that hold them with the least sum of weighted ranks; the
        rank beyond the ranking is that of the scores.
        """
        if self.rules is None:
            genes = dict.fromkeys([*self.include.tolist(), *np.asarray(ranking).tolist()])
            return np.array(list(genes)[:n_markers], dtype=np.int64)
        order = complete_ranking(np.asarray(ranking), scores, self.free)
        chosen = solve_panel(self.rules, order, n_markers - len(self.include), self.include)
        assert chosen is not None  # whether such a panel exists has been checked
        return np.concatenate([self.include, chosen])


def check_lists(
    n_genes: int,
    n_markers: int,
    include: Sequence[int] | Indices,
    exclude: Sequence[int] | Indices,
) -> tuple[Indices, Indices]:
    """Indices of genes to include and to exclude, each once, in the order given.

    Raises
    ------
    UserError
        Indices that are no genes, contradictions, lists that leave no panel of ``n_markers``.
    """
    included, excluded = (_distinct(genes) for genes in (include, exclude))
    problems = [
        f"{name} holds {gene}, but gene indices go from 0 to {n_genes - 1}"
        for name, genes in (("include", included), ("exclude", excluded))
        for gene in genes
        if not 0 <= gene < n_genes
    ]
    both = np.intersect1d(included, excluded)
    if len(both):
        problems.append(f"genes {both.tolist()} are both included and excluded")
    if len(included) > n_markers:
        problems.append(f"include holds {len(included)} genes, but the panel only {n_markers}")
    if n_genes - len(excluded) < n_markers:
        problems.append(
            f"exclude leaves {n_genes - len(excluded)} of {n_genes} genes, fewer than the "
            f"{n_markers} of the panel"
        )
    if problems:
        raise UserError("; ".join(problems) + ".")
    return included, excluded


def check_rules(
    rules: PanelRules | None, n_genes: int, n_markers: int, include: Indices, exclude: Indices
) -> None:
    """Raise ``UserError`` where no panel of ``n_markers`` genes holds the rules."""
    if rules is None:
        return
    if len(rules.groups) != n_genes:
        raise UserError(f"the rules are about {len(rules.groups)} genes, the cells have {n_genes}.")
    free = np.setdiff1d(np.arange(n_genes), [*include, *exclude])
    if solve_panel(rules, free, n_markers - len(include), include) is None:
        raise UserError(f"no panel of {n_markers} genes holds all rules.")


def _distinct(genes: Sequence[int] | Indices) -> Indices:
    """Gene indices in the order given, each once."""
    return np.array(list(dict.fromkeys(int(gene) for gene in genes)), dtype=np.int64)


def one_sparse_class(X: Any) -> Any:
    """Scanpy 1.11 knows scipy's sparse matrices, not its sparse arrays."""
    return sp.csr_matrix(X) if hasattr(X, "tocsr") else X
