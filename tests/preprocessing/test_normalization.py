"""Normalisation, z-scores and the layers of both recipes, compared with scanpy and scikit-learn."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from tiny import as_cells

from mmlab.datasets.cells import Cells, Normalization
from mmlab.preprocessing.normalization import log_normalize
from mmlab.preprocessing.recipes import prepare_layers, z_score

TRAIN = np.arange(0, 120, 2)
ALL_CELLS = slice(None)

every_normalization = pytest.mark.parametrize("normalization", ["total", "none", "l2"])


def counts_of(cells: Cells) -> sp.csr_matrix:
    counts: sp.csr_matrix = cells.adata.X
    return counts


def scanpy_log(cells: Cells) -> ad.AnnData:
    import scanpy as sc

    adata = ad.AnnData(X=counts_of(cells).copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


# --- log_normalize


def test_total_equals_scanpy(tiny_cells: Cells) -> None:
    ours = log_normalize(counts_of(tiny_cells), "total")
    np.testing.assert_allclose(ours.toarray(), scanpy_log(tiny_cells).X.toarray(), rtol=2e-6)


def test_none_does_not_scale_the_counts(tiny_cells: Cells) -> None:
    ours = log_normalize(counts_of(tiny_cells), "none").toarray()
    np.testing.assert_allclose(ours, np.log1p(counts_of(tiny_cells).toarray()), rtol=1e-6)


def test_l2_gives_every_cell_unit_length(tiny_cells: Cells) -> None:
    ours = log_normalize(counts_of(tiny_cells), "l2").toarray()
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-5)
    logs = np.log1p(counts_of(tiny_cells).toarray())
    expected = logs / np.linalg.norm(logs, axis=1, keepdims=True)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


@every_normalization
def test_log_values_are_csr_float32_of_the_same_shape(
    tiny_cells: Cells, normalization: Normalization
) -> None:
    counts = counts_of(tiny_cells)
    values = log_normalize(counts, normalization)
    assert isinstance(values, sp.csr_matrix)
    assert values.dtype == np.float32
    assert values.shape == counts.shape
    assert values.nnz == counts.nnz


@every_normalization
def test_a_cell_without_counts_stays_zero(normalization: Normalization) -> None:
    counts = sp.csr_matrix(np.array([[0, 0, 0], [1, 2, 3]], dtype=np.float32))
    values = log_normalize(counts, normalization).toarray()
    np.testing.assert_array_equal(values[0], 0)
    assert values[1].min() > 0


# --- z_score


def test_z_score_equals_scanpy(tiny_cells: Cells) -> None:
    import scanpy as sc

    adata = scanpy_log(tiny_cells)
    ours = z_score(adata.X, ALL_CELLS)
    dense = ad.AnnData(X=adata.X.toarray())
    sc.pp.scale(dense, max_value=10)
    np.testing.assert_allclose(ours, dense.X, atol=2e-5)


def test_z_score_equals_scikit_learn_with_the_sample_standard_deviation(tiny_cells: Cells) -> None:
    logs = log_normalize(counts_of(tiny_cells), "total")
    ours = z_score(logs, TRAIN)
    scaler = StandardScaler().fit(logs.toarray()[TRAIN].astype(np.float64))
    n = len(TRAIN)
    expected = scaler.transform(logs.toarray().astype(np.float64)) * np.sqrt((n - 1) / n)
    np.testing.assert_allclose(ours, np.clip(expected, -10, 10), atol=2e-5)


def test_z_scores_of_the_fitted_cells_have_mean_0_and_sample_sd_1(tiny_cells: Cells) -> None:
    ours = z_score(log_normalize(counts_of(tiny_cells), "total"), TRAIN)[TRAIN]
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(ours.std(axis=0, ddof=1), 1, atol=1e-5)


def test_z_scores_are_clipped_on_both_sides() -> None:
    values = np.zeros((400, 2), dtype=np.float32)
    values[0] = [5, -5]
    values[1:, :] += np.linspace(0, 1e-2, 399, dtype=np.float32)[:, None]
    ours = z_score(sp.csr_matrix(values), ALL_CELLS)
    assert ours[0].tolist() == [10, -10]
    assert np.abs(ours[1:]).max() < 10


def test_a_gene_without_variance_is_only_centred() -> None:
    values = np.tile(np.array([[0.1, 0.0]], dtype=np.float32), (50, 1))
    values[40:] += np.float32(0.25)
    ours = z_score(sp.csr_matrix(values), np.arange(40))
    np.testing.assert_array_equal(ours[:40], 0)
    np.testing.assert_allclose(ours[40:], 0.25, rtol=1e-6)


# --- recipes


def changed_outside(cells: Cells, kept: NDArray[np.int64]) -> Cells:
    """Return the cells with other counts for all cells that are not in ``kept``."""
    adata = cells.adata.copy()
    counts = adata.X.toarray()
    outside = np.setdiff1d(np.arange(adata.n_obs), kept)
    counts[outside] = counts[outside][:, ::-1] * 3 + 1
    adata.X = sp.csr_matrix(counts)
    return as_cells(adata)


def layers_of(cells: Cells, recipe: Any) -> Any:
    return prepare_layers(cells.adata, cells.normalization, recipe, TRAIN)


@pytest.mark.parametrize("layer", ["counts", "log1p", "zscore"])
def test_train_only_layers_of_training_cells_do_not_depend_on_other_cells(
    tiny_cells: Cells, layer: str
) -> None:
    before = layers_of(tiny_cells, "train_only")[layer]
    after = layers_of(changed_outside(tiny_cells, TRAIN), "train_only")[layer]
    difference = abs(after - before)
    assert difference[TRAIN].max() == 0
    assert difference.max() > 0


def test_train_only_layers_of_a_test_cell_do_not_depend_on_another(tiny_cells: Cells) -> None:
    all_but_the_last = np.arange(119)
    before = layers_of(tiny_cells, "train_only")["zscore"]
    after = layers_of(changed_outside(tiny_cells, all_but_the_last), "train_only")["zscore"]
    np.testing.assert_array_equal(after[:119], before[:119])
    assert (after[119] != before[119]).any()


def test_the_paper_recipe_computes_statistics_over_all_cells(tiny_cells: Cells) -> None:
    logs = log_normalize(counts_of(tiny_cells), "total")
    np.testing.assert_array_equal(
        layers_of(tiny_cells, "paper")["zscore"], z_score(logs, ALL_CELLS)
    )
    changed = layers_of(changed_outside(tiny_cells, TRAIN), "paper")["zscore"]
    assert (changed[TRAIN] != layers_of(tiny_cells, "paper")["zscore"][TRAIN]).any()


@pytest.mark.parametrize("recipe", ["train_only", "paper"])
def test_prepare_layers_returns_all_layers_and_does_not_change_its_input(
    tiny_adata: ad.AnnData, recipe: Any
) -> None:
    cells = as_cells(tiny_adata)
    before, fingerprint = cells.adata.copy(), cells.fingerprint
    prepared = prepare_layers(cells.adata, "total", recipe, TRAIN)
    assert set(prepared) == {"counts", "log1p", "zscore"}
    assert prepared["zscore"].dtype == np.float32
    assert isinstance(prepared["zscore"], np.ndarray)
    assert (cells.adata.X != before.X).nnz == 0
    assert cells.adata.obs.equals(before.obs)
    assert list(cells.adata.layers) == []
    assert as_cells(cells.adata).fingerprint == fingerprint


@every_normalization
def test_prepare_layers_accepts_read_only_counts(
    tiny_cells: Cells, normalization: Normalization
) -> None:
    assert not counts_of(tiny_cells).data.flags.writeable
    prepared = prepare_layers(tiny_cells.adata, normalization, "train_only", TRAIN)
    assert np.isfinite(prepared["zscore"]).all()
