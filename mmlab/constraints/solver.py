"""Solver: the panel that satisfies the constraints with the smallest sum of weighted ranks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

Indices = NDArray[np.int64]

#: Status codes of :func:`scipy.optimize.milp`.
_OPTIMAL, _INFEASIBLE = 0, 2


@dataclass(frozen=True)
class PanelRules:
    """Groups, limits, marker genes and weights of a panel, in terms of gene indices.

    The specification is :class:`mmlab.spec.constraints.Constraints`. Excluded genes are not part
    of the rules: they are never among the candidates.

    Attributes
    ----------
    groups
        Group of each gene, int64 of shape (n_genes,); -1 for a gene in no group.
    max_per_group
        Maximum number of genes per group.
    is_marker
        Whether a gene is a marker of a type, bool of shape (n_types, n_genes).
    min_per_type
        Minimum number of marker genes of each type.
    weights
        Priority of each gene, positive float64 of shape (n_genes,).
    """

    groups: Indices
    max_per_group: int
    is_marker: NDArray[np.bool_]
    min_per_type: int
    weights: NDArray[np.float64]

    @classmethod
    def unconstrained(cls, n_genes: int) -> PanelRules:
        """Return rules that every panel satisfies, to start from."""
        return cls(
            groups=np.full(n_genes, -1),
            max_per_group=n_genes,
            is_marker=np.zeros((0, n_genes), dtype=bool),
            min_per_type=0,
            weights=np.ones(n_genes),
        )

    def satisfied_by(self, panel: Indices) -> bool:
        """Return whether a panel of distinct genes satisfies the rules."""
        n_markers = self.is_marker[:, panel].sum(axis=1)
        within_groups = (self._group_capacity(panel) >= 0).all()
        return bool(within_groups and (n_markers >= self.min_per_type).all())

    def marked_types(self, panel: Indices) -> Indices:
        """Return the first type of which each gene of a panel is a marker, -1 for none."""
        is_marker = self.is_marker[:, panel]
        first = is_marker.argmax(axis=0) if len(is_marker) else np.zeros_like(panel)
        return np.where(is_marker.any(axis=0), first, -1)

    def _group_capacity(self, included: Indices) -> Indices:
        """Return how many more genes of each group a panel may include; negative if exceeded."""
        groups = self.groups[included]
        sizes = np.bincount(groups[groups >= 0], minlength=self.groups.max(initial=-1) + 1)
        return np.asarray(self.max_per_group - sizes)

    @cached_property
    def _marker_pattern(self) -> Indices:
        """Index of the set of types of which a gene is a marker, int64 of shape (n_genes,)."""
        if not len(self.is_marker):
            return np.zeros_like(self.groups)
        packed = np.packbits(self.is_marker, axis=0)
        return np.unique(packed, axis=1, return_inverse=True)[1].ravel()

    def _sufficient(self, order: Indices, n: int, included: Indices) -> Indices:
        """Return positions in ``order`` of genes that suffice for an optimal panel, ascending.

        Genes with the same marker pattern in the same group are interchangeable: only the first
        ones are kept, as many as the group can take. Of the remaining genes with the same marker
        pattern the first n suffice. A later gene can be replaced by one of these n, because each
        of the other n - 1 genes of a panel rules out at most one of them: it is that gene, or it
        takes a place in its group.
        """
        capacity = np.append(self._group_capacity(included), n)[self.groups[order]]
        pattern = self._marker_pattern
        kinds = (self.groups + 1) * (pattern.max(initial=0) + 1) + pattern
        kept = np.flatnonzero(_occurrence(kinds[order]) < capacity)
        return kept[_occurrence(pattern[order[kept]]) < n]

    def _linear_constraints(self, order: Indices, n: int, included: Indices) -> LinearConstraint:
        """Return one row for the number of genes, one per group and one per type.

        Columns are the genes of ``order``.
        """
        grouped = np.flatnonzero(self.groups[order] >= 0)
        known, group = np.unique(self.groups[order[grouped]], return_inverse=True)
        shape = (len(known), len(order))
        in_group = sp.csr_array((np.ones(len(grouped)), (group, grouped)), shape=shape)
        missing = self.min_per_type - self.is_marker[:, included].sum(axis=1)
        is_marker = sp.csr_array(self.is_marker[:, order].astype(np.float64))
        rows = sp.vstack([sp.csr_array(np.ones((1, len(order)))), in_group, is_marker])
        capacity = self._group_capacity(included)[known]
        low = np.concatenate([[n], np.zeros(len(known)), missing])
        high = np.concatenate([[n], capacity, np.full(len(missing), n)])
        return LinearConstraint(rows, low, high)


def solve_panel(rules: PanelRules, order: Indices, n: int, included: Indices) -> Indices | None:
    """Return the ``n`` genes that satisfy the rules with the smallest sum of weighted ranks.

    A gene of weight w at rank r (from 1) costs r / w. If the n genes of least cost satisfy the
    rules, they are returned directly. Otherwise the minimum is found exactly, up to the
    tolerances of HiGHS, as a mixed-integer linear program.

    Parameters
    ----------
    rules
        The constraints.
    order
        Indices of the candidate genes, distinct, best first.
    n
        Number of genes to select.
    included
        Indices of the genes that the panel already includes; they count towards the rules.

    Returns
    -------
    int64 gene indices of shape (n,), ascending by cost; None if no ``n`` genes satisfy the rules.
    """
    cost = np.arange(1, len(order) + 1) / rules.weights[order]
    by_cost = np.argsort(cost, kind="stable")
    order, cost = order[by_cost], cost[by_cost]
    if len(order) >= n and rules.satisfied_by(np.concatenate([included, order[:n]])):
        return order[:n]
    sufficient = rules._sufficient(order, n, included)
    if len(sufficient) < n or not n or (rules._group_capacity(included) < 0).any():
        return None
    order, cost = order[sufficient], cost[sufficient]
    selected = _minimise_cost(cost, rules._linear_constraints(order, n, included))
    return None if selected is None else order[selected]


def _occurrence(values: Indices) -> Indices:
    """Return how many earlier elements are equal to each element."""
    _, values, sizes = np.unique(values, return_inverse=True, return_counts=True)
    occurrence = np.empty(len(values), dtype=np.int64)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    occurrence[np.argsort(values, kind="stable")] = np.arange(len(values)) - starts
    return occurrence


def _minimise_cost(
    cost: NDArray[np.float64], constraints: LinearConstraint
) -> NDArray[np.bool_] | None:
    """Return the selection of least total cost as a mask; None if the problem is infeasible."""
    solution = milp(
        cost,
        integrality=np.ones(len(cost), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0},
    )
    if solution.status == _INFEASIBLE:
        return None
    if solution.status != _OPTIMAL:
        raise RuntimeError(f"HiGHS found no solution: {solution.message}")
    return np.asarray(solution.x) > 0.5


def complete_ranking(ranking: Indices, scores: NDArray[np.float64], among: Indices) -> Indices:
    """Return all genes of ``among``, best first.

    Genes of the ranking come first, each once. The others follow by descending score, with the
    lower index first among equal scores.
    """
    rest = among[np.argsort(-scores[among], kind="stable")]
    order = np.array(list(dict.fromkeys([*ranking.tolist(), *rest.tolist()])), dtype=np.int64)
    return order[np.isin(order, among)]
