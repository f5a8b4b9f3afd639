"""Solver of panel constraints, compared with exhaustive search."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmlab.constraints.solver import PanelRules, complete_ranking, solve_panel

NO_GENES = np.empty(0, dtype=np.int64)


@st.composite
def problems(draw: Any) -> tuple[PanelRules, np.ndarray, int, np.ndarray]:
    """Rules over a few genes, ranked candidates, number of genes to select, included genes."""
    n_genes, n_types = draw(st.integers(2, 9)), draw(st.integers(0, 3))
    groups = st.lists(st.integers(-1, 3), min_size=n_genes, max_size=n_genes)
    is_marker = st.lists(st.booleans(), min_size=n_types * n_genes, max_size=n_types * n_genes)
    weights = st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=n_genes, max_size=n_genes)
    rules = PanelRules(
        groups=np.array(draw(groups)),
        max_per_group=draw(st.integers(1, 3)),
        is_marker=np.array(draw(is_marker), dtype=bool).reshape(n_types, n_genes),
        min_per_type=draw(st.integers(0, 2)),
        weights=np.array(draw(weights)),
    )
    order = np.array(draw(st.permutations(range(n_genes))))
    n_included = draw(st.integers(0, 2))
    included, candidates = order[:n_included], order[n_included:]
    return rules, candidates, draw(st.integers(0, len(candidates) + 1)), included


def weighted_ranks(rules: PanelRules, order: np.ndarray) -> dict[int, float]:
    """Return the weighted rank of each gene, by definition."""
    return {int(g): rank / rules.weights[g] for rank, g in enumerate(order, start=1)}


def is_satisfied(rules: PanelRules, panel: list[int]) -> bool:
    """Return whether a panel satisfies the rules, by definition."""
    groups = [rules.groups[gene] for gene in panel if rules.groups[gene] >= 0]
    within_limits = all(groups.count(group) <= rules.max_per_group for group in groups)
    return within_limits and all(
        sum(bool(is_marker[gene]) for gene in panel) >= rules.min_per_type
        for is_marker in rules.is_marker
    )


@given(problems())
def test_the_solution_is_optimal_and_none_exists_if_the_problem_is_infeasible(
    problem: tuple[PanelRules, np.ndarray, int, np.ndarray],
) -> None:
    rules, order, n, included = problem
    cost = weighted_ranks(rules, order)
    feasible = [
        sum(cost[gene] for gene in genes)
        for genes in combinations(order.tolist(), n)
        if is_satisfied(rules, [*included.tolist(), *genes])
    ]
    selected = solve_panel(rules, order, n, included)
    if not feasible:
        assert selected is None
        return
    assert selected is not None
    genes = selected.tolist()
    assert len(set(genes)) == n
    assert set(genes) <= set(order.tolist())
    assert is_satisfied(rules, [*included.tolist(), *genes])
    assert rules.satisfied_by(np.array([*included.tolist(), *genes], dtype=np.int64))
    np.testing.assert_allclose(sum(cost[gene] for gene in genes), min(feasible))
    assert [cost[gene] for gene in genes] == sorted(cost[gene] for gene in genes)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_without_rules_the_best_genes_are_selected(order: list[int], n: int) -> None:
    selected = solve_panel(PanelRules.unconstrained(12), np.array(order), n, NO_GENES)
    assert selected is not None
    assert selected.tolist() == order[:n]


def test_ranks_are_divided_by_the_weights() -> None:
    rules = PanelRules.unconstrained(6)
    rules.weights[:] = [1, 1, 1, 4, 1, 0.1]
    selected = solve_panel(rules, np.arange(6), 3, NO_GENES)
    assert selected is not None
    # Weighted ranks 1, 2, 3, 4 / 4, 5, 60; among equal ones the better rank comes first.
    assert selected.tolist() == [0, 3, 1]


def test_a_large_problem_is_solved_optimally() -> None:
    # Each gene is a marker of at most one type and there are no groups: then a greedy selection
    # is optimal as well.
    rng = np.random.default_rng(3)
    n_genes, n_types, k = 3000, 20, 60
    types = rng.integers(-2 * n_types, n_types, n_genes)
    is_marker = types == np.arange(n_types)[:, None]
    rules = PanelRules(np.full(n_genes, -1), n_genes, is_marker, 2, np.ones(n_genes))
    order = rng.permutation(n_genes)
    selected = solve_panel(rules, order, k, NO_GENES)
    needed = np.concatenate([order[types[order] == t][:2] for t in range(n_types)])
    rest = order[~np.isin(order, needed)][: k - len(needed)]
    assert selected is not None
    assert set(selected.tolist()) == {*needed.tolist(), *rest.tolist()}


def test_marked_types_of_a_panel() -> None:
    is_marker = np.array([[True, False, False], [True, True, False]])
    rules = PanelRules(np.full(3, -1), 3, is_marker, 1, np.ones(3))
    assert rules.marked_types(np.array([2, 1, 0])).tolist() == [-1, 1, 0]
    assert PanelRules.unconstrained(3).marked_types(np.array([2, 1])).tolist() == [-1, -1]


def test_a_ranking_is_completed_by_the_scores() -> None:
    scores = np.array([5.0, 1.0, 9.0, 1.0, 7.0, 8.0])
    order = complete_ranking(np.array([3, 2, 3]), scores, among=np.array([0, 1, 3, 4]))
    assert order.tolist() == [3, 4, 0, 1]
