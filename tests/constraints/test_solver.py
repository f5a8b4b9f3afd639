"""The chooser: the best panel that holds the rules, or the certainty that there is none."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmlab.constraints.solver import PanelRules, complete_ranking, solve_panel

NOTHING = np.empty(0, dtype=np.int64)


@st.composite
def problems(draw: Any) -> tuple[PanelRules, np.ndarray, int, np.ndarray]:
    """Rules over a few genes, genes to choose from in order, how many, and those held."""
    n_genes, n_types = draw(st.integers(2, 9)), draw(st.integers(0, 3))
    genes = st.lists(st.integers(-1, 3), min_size=n_genes, max_size=n_genes)
    marks = st.lists(st.booleans(), min_size=n_types * n_genes, max_size=n_types * n_genes)
    weights = st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=n_genes, max_size=n_genes)
    rules = PanelRules(
        groups=np.array(draw(genes)),
        max_per_group=draw(st.integers(1, 3)),
        marks=np.array(draw(marks), dtype=bool).reshape(n_types, n_genes),
        min_per_type=draw(st.integers(0, 2)),
        weights=np.array(draw(weights)),
    )
    order = np.array(draw(st.permutations(range(n_genes))))
    n_held = draw(st.integers(0, 2))
    included, free = order[:n_held], order[n_held:]
    return rules, free, draw(st.integers(0, len(free) + 1)), included


def counts_as(rules: PanelRules, order: np.ndarray) -> dict[int, float]:
    """What each gene costs, by the definition."""
    return {int(g): rank / rules.weights[g] for rank, g in enumerate(order, start=1)}


def holds(rules: PanelRules, panel: list[int]) -> bool:
    """Whether a panel holds the rules, by their definition."""
    groups = [rules.groups[gene] for gene in panel if rules.groups[gene] >= 0]
    few_of_each = all(groups.count(group) <= rules.max_per_group for group in groups)
    return few_of_each and all(
        sum(bool(marks[gene]) for gene in panel) >= rules.min_per_type for marks in rules.marks
    )


@given(problems())
def test_the_choice_is_the_best_of_all_panels_and_there_is_none_where_none_holds(
    problem: tuple[PanelRules, np.ndarray, int, np.ndarray],
) -> None:
    rules, order, n, included = problem
    cost = counts_as(rules, order)
    good = [
        sum(cost[gene] for gene in genes)
        for genes in combinations(order.tolist(), n)
        if holds(rules, [*included.tolist(), *genes])
    ]
    chosen = solve_panel(rules, order, n, included)
    if not good:
        assert chosen is None
        return
    assert chosen is not None
    genes = chosen.tolist()
    assert len(set(genes)) == n
    assert set(genes) <= set(order.tolist())
    assert holds(rules, [*included.tolist(), *genes])
    assert rules.satisfied_by(np.array([*included.tolist(), *genes], dtype=np.int64))
    np.testing.assert_allclose(sum(cost[gene] for gene in genes), min(good))
    assert [cost[gene] for gene in genes] == sorted(cost[gene] for gene in genes)


@given(st.permutations(range(12)), st.integers(0, 12))
def test_without_rules_the_first_genes_are_chosen(order: list[int], n: int) -> None:
    chosen = PanelRules.none(12).choose(np.array(order), n, NOTHING)
    assert chosen is not None
    assert chosen.tolist() == order[:n]


def test_a_gene_of_weight_two_counts_half_its_rank() -> None:
    rules = PanelRules.none(6)
    rules.weights[:] = [1, 1, 1, 4, 1, 0.1]
    chosen = solve_panel(rules, np.arange(6), 3, NOTHING)
    assert chosen is not None
    # Ranks 1, 2, 3, 4 / 4, 5, 60; of equal ones the better rank goes first.
    assert chosen.tolist() == [0, 3, 1]


def test_a_large_problem_is_solved_to_the_optimum() -> None:
    # Each gene marks one type or none: then whole numbers come out by a greedy choice, too, where
    # the only groups are the types.
    rng = np.random.default_rng(3)
    n_genes, n_types, k = 3000, 20, 60
    which = rng.integers(-2 * n_types, n_types, n_genes)
    marks = which == np.arange(n_types)[:, None]
    rules = PanelRules(np.full(n_genes, -1), n_genes, marks, 2, np.ones(n_genes))
    order = rng.permutation(n_genes)
    chosen = solve_panel(rules, order, k, NOTHING)
    needed = np.concatenate([order[which[order] == t][:2] for t in range(n_types)])
    rest = order[~np.isin(order, needed)][: k - len(needed)]
    assert chosen is not None
    assert set(chosen.tolist()) == {*needed.tolist(), *rest.tolist()}


def test_what_a_panel_marks() -> None:
    marks = np.array([[True, False, False], [True, True, False]])
    rules = PanelRules(np.full(3, -1), 3, marks, 1, np.ones(3))
    assert rules.marked_types(np.array([2, 1, 0])).tolist() == [-1, 1, 0]
    assert PanelRules.none(3).marked_types(np.array([2, 1])).tolist() == [-1, -1]


def test_the_order_goes_on_by_score_where_the_ranking_ends() -> None:
    scores = np.array([5.0, 1.0, 9.0, 1.0, 7.0, 8.0])
    order = complete_ranking(np.array([3, 2, 3]), scores, among=np.array([0, 1, 3, 4]))
    assert order.tolist() == [3, 4, 0, 1]
