"""Baseline methods, each against an independent implementation of its definition."""

from __future__ import annotations

import inspect
from typing import Any

import anndata as ad
import lassonet.model
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from tiny import SMALL_OF_ALL

from mmlab.errors import UserError
from mmlab.selectors import SELECTORS, Selector
from mmlab.selectors import lassonet as lassonet_selector
from mmlab.selectors.cosg import Cosg
from mmlab.selectors.l1_logistic import L1Logistic, LogisticPath
from mmlab.selectors.lassonet import LassoNet
from mmlab.selectors.lassonet_path import first_penalty
from mmlab.selectors.mrmr import Mrmr, relevance
from mmlab.selectors.rankcorr import (
    PUBLISHED_SPARSITY,
    RankCorr,
    largest_sparsity,
    published_order,
    rank_correlations,
    support,
    union_of_supports,
)
from mmlab.selectors.scanpy_hvg import ScanpyHVG
from mmlab.selectors.smash import Smash

SUPERVISED = ("cosg", "l1_logistic", "lassonet", "mrmr", "ns_forest", "rankcorr", "smash")


def small(name: str, k: int, **params: Any) -> Selector:
    kind: Any = SELECTORS[name]
    known = inspect.signature(kind).parameters
    small_params = {key: value for key, value in SMALL_OF_ALL.items() if key in known}
    selector: Selector = kind(k, **(small_params | params))
    return selector


def dense_layer(layers: dict[str, Any], name: str) -> NDArray[np.float32]:
    layer = layers[name]
    return np.asarray(layer.toarray() if sp.issparse(layer) else layer)


@pytest.fixture
def log1p(layers: dict[str, Any]) -> NDArray[np.float32]:
    return dense_layer(layers, "log1p")


# --- all methods


@pytest.mark.parametrize("name", SUPERVISED)
def test_planted_markers_are_found(
    name: str, layers: dict[str, Any], labels: Any, true_markers: set[int]
) -> None:
    # LassoNet's small test schedule is too coarse to separate all markers from other genes.
    schedule = {"path_multiplier": 1.1, "path_epochs": 10} if name == "lassonet" else {}
    selector = small(name, 9, **schedule)
    selector.fit(layers[selector.input_layer], labels)
    assert set(selector.panel_.tolist()) == true_markers


@pytest.mark.parametrize("name", [*SUPERVISED, "scanpy_hvg"])
def test_constant_genes_do_not_fail(name: str, layers: dict[str, Any], labels: Any) -> None:
    selector = small(name, 12)
    x = dense_layer(layers, selector.input_layer).copy()
    x[:, [0, 3, 39]] = 0
    selector.fit(x, labels)
    assert len(set(selector.panel_.tolist())) == 12
    assert np.isfinite(selector.scores_).all()
    if selector.supervised:
        assert not set(selector.panel_[:6].tolist()) & {0, 3, 39}


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_class_may_have_one_cell(name: str, layers: dict[str, Any], labels: Any) -> None:
    y = labels.copy()
    y[0] = "single"
    selector = small(name, 6)
    selector.fit(layers[selector.input_layer], y)
    assert len(set(selector.panel_.tolist())) == 6


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_class_may_occur_only_in_validation_cells(
    name: str, layers: dict[str, Any], labels: Any
) -> None:
    selector = small(name, 6)
    x = dense_layer(layers, selector.input_layer)
    train = labels != "microglia"
    selector.fit(x[train], labels[train], X_val=x[:40], y_val=labels[:40])
    assert len(set(selector.panel_.tolist())) == 6


@pytest.mark.parametrize(
    ("name", "invalid"),
    [
        ("smash", {"n_trees": 0}),
        ("smash", {"n_trees": 2**31}),
        (
            "markermap_supervised",
            {"hidden_size": 20_001, "batch_size": 2**31, "latent_size": 10**9},
        ),
        ("persist_supervised", {"hidden_size": 10**9, "batch_size": 10**12}),
        ("ns_forest", {"n_trees": -1}),
        ("cosg", {"mu": -0.5}),
        ("cosg", {"mu": float("nan")}),
        ("cosg", {"mu": float("inf")}),
        (
            "lassonet",
            {
                "hidden_size": 0,
                "dense_epochs": 0,
                "path_epochs": 0,
                "M": 0.0,
                "path_multiplier": 1.0,
                "path_learning_rate": float("nan"),
            },
        ),
        ("lassonet", {"M": float("inf"), "path_multiplier": float("inf")}),
    ],
)
def test_all_out_of_range_parameters_are_in_one_error(name: str, invalid: dict[str, Any]) -> None:
    kind: Any = SELECTORS[name]
    with pytest.raises(UserError) as caught:
        kind(**invalid).check_params()
    for key, value in invalid.items():
        assert f"{key} is {value}, but must" in str(caught.value)


