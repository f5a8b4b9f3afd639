"""The contract that every selector satisfies, and tests of single selectors."""

from __future__ import annotations

import inspect
import multiprocessing
import random
import re
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from small_selectors import K, fit_in_spawned_process, small
from tiny import SMALL

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.nn.training import TrainingDivergedError
from mmlab.selectors import SELECTORS, Selector, default_params, get_selector, resolve_params
from mmlab.selectors.class_rankings import merge_rankings
from mmlab.selectors.markermap import MarkerMap, MarkerMapJoint
from mmlab.selectors.parameter_ranges import divergence_advice
from mmlab.selectors.scanpy_tests import ScanpyTTest
from mmlab.selectors.training_data import TrainingData
from mmlab.selectors.validation_score import validation_score

every_selector = pytest.mark.parametrize("name", sorted(SELECTORS))
every_supervised = pytest.mark.parametrize(
    "name", sorted(name for name, kind in SELECTORS.items() if kind.supervised)
)
every_unsupervised = pytest.mark.parametrize(
    "name", sorted(name for name, kind in SELECTORS.items() if not kind.supervised)
)
every_markermap = pytest.mark.parametrize(
    "name", sorted(name for name, kind in SELECTORS.items() if issubclass(kind, MarkerMap))
)


def layer_of(name: str, layers: dict[str, Any]) -> Any:
    """The matrix that a selector reads, dense and read-only."""
    layer = layers[SELECTORS[name].layer]
    dense = np.asarray(layer.toarray() if sp.issparse(layer) else layer)
    dense.setflags(write=False)
    return dense


def assert_is_a_panel(selector: Selector, n_genes: int, k: int = K) -> None:
    assert selector.panel_.dtype == np.int64
    assert selector.panel_.shape == (k,)
    assert len(set(selector.panel_.tolist())) == k
    assert 0 <= selector.panel_.min() <= selector.panel_.max() < n_genes
    assert selector.scores_.dtype == np.float64
    assert selector.scores_.shape == (n_genes,)
    assert np.isfinite(selector.scores_).all()


def assert_same_result(one: Selector, other: Selector) -> None:
    np.testing.assert_array_equal(one.panel_, other.panel_)
    np.testing.assert_array_equal(one.scores_, other.scores_)


# --- the contract of every selector


@every_selector
def test_a_selector_describes_itself(name: str) -> None:
    kind = SELECTORS[name]
    assert 0 < len(kind.summary) < 80
    assert not kind.summary.endswith(".")
    described = next(c.__doc__ or "" for c in kind.__mro__ if "Parameters\n" in (c.__doc__ or ""))
    headings = re.findall(r"^    (\w+(?:, \w+)*)$", described, flags=re.MULTILINE)
    documented = {parameter for heading in headings for parameter in heading.split(", ")}
    assert set(inspect.signature(kind).parameters) <= documented
    assert kind.layer in ("zscore", "log1p", "counts")
    assert kind.trains_in_epochs == ("max_epochs" in default_params(name))


@every_selector
def test_constructor_only_stores_its_arguments(name: str) -> None:
    # clone and set_params of scikit-learn require it.
    kind: Any = SELECTORS[name]
    values = {key: object() for key in inspect.signature(kind).parameters}
    selector = kind(**values)
    assert vars(selector) == values
    assert {"n_markers", "seed"} <= set(values)


