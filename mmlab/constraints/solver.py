"""The panel that holds a designer's constraints and departs least from a method's ranking."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

Indices = NDArray[np.int64]

#: How HiGHS ends: an optimum, or the proof that there is none.
_OPTIMAL, _INFEASIBLE = 0, 2


@dataclass(frozen=True)
class PanelRules:
    """Constraints on a panel, in indices of genes; :class:`mmlab.spec.constraints.Constraints` names them.

    Genes that no panel may hold, for whatever reason, are not among the genes to choose from.

    Attributes
    ----------
    groups
        Group of each gene, int64 of shape (n_genes,); -1 for a gene of none.
    max_per_group
        Most genes of a group.
    marks
        Which type a gene marks, bool of shape (n_types, n_genes).
    min_per_type
        Fewest genes that mark a type, for every type.
    weights
        Priority of each gene, above 0, float64 of shape (n_genes,).
    """

    groups: Indices
    max_per_group: int
    marks: NDArray[np.bool_]
    min_per_type: int
    weights: NDArray[np.float64]

    @classmethod
    def none(cls, n_genes: int) -> PanelRules:
        """Rules that any panel holds: for whoever adds some."""
        return cls(
            groups=np.full(n_genes, -1),
            max_per_group=n_genes,
            marks=np.zeros((0, n_genes), dtype=bool),
            min_per_type=0,
            weights=np.ones(n_genes),
        )

    def satisfied_by(self, panel: Indices) -> bool:
        """Whether a panel of distinct genes holds them."""
        marking = self.marks[:, panel].sum(axis=1)
        return bool((self._remaining(panel) >= 0).all() and (marking >= self.min_per_type).all())

    def marked_types(self, panel: Indices) -> Indices:
        """The first type that each gene of a panel marks, -1 for a gene that marks none."""
        marks = self.marks[:, panel]
        first = marks.argmax(axis=0) if len(marks) else np.zeros_like(panel)
        return np.where(marks.any(axis=0), first, -1)

    def _remaining(self, included: Indices) -> Indices:
        """How many more genes each group may have beside those held."""
        groups = self.groups[included]
        sizes = np.bincount(groups[groups >= 0], minlength=self.groups.max(initial=-1) + 1)
        return np.asarray(self.max_per_group - sizes)

    @cached_property
    def _marking(self) -> Indices:
        """Equal for genes that mark the same types, int64 of shape (n_genes,)."""
        if not len(self.marks):
            return np.zeros_like(self.groups)
        return np.unique(np.packbits(self.marks, axis=0), axis=1, return_inverse=True)[1].ravel()

    def _eligible(self, order: Indices, n: int, included: Indices) -> Indices:
        """Positions in ``order`` of genes that a least sum may need, ascending.

        Of genes that mark the same types, and are in the same group, those beyond the room in the
        group are not needed. Of the remaining ones that mark the same types the first n are
        enough: for one beyond, one of these can stand in, because each of the other n - 1 genes
        of a panel keeps out at most one of them, as itself or by its part in filling a group.
        """
        room = np.append(self._remaining(included), n)[self.groups[order]]
        kinds = (self.groups + 1) * (self._marking.max(initial=0) + 1) + self._marking
        within = np.flatnonzero(_places(kinds[order]) < room)
        return within[_places(self._marking[order[within]]) < n]

    def _constraints(self, order: Indices, n: int, included: Indices) -> LinearConstraint:
        """A row a rule over the genes of ``order``: their number, each group, each type."""
        grouped = np.flatnonzero(self.groups[order] >= 0)
        known, group = np.unique(self.groups[order[grouped]], return_inverse=True)
        shape = (len(known), len(order))
        in_group = sp.csr_array((np.ones(len(grouped)), (group, grouped)), shape=shape)
        lacking = self.min_per_type - self.marks[:, included].sum(axis=1)
        marks = sp.csr_array(self.marks[:, order].astype(np.float64))
        rows = sp.vstack([sp.csr_array(np.ones((1, len(order)))), in_group, marks])
        low = np.concatenate([[n], np.zeros(len(known)), lacking])
        high = np.concatenate([[n], self._remaining(included)[known], np.full(len(lacking), n)])
        return LinearConstraint(rows, low, high)


def solve_panel(rules: PanelRules, order: Indices, n: int, included: Indices) -> Indices | None:
    """The ``n`` genes that hold the rules with the least sum of weighted ranks.

    A gene of weight w at rank r (from 1) counts as r / w. The least sum is found exactly, as a
    mixed integer program, up to the tolerances of HiGHS; the n genes that count least are
    taken without it where they hold the rules.

    Parameters
    ----------
    rules
        The constraints.
    order
        Genes to choose from, distinct, best first.
    n
        How many.
    included
        Genes that the panel has already; they count towards the rules.

    Returns
    -------
    int64 of shape (n,), the least weighted rank first; None if no such genes exist.
    """
    cost = np.arange(1, len(order) + 1) / rules.weights[order]
    by_cost = np.argsort(cost, kind="stable")
    order, cost = order[by_cost], cost[by_cost]
    if len(order) >= n and rules.satisfied_by(np.concatenate([included, order[:n]])):
        return order[:n]
    eligible = rules._eligible(order, n, included)
    if len(eligible) < n or not n or (rules._remaining(included) < 0).any():
        return None
    order, cost = order[eligible], cost[eligible]
    taken = _least(cost, rules._constraints(order, n, included))
    return None if taken is None else order[taken]


def _places(kinds: Indices) -> Indices:
    """Place of each element, from 0, among the equal ones before it."""
    _, kinds, sizes = np.unique(kinds, return_inverse=True, return_counts=True)
    places = np.empty(len(kinds), dtype=np.int64)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    places[np.argsort(kinds, kind="stable")] = np.arange(len(kinds)) - starts
    return places


def _least(cost: NDArray[np.float64], rules: LinearConstraint) -> NDArray[np.bool_] | None:
    """Which genes to take for the least sum of costs; None where none hold the rules."""
    found = milp(
        cost,
        integrality=np.ones(len(cost), dtype=np.int64),
        bounds=Bounds(0, 1),
        constraints=rules,
        options={"mip_rel_gap": 0},
    )
    if found.status == _INFEASIBLE:
        return None
    if found.status != _OPTIMAL:
        raise RuntimeError(f"HiGHS ended without an answer: {found.message}")
    return np.asarray(found.x) > 0.5


def complete_ranking(ranking: Indices, scores: NDArray[np.float64], among: Indices) -> Indices:
    """The genes ``among`` whom a method chooses, all of them, best first.

    Those of its ranking come first, each once; the others follow by their scores, of equal ones
    the lower index first.
    """
    rest = among[np.argsort(-scores[among], kind="stable")]
    order = np.array(list(dict.fromkeys([*ranking.tolist(), *rest.tolist()])), dtype=np.int64)
    return order[np.isin(order, among)]