# --- smash


def test_smash_scores_are_the_importances_of_scikit_learn(zscore: Any, labels: Any) -> None:
    forest = RandomForestClassifier(30, class_weight="balanced", random_state=5)
    importance = forest.fit(zscore, labels).feature_importances_
    selector = Smash(7, n_trees=30, seed=5).fit(zscore, labels)
    np.testing.assert_array_equal(selector.scores_, importance)
    assert selector.panel_.tolist() == sorted(range(40), key=lambda g: -importance[g])[:7]


# --- rankcorr


def reference_support(v: NDArray[np.float64], s: float) -> set[int]:
    """Support of RankCorr by lowering the threshold step by step."""
    size = np.abs(v)
    descending = np.sort(size)[::-1]
    for threshold in descending[descending < descending[0]]:
        q = np.maximum(size - threshold, 0)
        if q.sum() / np.sqrt((q**2).sum()) > np.sqrt(s):
            return set(np.flatnonzero(size > threshold).tolist())
    return set(np.flatnonzero(size > 0).tolist())


vectors = st.lists(st.integers(-500, 500), min_size=1, max_size=25).map(np.array)
sparsities = st.sampled_from([1.3, 2.2, 3.7, 6.1, 14.9])


@given(vectors, sparsities)
def test_support_equals_the_step_by_step_algorithm(v: NDArray[np.int64], s: float) -> None:
    values = v.astype(np.float64)
    assert set(np.flatnonzero(support(values, s)).tolist()) == reference_support(values, s)


@given(vectors.filter(lambda v: len(set(np.abs(v))) == len(v) and np.any(v != 0)), sparsities)
def test_support_solves_the_convex_problem(v: NDArray[np.int64], s: float) -> None:
    # max <v, w> with ||w||_2 <= 1, ||w||_1 <= sqrt(s): soft-threshold v until it is feasible.
    size = np.abs(v).astype(np.float64)

    def excess(threshold: float) -> float:
        q = np.maximum(size - threshold, 0)
        return float(q.sum() / np.sqrt((q**2).sum()) - np.sqrt(s))

    threshold = 0.0 if excess(0) <= 0 else brentq(excess, 0, size.max() * (1 - 1e-12))
    np.testing.assert_array_equal(support(v.astype(np.float64), s), size > threshold)


@given(
    arrays(np.float32, (9, 4), elements=st.integers(-3, 3).map(float)),
    st.lists(st.integers(0, 3), min_size=9, max_size=9).filter(lambda y: len(set(y)) > 1),
)
def test_rank_correlations_equal_the_formula(x: NDArray[np.float32], y: list[int]) -> None:
    v = rank_correlations(x, np.array(y))
    classes = sorted(set(y))
    assert v.shape == (len(classes), 4)
    for c, label in enumerate(classes):
        for gene in range(4):
            ranks = rankdata(x[:, gene])
            spread = np.sqrt(np.mean((ranks - ranks.mean()) ** 2)) or 1e-7
            signs = [1 if value == label else -1 for value in y]
            expected = sum(
                t * (r - ranks.mean()) / spread for t, r in zip(signs, ranks, strict=True)
            )
            assert v[c, gene] == pytest.approx(expected, abs=1e-9)


def test_ranks_do_not_depend_on_the_chunk_size() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 1100)).astype(np.float32), np.arange(12) % 3
    np.testing.assert_allclose(
        rank_correlations(x, y)[:, 1024:], rank_correlations(x[:, 1024:], y), atol=1e-12
    )


@pytest.mark.parametrize("k", [1, 4, 9, 20, 40])
def test_rankcorr_uses_the_largest_union_that_fits(k: int, zscore: Any, labels: Any) -> None:
    v = rank_correlations(zscore, labels)
    s = largest_sparsity(v, k)
    union = union_of_supports(v, s)
    selector = RankCorr(k).fit(zscore, labels)
    if s > 1:
        assert union.sum() <= k
        assert set(np.flatnonzero(union).tolist()) <= set(selector.panel_.tolist())
    if s < 40:
        assert union_of_supports(v, s * (1 + 1e-4)).sum() > k
    expected = np.max([np.abs(row) / np.abs(row).max() for row in v], axis=0)
    np.testing.assert_allclose(selector.scores_, expected)