@every_selector
@pytest.mark.parametrize("k", [1, K, 40])
def test_a_panel_has_exactly_k_distinct_genes(name: str, k: int, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    selector = small(name, k)
    assert selector.fit(x, labels) is selector
    assert_is_a_panel(selector, x.shape[1], k)


@every_selector
def test_included_genes_come_first_and_excluded_genes_are_omitted(
    name: str, layers: Any, labels: Any
) -> None:
    x = layer_of(name, layers)
    free = small(name).fit(x, labels).panel_.tolist()
    include, exclude = [39, 0], [gene for gene in free if gene not in (0, 39)][:2]
    selector = small(name).fit(x, labels, include=include, exclude=exclude)
    assert_is_a_panel(selector, x.shape[1])
    assert selector.panel_[:2].tolist() == include
    assert not set(selector.panel_.tolist()) & set(exclude)


@every_selector
def test_include_may_contain_the_whole_panel(name: str, layers: Any, labels: Any) -> None:
    include = [4, 30, 2, 11, 9, 1]
    selector = small(name).fit(layer_of(name, layers), labels, include=include)
    assert selector.panel_.tolist() == include


@every_selector
def test_exclude_may_leave_only_n_markers_genes(name: str, layers: Any, labels: Any) -> None:
    selector = small(name).fit(layer_of(name, layers), labels, exclude=range(34))
    assert_is_a_panel(selector, 40)
    assert set(selector.panel_.tolist()) == set(range(34, 40))


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"include": [40]}, "include contains 40, but gene indices go from 0 to 39"),
        ({"exclude": [-1]}, "exclude contains -1"),
        ({"include": [3, 4], "exclude": [4]}, r"genes \[4\] are both included and excluded"),
        ({"include": range(7)}, "include has 7 genes, but the panel only 6"),
        ({"exclude": range(35)}, "exclude leaves 5 of 40 genes, fewer than the 6"),
    ],
)
def test_invalid_gene_lists_raise(lists: Any, message: str, layers: Any, labels: Any) -> None:
    with pytest.raises(UserError, match=message):
        small("random").fit(layer_of("random", layers), labels, **lists)


@every_selector
def test_best_score_in_the_panel_is_the_best_of_all(name: str, layers: Any, labels: Any) -> None:
    selector = small(name).fit(layer_of(name, layers), labels)
    outside = np.setdiff1d(np.arange(40), selector.panel_)
    assert selector.scores_[selector.panel_].max() >= selector.scores_[outside].max()


