"""Result of a trial: consensus panel, panel table, summary of the metrics."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmlab.trial.evaluate import Evaluation
from mmlab.trial.result import ReplicateResult, consensus_panel, panel_table, summarise_metrics

N_GENES = 12


def replicate(
    index: int, panel: list[int], metrics: dict[str, float] | None = None
) -> ReplicateResult:
    return ReplicateResult(
        index=index,
        panel=np.asarray(panel, dtype=np.int64),
        scores=np.linspace(0, 1, N_GENES),
        evaluation=Evaluation(metrics or {}, {}, {}, {}, {}),
        epochs=0,
        fit_seconds=0.0,
        seconds=0.0,
        device="cpu",
    )


def consensus(panels: list[list[int]]) -> tuple[list[int], list[float]]:
    replicates = [replicate(i, panel) for i, panel in enumerate(panels)]
    panel, scores = consensus_panel(replicates, N_GENES, len(panels[0]))
    return panel.tolist(), scores.tolist()


@st.composite
def several_panels(draw: st.DrawFn) -> list[list[int]]:
    k = draw(st.integers(1, N_GENES))
    one = st.permutations(range(N_GENES)).map(lambda order: list(order[:k]))
    return draw(st.lists(one, min_size=2, max_size=5))


@given(several_panels())
def test_a_consensus_has_k_distinct_genes_ranked_by_score(panels: list[list[int]]) -> None:
    panel, scores = consensus(panels)
    assert len(set(panel)) == len(panel) == len(panels[0])
    assert len(scores) == N_GENES
    assert all(0 <= score <= 1 for score in scores)
    chosen = [scores[gene] for gene in panel]
    assert chosen == sorted(chosen, reverse=True)
    assert min(chosen) >= max([scores[g] for g in range(N_GENES) if g not in panel], default=0)


@given(several_panels())
def test_a_consensus_does_not_depend_on_the_order_of_the_replicates(
    panels: list[list[int]],
) -> None:
    panel, scores = consensus(panels)
    reversed_panel, reversed_scores = consensus(panels[::-1])
    np.testing.assert_allclose(scores, reversed_scores)
    if len({round(score, 9) for score in scores}) == N_GENES:
        assert panel == reversed_panel


@given(several_panels())
def test_identical_panels_are_their_own_consensus(panels: list[list[int]]) -> None:
    panel, _ = consensus([panels[0]] * 3)
    assert panel == panels[0]


@given(several_panels())
def test_only_chosen_genes_have_a_positive_score(panels: list[list[int]]) -> None:
    _, scores = consensus(panels)
    assert {g for g, score in enumerate(scores) if score > 0} == set().union(*panels)


def test_the_borda_count_matches_a_hand_computed_example() -> None:
    # Points: gene 5 (3 + 2) / 3, gene 1 (2 + 3) / 3, genes 7 and 2 1 / 3; the score is half.
    panel, scores = consensus([[5, 1, 7], [1, 5, 2]])
    assert panel == [1, 5, 2]
    assert scores[5] == scores[1] == pytest.approx(5 / 6)
    assert scores[7] == scores[2] == pytest.approx(1 / 6)


def test_a_single_replicate_keeps_its_own_panel_and_scores() -> None:
    only = replicate(0, [9, 2, 4])
    panel, scores = consensus_panel([only], N_GENES, 3)
    assert panel.tolist() == [9, 2, 4]
    np.testing.assert_array_equal(scores, only.scores)


def test_the_panel_table_is_ranked_from_one() -> None:
    genes = np.array([f"Gene{i}" for i in range(N_GENES)])
    scores = np.arange(N_GENES, dtype=float)
    table = panel_table(np.array([7, 3]), scores, genes)
    assert list(table.columns) == ["rank", "gene", "gene_index", "score"]
    assert table.to_numpy().tolist() == [[1, "Gene7", 7, 7.0], [2, "Gene3", 3, 3.0]]


def test_a_summary_has_mean_and_sample_standard_deviation() -> None:
    values = [0.5, 0.75, 1.0]
    summary = summarise_metrics(
        [replicate(i, [0], {"knn/accuracy": v}) for i, v in enumerate(values)]
    )
    assert summary == {
        "knn/accuracy": pytest.approx(0.75),
        "knn/accuracy_std": pytest.approx(statistics.stdev(values)),
    }


def test_the_summary_of_one_replicate_has_no_standard_deviation() -> None:
    assert summarise_metrics([replicate(0, [0], {"knn/accuracy": 0.5})]) == {"knn/accuracy": 0.5}


def test_a_metric_of_a_single_replicate_has_no_standard_deviation() -> None:
    summary = summarise_metrics(
        [replicate(0, [0], {"knn/accuracy": 0.5}), replicate(1, [0], {"linear/l2": 0.25})]
    )
    assert summary == {"knn/accuracy": 0.5, "linear/l2": 0.25}