@pytest.mark.parametrize("k", [5, 13, 40])
def test_faithful_rankcorr_has_the_order_of_the_published_code(
    k: int, zscore: Any, labels: Any
) -> None:
    union: set[int] = set()
    for row in rank_correlations(zscore, labels):
        for gene in sorted(reference_support(row, 20.0)):
            union.add(gene)
    listed = list(union)
    panel = RankCorr(k, faithful=True).fit(zscore, labels).panel_.tolist()
    assert panel[: len(listed)] == listed[:k]
    assert len(set(panel)) == k


def test_published_order_is_the_order_of_a_python_set() -> None:
    v = np.zeros((2, 3000))
    v[0, [5, 2048, 70]] = 3, 2, 1
    v[1, [2048, 1, 4]] = 3, -2, 1
    expected: set[int] = set()
    for gene in (5, 70, 2048, 1, 4, 2048):
        expected.add(gene)
    assert published_order(v, PUBLISHED_SPARSITY) == list(expected)


# --- cosg


def reference_cosg_panel(x: Any, labels: Any, mu: float, k: int) -> set[int]:
    """Panel from the cosg package: whole rows of its ranking, then the last row by score."""
    import cosg

    cells = ad.AnnData(x.copy())
    cells.obs["type"] = pd.Categorical(labels)
    length = max(1, k // 3)
    while True:
        cosg.cosg(
            cells,
            groupby="type",
            mu=mu,
            n_genes_user=min(length, 40),
            remove_lowly_expressed=False,
        )
        names = pd.DataFrame(cells.uns["cosg"]["names"]).astype(int).to_numpy()
        scores = pd.DataFrame(cells.uns["cosg"]["scores"]).to_numpy()
        if len(set(names.ravel())) >= k:
            break
        length *= 2
    panel: set[int] = set()
    for row, score in zip(names.tolist(), scores, strict=True):
        if len(panel | set(row)) <= k:
            panel |= set(row)
            continue
        for position in np.argsort(-score):
            if len(panel) < k:
                panel.add(row[position])
        break
    return panel


@pytest.mark.parametrize("k", [1, 2, 5, 9, 16, 40])
@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_cosg_panel_equals_the_one_of_the_package(
    k: int, faithful: bool, mu: float, layers: dict[str, Any], labels: Any
) -> None:
    selector = Cosg(k, mu=mu, faithful=faithful)
    assert selector.input_layer == ("zscore" if faithful else "log1p")
    x = dense_layer(layers, selector.input_layer)
    selector.fit(x, labels)
    assert set(selector.panel_.tolist()) == reference_cosg_panel(x, labels, mu, k)


def test_cosg_score_equals_the_formula_of_the_paper(log1p: Any, labels: Any) -> None:
    mu = 0.7
    cosine = np.column_stack(
        [
            log1p[labels == c].sum(axis=0)
            / (np.linalg.norm(log1p, axis=0) * np.sqrt((labels == c).sum()))
            for c in np.unique(labels)
        ]
    )
    square = cosine**2
    expected = cosine * square / ((1 - mu) * square + mu * square.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        Cosg(5, mu=mu).fit(log1p, labels).scores_, expected.max(axis=1), rtol=1e-5
    )


# --- scanpy_hvg


@pytest.mark.parametrize("k", [1, 8, 40])
def test_hvg_panel_equals_scanpy(k: int, log1p: Any) -> None:
    import scanpy as sc

    cells = ad.AnnData(log1p.copy())
    sc.pp.highly_variable_genes(cells, flavor="seurat")
    dispersion = cells.var["dispersions_norm"].to_numpy()
    panel = ScanpyHVG(k).fit(log1p).panel_
    assert panel.tolist() == np.argsort(-dispersion, kind="stable")[:k].tolist()


def test_genes_of_equal_dispersion_are_ordered_by_index(log1p: Any) -> None:
    duplicated = np.concatenate([log1p, log1p[:, :5]], axis=1)
    panel = ScanpyHVG(45).fit(duplicated).panel_.tolist()
    assert all(panel.index(gene) < panel.index(gene + 40) for gene in range(5))


def test_genes_without_defined_dispersion_get_the_lowest_score(log1p: Any) -> None:
    x = log1p.copy()
    x[:, 7] = 0
    selector = ScanpyHVG(5).fit(x)
    assert selector.scores_[7] == selector.scores_.min()
    assert not np.ptp(ScanpyHVG(5).fit(np.zeros_like(x)).scores_)


# --- lassonet


def package_ranking(x: Any, y: Any, x_val: Any, y_val: Any, seed: int) -> list[int]:
    """Ranking from the weights that the lassonet package stores along its path."""
    from lassonet import LassoNetClassifier

    with torch.random.fork_rng():
        model = LassoNetClassifier(hidden_dims=(8,), verbose=0, torch_seed=seed)
        path = model.path(
            x, y, X_val=x_val, y_val=y_val, return_state_dicts=True, disable_lambda_warning=True
        )
    norms = [item.state_dict["skip.weight"].norm(dim=0).tolist() for item in path]
    removed_at = [
        next(i for i, norm in enumerate(norms) if norm[g] == 0) for g in range(x.shape[1])
    ]
    importance = [path[i].lambda_ for i in removed_at]
    np.testing.assert_allclose(model.feature_importances_.numpy(), importance, rtol=1e-6)
    return sorted(range(x.shape[1]), key=lambda g: (-importance[g], -norms[removed_at[g] - 1][g]))


def test_faithful_lassonet_equals_the_package(
    zscore: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without this the package applies the proximal operator about 100,000 times to find the
    # first penalty.
    monkeypatch.setattr(lassonet.model.LassoNet, "lambda_start", lambda self, M: 1.0)
    x, y = zscore[:80, :20].copy(), np.unique(labels, return_inverse=True)[1]
    x_val, y_val = zscore[80:, :20].copy(), y[80:]
    expected = package_ranking(x, y[:80], x_val, y_val, seed=3)
    selector = LassoNet(20, hidden_size=8, faithful=True, device="cpu", seed=3)
    selector.fit(x, labels[:80], X_val=x_val, y_val=labels[80:])
    assert selector.panel_.tolist() == expected


def test_lassonet_path_stops_when_k_genes_are_left(zscore: Any, labels: Any) -> None:
    long_path, short_path = (small("lassonet", k).fit(zscore, labels) for k in (3, 20))
    assert short_path.scores_.max() < long_path.scores_.max()
    # The paths agree up to the end of the shorter one.
    removed = short_path.scores_ < short_path.scores_.max()
    np.testing.assert_array_equal(long_path.scores_[removed], short_path.scores_[removed])


def test_lassonet_without_copies_gives_the_same_result(
    zscore: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []
    index = torch.Tensor.__getitem__

    def counted(self: torch.Tensor, which: Any) -> torch.Tensor:
        if self.shape == zscore.shape and isinstance(which, torch.Tensor):
            copies.append(len(which))
        return index(self, which)

    monkeypatch.setattr(torch.Tensor, "__getitem__", counted)
    in_place = small("lassonet", 6).fit(zscore, labels)
    assert copies == []
    monkeypatch.setattr(lassonet_selector, "without_copies", lambda classifier: classifier)
    copied = small("lassonet", 6).fit(zscore, labels)
    assert len(copies) > 50
    np.testing.assert_array_equal(in_place.panel_, copied.panel_)
    np.testing.assert_array_equal(in_place.scores_, copied.scores_)


@pytest.mark.parametrize("k", [1, 5, 30])
def test_genes_that_lassonet_never_removes_are_in_the_panel(
    k: int, zscore: Any, labels: Any
) -> None:
    selector = small("lassonet", k).fit(zscore, labels)
    order = selector.scores_[selector.panel_]
    assert (np.diff(order) <= 0).all()
    assert order.min() >= np.delete(selector.scores_, selector.panel_).max(initial=0)


def test_first_penalty_is_a_tenth_of_one_that_removes_a_gene() -> None:
    from lassonet.prox import prox

    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        network = lassonet.model.LassoNet(12, 7, 3)
    skip, hidden = network.skip.weight.data, network.layers[0].weight.data
    step = 0.03
    smallest = 10 * step * first_penalty(network, 4.0, step)
    for share, is_removed in ((0.999, False), (1.001, True)):
        weights, _ = prox(skip, hidden, lambda_=share * smallest, lambda_bar=0, M=4.0)
        assert bool((weights.norm(dim=0) == 0).any()) == is_removed


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 12),
        ("M", 3.0),
        ("dense_epochs", 8),
        ("path_multiplier", 1.5),
        ("path_epochs", 3),
        ("path_learning_rate", 0.02),
    ],
)
def test_every_parameter_of_lassonet_has_an_effect(
    key: str, value: Any, zscore: Any, labels: Any
) -> None:
    one = small("lassonet", 6).fit(zscore, labels)
    other = small("lassonet", 6, **{key: value}).fit(zscore, labels)
    assert not np.array_equal(one.scores_, other.scores_)