@every_selector
def test_a_selector_has_the_interface_of_scikit_learn(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    selector = small(name).fit(x, labels)
    chosen = np.sort(selector.panel_)
    np.testing.assert_array_equal(selector.get_support(indices=True), chosen)
    np.testing.assert_array_equal(selector.transform(x), x[:, chosen])
    names = [f"Gene{i}" for i in range(x.shape[1])]
    np.testing.assert_array_equal(
        selector.get_feature_names_out(names), [f"Gene{i}" for i in chosen]
    )
    restored = selector.inverse_transform(selector.transform(x))
    np.testing.assert_array_equal(restored[:, chosen], x[:, chosen])


@every_selector
def test_gene_names_of_a_data_frame_are_kept(name: str, layers: Any, labels: Any) -> None:
    genes = [f"Gene{i}" for i in range(40)]
    frame = pd.DataFrame(layer_of(name, layers), columns=genes)
    selector = small(name).fit(frame, labels)
    chosen = [genes[i] for i in np.sort(selector.panel_)]
    assert list(selector.feature_names_in_) == genes
    assert list(selector.get_feature_names_out()) == chosen
    as_frame = selector.set_output(transform="pandas").transform(frame)
    assert list(as_frame.columns) == chosen
    assert_same_result(selector, small(name).fit(layer_of(name, layers), labels))


@every_selector
def test_a_selector_works_inside_a_pipeline(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    model = make_pipeline(small(name), KNeighborsClassifier())
    model.fit(x[:90], labels[:90])
    assert set(model.predict(x[90:])) <= set(labels)
    expected = small(name).fit(x[:90], labels[:90])
    np.testing.assert_array_equal(model[0].panel_, expected.panel_)
    np.testing.assert_array_equal(model[:-1].get_feature_names_out().shape, (K,))


@every_selector
def test_transform_before_fit_raises(name: str, layers: Any) -> None:
    with pytest.raises(NotFittedError):
        small(name).transform(layer_of(name, layers))


@every_selector
@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_result(
    name: str, seed: int, layers: Any, labels: Any
) -> None:
    x = layer_of(name, layers)
    one, other = (small(name, seed=seed).fit(x, labels) for _ in range(2))
    assert_same_result(one, other)
    assert_same_result(one.fit(x, labels), other)


@every_selector
def test_seed_zero_is_a_seed_of_its_own(name: str, layers: Any, labels: Any) -> None:
    """A random method with seed 0 is reproducible and differs from seed 1."""
    x = layer_of(name, layers)
    zero, one, two = (small(name, seed=seed).fit(x, labels) for seed in (0, 1, 2))
    is_random = not np.array_equal(one.scores_, two.scores_)
    assert np.array_equal(zero.scores_, one.scores_) == (not is_random)


@pytest.fixture(scope="module")
def spawned_results(layers: Any, labels: Any) -> dict[str, tuple[list[int], list[float]]]:
    """Panels and scores of all selectors, computed in a spawned process."""
    jobs = [(name, layer_of(name, layers)) for name in SELECTORS]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(fit_in_spawned_process, jobs, labels).result()


@every_selector
def test_a_spawned_process_gives_the_same_panel(
    name: str, layers: Any, labels: Any, spawned_results: Any
) -> None:
    selector = small(name).fit(layer_of(name, layers), labels)
    panel, scores = spawned_results[name]
    assert selector.panel_.tolist() == panel
    np.testing.assert_allclose(selector.scores_, scores, rtol=1e-4, atol=1e-6)


@every_selector
def test_inputs_are_not_modified(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers).copy()
    y = labels.copy()
    x_val, y_val = x[:30].copy(), y[:30].copy()
    before = [array.copy() for array in (x, y, x_val, y_val)]
    small(name).fit(x, y, X_val=x_val, y_val=y_val)
    for array, expected in zip((x, y, x_val, y_val), before, strict=True):
        np.testing.assert_array_equal(array, expected)


@every_selector
def test_read_only_inputs_are_accepted(name: str, layers: Any, labels: Any) -> None:
    # Arrays from the object store of Ray are read-only.
    arrays = [
        layer_of(name, layers),
        labels.copy(),
        layer_of(name, layers)[:30],
        labels[:30].copy(),
    ]
    for array in arrays:
        array.setflags(write=False)
    x, y, x_val, y_val = arrays
    assert_is_a_panel(small(name).fit(x, y, X_val=x_val, y_val=y_val), x.shape[1])


@every_selector
@pytest.mark.parametrize("to_sparse", [sp.csr_matrix, sp.csr_array, sp.csc_matrix])
def test_sparse_and_dense_input_agree(name: str, to_sparse: Any, layers: Any, labels: Any) -> None:
    dense = layer_of(name, layers)
    from_dense, from_sparse = (
        small(name).fit(dense, labels),
        small(name).fit(to_sparse(dense), labels),
    )
    np.testing.assert_array_equal(from_sparse.panel_, from_dense.panel_)
    np.testing.assert_allclose(from_sparse.scores_, from_dense.scores_, rtol=1e-4, atol=1e-5)
    transformed = from_sparse.transform(to_sparse(dense))
    np.testing.assert_array_equal(transformed.toarray(), from_dense.transform(dense))


@every_selector
def test_dtype_and_memory_order_do_not_matter(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    assert_same_result(small(name).fit(x, labels), small(name).fit(x.astype(np.float64), labels))
    assert_same_result(small(name).fit(x, labels), small(name).fit(np.asfortranarray(x), labels))


@every_selector
def test_a_clone_gives_the_same_result(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    fitted = small(name, seed=3).fit(x, labels)
    copy = clone(fitted)
    assert not hasattr(copy, "panel_")
    assert copy.get_params() == fitted.get_params()
    assert_same_result(copy.fit(x, labels), fitted)


@every_selector
def test_set_params_takes_effect(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    changed = small(name, seed=1).set_params(n_markers=9, seed=2).fit(x, labels)
    assert len(changed.panel_) == 9
    assert_same_result(changed, small(name, 9, seed=2).fit(x, labels))


@every_selector
def test_a_second_fit_replaces_the_first(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    refitted = small(name).fit(x[:60, :30], labels[:60]).fit(x, labels)
    assert_same_result(refitted, small(name).fit(x, labels))
    assert refitted.get_support().shape == (40,)


@every_selector
@pytest.mark.parametrize(
    "convert",
    [
        lambda y: list(y),
        lambda y: pd.Series(y, index=np.arange(len(y))[::-1]),
        lambda y: pd.Categorical(y),
        lambda y: y.astype(object),
        lambda y: np.unique(y, return_inverse=True)[1],
        lambda y: np.unique(y, return_inverse=True)[1].astype(np.int8) * 10 - 5,
    ],
    ids=["list", "series", "categorical", "objects", "integers", "other integers"],
)
def test_labels_may_be_of_any_type(name: str, convert: Any, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    assert_same_result(small(name).fit(x, convert(labels)), small(name).fit(x, labels))


@every_supervised
def test_a_supervised_method_needs_labels(name: str, layers: Any) -> None:
    with pytest.raises(UserError, match="is supervised: it needs one label per cell"):
        small(name).fit(layer_of(name, layers))


@every_supervised
def test_a_supervised_method_needs_two_classes(name: str, layers: Any) -> None:
    x = layer_of(name, layers)
    with pytest.raises(UserError, match=r"all labels are 'neuron', but \w+ needs at least two"):
        small(name).fit(x, ["neuron"] * len(x))


@every_supervised
def test_a_supervised_method_uses_the_labels(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    shuffled = np.random.default_rng(0).permutation(labels)
    one, other = small(name).fit(x, labels), small(name).fit(x, shuffled)
    assert not np.array_equal(one.scores_, other.scores_)


@every_unsupervised
def test_an_unsupervised_method_ignores_labels(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    without = small(name).fit(x, X_val=x[:30])
    assert_same_result(without, small(name).fit(x, labels, X_val=x[:30], y_val=labels[:30]))


@every_selector
def test_number_of_labels_must_equal_number_of_cells(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    with pytest.raises(UserError, match="there are 120 cells but 119 labels"):
        small(name).fit(x, labels[:-1])


@every_selector
@pytest.mark.parametrize("k", [0, -1, 41])
def test_n_markers_must_be_between_1_and_the_number_of_genes(
    name: str, k: int, layers: Any, labels: Any
) -> None:
    with pytest.raises(UserError, match=rf"n_markers is {k}, .* a number from 1 to 40"):
        small(name, k).fit(layer_of(name, layers), labels)


@every_selector
def test_validation_cells_must_match_labels_and_genes(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    with pytest.raises(UserError, match="30 validation cells but 29"):
        small(name).fit(x, labels, X_val=x[:30], y_val=labels[:29])
    with pytest.raises(UserError, match="validation cells have 39 genes"):
        small(name).fit(x, labels, X_val=x[:30, :39], y_val=labels[:30])


@every_supervised
def test_validation_cells_of_a_supervised_method_need_labels(
    name: str, layers: Any, labels: Any
) -> None:
    x = layer_of(name, layers)
    with pytest.raises(UserError, match="validation cells need labels"):
        small(name).fit(x, labels, X_val=x[:30])


def global_random_state() -> tuple[Any, ...]:
    name, keys, position, *rest = np.random.get_state()  # noqa: NPY002
    return name, keys.tolist(), position, rest, torch.get_rng_state().tolist(), random.getstate()


@every_selector
def test_global_random_state_is_neither_read_nor_changed(
    name: str, layers: Any, labels: Any
) -> None:
    x = layer_of(name, layers)
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = global_random_state()
        results.append(small(name).fit(x, labels, X_val=x[:30], y_val=labels[:30]))
        assert global_random_state() == before
    assert_same_result(*results)


@every_selector
def test_nothing_is_printed(
    name: str, layers: Any, labels: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    small(name).fit(layer_of(name, layers), labels)
    assert capfd.readouterr() == ("", "")


@every_selector
def test_fit_epochs_yields_epochs_with_a_valid_panel(name: str, layers: Any, labels: Any) -> None:
    x = layer_of(name, layers)
    selector = small(name)
    steps = selector.fit_epochs(x, labels, X_val=x[:30], y_val=labels[:30])
    seen = []
    for epoch in steps:
        seen.append(epoch.epoch)
        assert_is_a_panel(selector, x.shape[1])
        np.testing.assert_array_equal(selector.panel_, epoch.panel)
    assert seen == ([1, 2, 3] if selector.trains_in_epochs else [])
    assert_is_a_panel(selector, x.shape[1])


@every_selector
def test_a_reconstruction_has_all_genes_of_all_cells(name: str, layers: Any, labels: Any) -> None:
    selector = small(name).fit(layer_of(name, layers), labels)
    z = layers["zscore"]
    rebuilt = selector.reconstruct(z[:10])
    if rebuilt is None:
        return
    assert rebuilt.dtype == np.float32
    assert rebuilt.shape == (10, 40)
    assert np.isfinite(rebuilt).all()
    changed = z[:10].copy()
    changed[:, np.setdiff1d(np.arange(40), selector.panel_)] = 7
    np.testing.assert_allclose(selector.reconstruct(changed), rebuilt, atol=1e-6)


# --- names and parameters


def test_unknown_method_suggests_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"method 'randon' is not among .* 'random'\?"):
        get_selector("randon")


@every_selector
def test_default_params_are_those_of_the_constructor(name: str) -> None:
    kind: Any = SELECTORS[name]
    defaults = default_params(name)
    assert not {"n_markers", "seed", "device"} & set(defaults)
    selector = kind()
    assert {key: getattr(selector, key) for key in defaults} == defaults
    assert resolve_params(name, {}) == defaults
    selector.check_params()


def test_resolve_params_overrides_defaults_and_converts_types() -> None:
    resolved = resolve_params("markermap_supervised", {"kl_weight": 1, "hidden_size": 64})
    assert resolved == default_params("markermap_supervised") | {
        "kl_weight": 1.0,
        "hidden_size": 64,
    }
    assert type(resolved["kl_weight"]) is float


def test_all_invalid_parameters_are_in_one_error() -> None:
    with pytest.raises(UserError) as caught:
        resolve_params(
            "markermap_supervised",
            {"hiden_size": 3, "max_epochs": 2.5, "beta": "much", "patience": True, "seed": 1},
        )
    for part in (
        "hiden_size is not a parameter of markermap_supervised (it has: hidden_size",
        "max_epochs must be int, got 2.5",
        "beta must be float, got 'much'",
        "patience must be int, got True",
        "seed is not a parameter",
    ):
        assert part in str(caught.value)


def test_literal_parameters_accept_only_their_values() -> None:
    with pytest.raises(UserError, match="precision must be float32 or mixed, got 'half'"):
        resolve_params("markermap_joint", {"precision": "half"})
    with pytest.raises(UserError, match="precision is 'half', but must be float32 or mixed"):
        MarkerMapJoint(3, precision="half").check_params()


@pytest.mark.parametrize(
    ("precision", "fast", "rounded"),
    [("float32", True, False), ("mixed", False, False), ("mixed", True, True)],
)
def test_mixed_precision_rounds_large_products_if_faster(
    monkeypatch: pytest.MonkeyPatch,
    zscore: Any,
    labels: Any,
    precision: Any,
    fast: bool,
    rounded: bool,
) -> None:
    monkeypatch.setattr("mmlab.selectors.vae.has_fast_bfloat16", lambda device: fast)
    # A layer of 40 genes by 1000 units is large enough for rounding, one of 6 classes is not.
    params = SMALL | {"hidden_size": 1000, "max_epochs": 1, "device": "cpu"}
    selector = MarkerMapJoint(6, precision=precision, **params).fit(zscore, labels)
    network = selector.model_.network
    assert network.first.mixed_precision == network.decoder_mean[1].mixed_precision == rounded
    assert not network.classifier[1].mixed_precision


# --- scanpy_t_test


def merge_rows(names: Any, p_values: Any, k: int) -> set[int]:
    """Genes of whole rows while they fit; the last row by p-value."""
    panel: set[int] = set()
    for row, p in zip(names, p_values, strict=True):
        if len(panel | set(row)) <= k:
            panel |= set(row)
            continue
        for position in sorted(range(len(row)), key=lambda c: p[c]):
            if len(panel) < k:
                panel.add(row[position])
        break
    return panel


SCANPY_TESTS: dict[str, dict[str, Any]] = {
    "scanpy_t_test": {"method": "t-test"},
    "scanpy_t_test_overestim_var": {"method": "t-test_overestim_var"},
    "scanpy_wilcoxon": {"method": "wilcoxon"},
    "scanpy_wilcoxon_tie_correct": {"method": "wilcoxon", "tie_correct": True},
}


def ranked_by_scanpy(
    x: NDArray[np.float32], labels: NDArray[np.str_], name: str = "scanpy_t_test"
) -> pd.DataFrame:
    """Table with one row per class and gene, best gene of each class first."""
    import anndata as ad
    import scanpy as sc

    cells = ad.AnnData(x.copy())
    cells.obs["type"] = pd.Categorical(labels)
    with np.errstate(all="ignore"):
        sc.tl.rank_genes_groups(cells, "type", use_raw=False, **SCANPY_TESTS[name])
    table: pd.DataFrame = sc.get.rank_genes_groups_df(cells, None)
    return table.assign(gene=table["names"].astype(int))


def reference_panel(table: pd.DataFrame, k: int) -> set[int]:
    by_class = [rows for _, rows in table.groupby("group", observed=True)]
    genes = np.column_stack([rows["gene"] for rows in by_class]).tolist()
    p_values = np.column_stack([rows["pvals"] for rows in by_class]).tolist()
    return merge_rows(genes, p_values, k)


@pytest.mark.parametrize("k", [1, 2, 4, 9, 13, 40])
@pytest.mark.parametrize("name", SCANPY_TESTS)
def test_panel_of_a_scanpy_test_equals_the_reference(
    name: str, k: int, zscore: NDArray[np.float32], labels: NDArray[np.str_]
) -> None:
    table = ranked_by_scanpy(zscore, labels, name)
    selector = SELECTORS[name](k).fit(zscore, labels)
    assert set(selector.panel_.tolist()) == reference_panel(table, k)
    best = table.groupby("gene")["scores"].max()
    np.testing.assert_allclose(selector.scores_, best.to_numpy(), rtol=1e-5)


def test_last_row_is_ordered_by_p_value_not_by_statistic() -> None:
    # With few cells, and so few degrees of freedom, a large statistic has a large p-value.
    rng = np.random.default_rng(0)
    labels = np.repeat(["few", "many", "most"], [5, 40, 75])
    x = rng.normal(size=(120, 12)).astype(np.float32)
    x[:5, 0] += 8
    x[5:45, 1] += 1.3
    first = ranked_by_scanpy(x, labels).groupby("group", observed=True).first()
    assert first["scores"].idxmax() == "few"
    assert first["pvals"].idxmin() != "few"
    assert ScanpyTTest(1).fit(x, labels).panel_.tolist() == [first["gene"][first["pvals"].idxmin()]]


def test_t_statistic_equals_scipy(zscore: Any, labels: Any) -> None:
    from scipy.stats import ttest_ind

    statistics = [
        ttest_ind(zscore[labels == c], zscore[labels != c], equal_var=False).statistic
        for c in np.unique(labels)
    ]
    selector = ScanpyTTest(K).fit(zscore, labels)
    np.testing.assert_allclose(selector.scores_, np.max(statistics, axis=0), rtol=1e-3)


def test_t_test_finds_the_planted_markers(zscore: Any, labels: Any, true_markers: set[int]) -> None:
    assert set(ScanpyTTest(9).fit(zscore, labels).panel_.tolist()) == true_markers


def test_t_test_panels_smaller_than_the_number_of_classes_are_nested(
    zscore: Any, labels: Any
) -> None:
    three, one = (ScanpyTTest(k).fit(zscore, labels).panel_.tolist() for k in (3, 1))
    assert three[:1] == one


@pytest.mark.parametrize(
    ("ranked", "strength", "k", "panel"),
    [
        ([[1, 2], [3, 4]], [[1.0, 2.0], [1.0, 2.0]], 1, [2]),
        ([[1, 2], [3, 4]], [[1.0, 2.0], [1.0, 2.0]], 2, [2, 1]),
        ([[1, 2], [3, 4]], [[2.0, 1.0], [1.0, 2.0]], 3, [1, 2, 4]),
        ([[1, 1], [1, 2]], [[1.0, 2.0], [9.0, 2.0]], 2, [1, 2]),
        ([[5, 6], [6, 5], [5, 7]], [[1.0, 1.0], [1.0, 1.0], [9.0, 1.0]], 3, [5, 6, 7]),
        ([[3, 4], [4, 9]], [[-1.0, -5.0], [0.0, -np.inf]], 3, [3, 4, 9]),
    ],
    ids=["first row cut", "first row fits", "second row cut", "shared", "repeated", "-inf"],
)
def test_merge_rankings_on_small_examples(
    ranked: list[list[int]], strength: list[list[float]], k: int, panel: list[int]
) -> None:
    assert merge_rankings(np.array(ranked), np.array(strength), k) == panel


def test_merge_rankings_raises_if_there_are_too_few_genes() -> None:
    with pytest.raises(ValueError, match="2 distinct genes, fewer than 3"):
        merge_rankings(np.array([[1, 2], [2, 1]]), np.ones((2, 2)), 3)


# --- random


def test_random_panels_are_uniform() -> None:
    x = np.zeros((3, 10))
    n_draws = 2000
    chosen = np.zeros(10)
    for seed in range(n_draws):
        chosen[SELECTORS["random"](3, seed=seed).fit(x).panel_] += 1
    five_standard_errors = 5 * np.sqrt(0.3 * 0.7 / n_draws)
    assert np.abs(chosen / n_draws - 0.3).max() < five_standard_errors


def test_random_panels_of_one_seed_are_nested() -> None:
    x = np.zeros((3, 30))
    long = SELECTORS["random"](20, seed=4).fit(x).panel_
    np.testing.assert_array_equal(SELECTORS["random"](5, seed=4).fit(x).panel_, long[:5])


# --- markermap


@pytest.mark.parametrize("name", ["markermap_supervised", "markermap_joint"])
def test_markermap_finds_planted_markers(
    name: str, zscore: Any, labels: Any, true_markers: set[int]
) -> None:
    hits = []
    for seed in range(3):
        selector = small(name, 9, max_epochs=40, min_epochs=40, hidden_size=32, seed=seed)
        hits.append(len(true_markers & set(selector.fit(zscore, labels).panel_.tolist())))
    # A random panel has 2 of the 9 on average.
    assert np.mean(hits) >= 7


@every_markermap
def test_all_out_of_range_parameters_are_in_one_error(name: str) -> None:
    invalid = {
        "hidden_size": 0,
        "latent_size": 0,
        "max_epochs": 0,
        "min_epochs": -1,
        "patience": 0,
        "initial_temperature": 0.0,
        "final_temperature": -1.0,
        "annealing_share": 0.0,
        "learning_rate": 0.0,
        "batch_size": 1,
        "beta": 1.0,
        "kl_weight": -0.1,
    }
    selector: Any = SELECTORS[name](K)
    selector.set_params(**invalid)
    with pytest.raises(UserError) as caught:
        selector.check_params()
    for key, value in invalid.items():
        assert f"{key} is {value}, but must" in str(caught.value)


@every_markermap
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "key",
    [
        "initial_temperature",
        "final_temperature",
        "annealing_share",
        "learning_rate",
        "beta",
        "kl_weight",
    ],
)
def test_parameters_must_be_finite(name: str, key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{key} is {value}"):
        small(name, **{key: value}).check_params()


@every_markermap
def test_parameters_are_checked_before_training(name: str, zscore: Any, labels: Any) -> None:
    with pytest.raises(UserError, match="hidden_size is -3"):
        small(name, hidden_size=-3).fit(zscore, labels)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 24),
        ("latent_size", 5),
        ("initial_temperature", 9.0),
        ("final_temperature", 1.5),
        ("annealing_share", 0.2),
        ("beta", 0.5),
        ("learning_rate", 1e-4),
        ("batch_size", 50),
        ("max_epochs", 4),
        ("kl_weight", 5.0),
    ],
)
def test_every_parameter_of_markermap_has_an_effect(
    key: str, value: Any, zscore: Any, labels: Any
) -> None:
    one = small("markermap_joint").fit(zscore, labels)
    other = small("markermap_joint", **{key: value}).fit(zscore, labels)
    assert not np.array_equal(one.scores_, other.scores_)


def test_early_stopping_of_markermap_needs_validation_cells(zscore: Any, labels: Any) -> None:
    def epochs(**validation: Any) -> int:
        selector = small(
            "markermap_supervised", 40, max_epochs=12, min_epochs=2, patience=2, seed=0
        )
        return len(list(selector.fit_epochs(zscore, labels, **validation)))

    # With all genes in the panel the score is constant: best in epoch 1, stop 2 epochs later.
    assert epochs(X_val=zscore[:30], y_val=labels[:30]) == 3
    assert epochs() == 12


def test_validation_cells_in_which_no_gene_varies_cannot_score_a_panel() -> None:
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    empty = np.empty(0, dtype=np.int64)
    data = TrainingData(x, None, np.ones((4, 5), np.float32), None, None, empty, empty, None)
    score = validation_score(data, supervised=False)
    assert score is not None
    with pytest.raises(UserError, match="no gene varies over the 4 validation cells"):
        score(np.arange(2))


def test_validation_score_of_markermap_is_that_of_its_panel(
    zscore: Any, labels: Any, tiny_cells: Cells
) -> None:
    from sklearn.linear_model import LinearRegression

    fit, val = np.arange(80), np.arange(80, 120)
    supervised = small("markermap_supervised")
    for epoch in supervised.fit_epochs(
        zscore[fit], labels[fit], X_val=zscore[val], y_val=labels[val]
    ):
        x = zscore[:, epoch.panel]
        knn = KNeighborsClassifier().fit(x[fit], labels[fit])
        assert epoch.validation_score == pytest.approx(knn.score(x[val], labels[val]))
    unsupervised = small("markermap_unsupervised")
    for epoch in unsupervised.fit_epochs(zscore[fit], X_val=zscore[val]):
        x = zscore[:, epoch.panel]
        model = LinearRegression().fit(x[fit], zscore[fit])
        residual = zscore[val] - model.predict(x[val])
        spread = zscore[val] - zscore[val].mean(axis=0)
        expected = 1 - (residual**2).sum() / (spread**2).sum()
        assert epoch.validation_score == pytest.approx(expected, abs=1e-4)


def test_only_markermap_modes_with_a_decoder_reconstruct(zscore: Any, labels: Any) -> None:
    decodes = {
        name: small(name).fit(zscore, labels).reconstruct(zscore) is not None
        for name, kind in SELECTORS.items()
        if issubclass(kind, MarkerMap)
    }
    assert decodes == {
        "markermap_supervised": False,
        "markermap_unsupervised": True,
        "markermap_joint": True,
    }


def test_decoder_of_markermap_learns_to_reconstruct(zscore: Any) -> None:
    # With all genes in the panel the error is that of the network alone.
    trained = small("markermap_unsupervised", 40, max_epochs=60, min_epochs=60, hidden_size=64).fit(
        zscore
    )
    error = np.mean((trained.reconstruct(zscore) - zscore) ** 2)
    # Predicting the mean of every gene has error 1.
    assert error < 0.85


# --- controls


@pytest.mark.parametrize("markers", [[], [40], [-1, 3]])
def test_oracle_requires_valid_marker_indices(markers: list[int], zscore: Any) -> None:
    with pytest.raises(UserError, match="the oracle needs the true markers, indices from 0 to 39"):
        SELECTORS["oracle"](3, markers=markers).fit(zscore)


def test_oracle_chooses_true_markers_first(zscore: Any) -> None:
    markers = [3, 17, 31, 5]
    few = SELECTORS["oracle"](3, markers=markers, seed=1).fit(zscore)
    assert set(few.panel_.tolist()) < set(markers)
    many = SELECTORS["oracle"](6, markers=markers, seed=1).fit(zscore)
    assert set(many.panel_[:4].tolist()) == set(markers)


def test_shuffling_keeps_class_sizes_and_the_labels_of_other_cells() -> None:
    y = np.repeat(np.arange(3), [50, 30, 20])
    cells = np.arange(0, 100, 2)
    control: Any = SELECTORS["shuffled_labels"](seed=4)
    shuffled = control.shuffle(y, cells)
    assert sorted(shuffled[cells].tolist()) == sorted(y[cells].tolist())
    assert not np.array_equal(shuffled[cells], y[cells])
    np.testing.assert_array_equal(np.delete(shuffled, cells), np.delete(y, cells))


@pytest.mark.parametrize("name", ["markermap_joint", "persist_supervised"])
def test_diverged_training_names_the_changed_parameters(
    name: str, layers: dict[str, Any], labels: Any
) -> None:
    selector = small(name, 3, learning_rate=1e30)
    expected = r"^training diverged in epoch \d: the loss is (nan|inf); choose values nearer to "
    rate = default_params(name)["learning_rate"]
    changed = rf"the defaults: .*learning_rate=1e\+30 \(default {rate}\)"
    with pytest.raises(UserError, match=expected + changed):
        selector.fit(layers[selector.input_layer], labels)


def test_diverged_training_with_default_parameters_names_those_that_can_be_the_cause() -> None:
    with (
        pytest.raises(UserError) as caught,
        divergence_advice(MarkerMapJoint()),
    ):
        raise TrainingDivergedError("training diverged")
    assert str(caught.value) == (
        "training diverged; the parameters that can be the cause have their default values: try "
        "other values of learning_rate, initial_temperature, final_temperature, kl_weight, beta, "
        "or another method."
    )