def test_faithful_lassonet_fixes_the_schedule() -> None:
    LassoNet(faithful=True, hidden_size=50, M=5.0).check_params()
    with pytest.raises(UserError) as caught:
        LassoNet(faithful=True, path_epochs=30, dense_epochs=5).check_params()
    assert "path_epochs is fixed by faithful=true" in str(caught.value)
    assert "dense_epochs is fixed by faithful=true" in str(caught.value)


def test_divergence_of_lassonet_raises(zscore: Any, labels: Any) -> None:
    expected = r"^LassoNet diverged on these data; .* defaults: path_learning_rate=1e\+20 "
    with pytest.raises(UserError, match=expected):
        small("lassonet", 3, path_learning_rate=1e20).fit(zscore, labels)


# --- l1_logistic


def solution(x: Any, y: Any, penalty: float) -> NDArray[np.float64]:
    """Coefficients of scikit-learn on all genes, without warm start."""
    model = LogisticRegression(
        l1_ratio=1, solver="saga", C=1 / (len(x) * penalty), tol=1e-5, max_iter=9000
    )
    model.random_state = 1
    return np.asarray(model.fit(x.astype(np.float64), y).coef_)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_path_equals_the_solutions_of_scikit_learn(
    n_classes: int, zscore: Any, labels: Any
) -> None:
    y = np.minimum(np.unique(labels, return_inverse=True)[1], n_classes - 1)
    path = LogisticPath(zscore, y, seed=0)
    first = path.largest_penalty
    assert not solution(zscore, y, 1.01 * first).any()
    assert np.count_nonzero(solution(zscore, y, 0.97 * first)) >= 1
    for share in (0.9, 0.6, 0.3, 0.1):
        path.advance(share * first)
        expected = solution(zscore, y, share * first)
        np.testing.assert_allclose(path.coef, expected, rtol=0.05, atol=0.02)
        clear = np.abs(expected).max(axis=0) > 0.02
        assert np.abs(path.coef).max(axis=0)[clear].min() > 0


def test_genes_are_ranked_by_entry_penalty(zscore: Any, labels: Any) -> None:
    selector = L1Logistic(12).fit(zscore, labels)
    y = np.unique(labels, return_inverse=True)[1]
    scores = selector.scores_[selector.panel_]
    assert (np.diff(scores) <= 0).all()
    for gene in selector.panel_[[0, 4, 8]]:
        # The coefficient of a gene is zero before it enters, nonzero two steps after.
        entry = selector.scores_[gene]
        assert not solution(zscore, y, entry / 0.95**1.5)[:, gene].any()
        assert solution(zscore, y, entry * 0.95**2)[:, gene].any()


# --- mrmr


@pytest.mark.parametrize("k", [1, 2, 10, 40])
def test_mrmr_equals_greedy_selection_by_the_formula(k: int, log1p: Any, labels: Any) -> None:
    f = f_classif(log1p.astype(np.float64), labels)[0]
    correlation = np.abs(np.corrcoef(log1p.astype(np.float64).T))
    chosen: list[int] = []
    while len(chosen) < k:
        values = {
            g: f[g] / (max(np.mean([correlation[g, s] for s in chosen]), 1e-3) if chosen else 1)
            for g in range(40)
            if g not in chosen
        }
        chosen.append(max(values, key=lambda g: values[g]))
    selector = Mrmr(k).fit(log1p, labels)
    assert selector.panel_.tolist() == chosen
    np.testing.assert_allclose(selector.scores_, f, rtol=1e-9)


def test_mrmr_does_not_choose_a_copy_of_a_gene(log1p: Any, labels: Any) -> None:
    best = int(Mrmr(1).fit(log1p, labels).panel_[0])
    duplicated = np.concatenate([log1p, log1p[:, [best]]], axis=1)
    assert 40 not in Mrmr(6).fit(duplicated, labels).panel_


def test_relevance_is_finite() -> None:
    y = np.array([0, 0, 1, 1, 1])
    x = np.array(
        [[2, 0, 1], [2, 0, 3], [2, 5, 4], [2, 5, 9], [2, 5, 2]],
        dtype=np.float32,
    )
    constant, separating, ordinary = relevance(x, y)
    assert constant == 0
    assert separating > ordinary == pytest.approx(f_classif(x[:, [2]], y)[0][0])


@given(st.integers(0, 10_000))
def test_genes_that_vary_only_between_classes_are_the_most_relevant(seed: int) -> None:
    # Sums of squares of such a gene cancel: their difference may be negative.
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [30, 31, 70])
    x = rng.uniform(0, 6, size=(len(y), 8)).astype(np.float32)
    x[:, :4] = rng.uniform(0, 6, size=(3, 4)).astype(np.float32)[y]
    found = relevance(x, y)
    assert np.isfinite(found).all()
    assert found[:4].min() > 2 * found[4:].max()
    np.testing.assert_allclose(found[4:], f_classif(x[:, 4:].astype(np.float64), y)[0], rtol=1e-9)
