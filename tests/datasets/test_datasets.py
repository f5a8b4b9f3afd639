from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tiny import as_cells

from mmlab.datasets import DATASETS, get_dataset, load_cells
from mmlab.datasets.cells import Cells, make_cells
from mmlab.datasets.description import read_packaged
from mmlab.datasets.io.checks import find_problems, require_usable
from mmlab.datasets.toy_xor import simulate
from mmlab.errors import UserError
from mmlab.spec.protocol import MIN_CELLS_PER_CLASS
from mmlab.spec.trial import DataSpec

#: Fingerprints of the packaged datasets; a change means other data and other results.
FINGERPRINTS = {
    "baron_pancreas": "158effc17ed293ff108285f92ccbe872eb32497a0aa5b82ebd2183fb55b744c1",
    "citeseq": "e6ce67d409ead0e47d652b9952b7bb2f45c0c99365f242e9247786a083ce5207",
    "pbmc68k_reduced": "342d9c62738b3c2e08bc7910bd875f439b2221424e058bb436855a43fee1f773",
    "toy_xor": "607f47d939df0509b98a37261961b04744494bc6a1b9cd6fc386091545465fdf",
    "zeisel": "9ff161bc046135465145c769cb4b7fdc55f511adb4e981bf58479d5e3dbd5066",
    "zeisel_subtypes": "1d54807fdf84b1b9c6a4c495129afdc9f0f13c4c20d69c6467bb4439e178813d",
}

#: Datasets without downloads; tests/datasets/cache/test_fetch.py tests the others.
PACKAGED = sorted(name for name, dataset in DATASETS.items() if not dataset.sources)
every_dataset = pytest.mark.parametrize("name", PACKAGED)


@cache
def loaded(name: str) -> ad.AnnData:
    """The result of the dataset's own loader, cached for tests that do not modify it."""
    return DATASETS[name].load()


@cache
def loaded_cells(name: str) -> Cells:
    return load_cells(DataSpec(name=name))


# --- requirements of all datasets


def test_every_dataset_has_a_recorded_fingerprint() -> None:
    assert set(FINGERPRINTS) == set(PACKAGED)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_dataset_has_complete_metadata(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.name == name
    for text in (dataset.title, dataset.origin, dataset.license, *dataset.notes):
        assert text.strip()
        assert "\n" not in text
    assert dataset.simulated == ("simulated" in dataset.title)


@every_dataset
def test_a_dataset_has_the_declared_shape(name: str) -> None:
    dataset, adata = DATASETS[name], loaded(name)
    assert adata.shape == (dataset.n_cells, dataset.n_genes)
    assert adata.obs[dataset.label_key].nunique() == dataset.n_classes


@every_dataset
def test_a_dataset_has_raw_counts_as_csr(name: str) -> None:
    counts = loaded(name).X
    assert isinstance(counts, sp.csr_matrix)
    values = counts.data.astype(float)
    assert values.min() >= 0
    assert values.max() > 0
    np.testing.assert_array_equal(values, np.rint(values))


@every_dataset
def test_a_dataset_has_categorical_labels(name: str) -> None:
    labels = loaded(name).obs[DATASETS[name].label_key]
    assert isinstance(labels.dtype, pd.CategoricalDtype)
    assert not labels.isna().any()


@every_dataset
def test_a_dataset_passes_the_checks_of_user_files(name: str) -> None:
    assert find_problems(loaded(name), DATASETS[name].label_key) == []


@every_dataset
def test_cells_of_a_dataset_are_ready_for_a_trial(name: str) -> None:
    dataset, cells = DATASETS[name], loaded_cells(name)
    assert cells.name == name
    assert cells.adata.X.dtype == np.float32
    assert isinstance(cells.adata.X, sp.csr_matrix)
    assert list(cells.adata.obs) == [dataset.label_key]
    assert cells.classes == sorted(cells.classes)
    assert cells.y.dtype == np.int64
    assert np.bincount(cells.y, minlength=dataset.n_classes).min() >= MIN_CELLS_PER_CLASS
    assert len(np.unique(cells.genes)) == dataset.n_genes
    assert (cells.normalization, cells.simulated) == (dataset.normalization, dataset.simulated)


@every_dataset
def test_the_fingerprint_of_a_dataset_is_the_recorded_one(name: str) -> None:
    assert loaded_cells(name).fingerprint == FINGERPRINTS[name]


@every_dataset
def test_a_modified_copy_does_not_affect_the_next_load(name: str) -> None:
    first = DATASETS[name].load()
    first.X.data[:] = 1
    first.obs[DATASETS[name].label_key] = "modified"
    again = load_cells(DataSpec(name=name))
    assert again.fingerprint == FINGERPRINTS[name]


@every_dataset
def test_only_simulated_datasets_have_is_marker(name: str) -> None:
    cells = loaded_cells(name)
    assert ("is_marker" in cells.adata.var) == cells.simulated


def test_an_unknown_dataset_suggests_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"dataset 'zeissel' is not among .*'zeisel'\?"):
        get_dataset("zeissel")
    with pytest.raises(UserError, match="dataset 'zeissel' is not among"):
        load_cells(DataSpec(name="zeissel"))


# --- single datasets


def test_zeisel_subtypes_has_no_cells_without_a_subtype() -> None:
    whole, part = read_packaged("zeisel.h5ad"), loaded("zeisel_subtypes")
    kept = (whole.obs["cell_subtype"].astype(str) != "(none)").to_numpy()
    assert (~kept).sum() == 189
    assert part.n_obs == whole.n_obs - 189
    assert "(none)" not in set(part.obs["cell_subtype"].cat.categories)
    assert (whole.X[kept] != part.X).nnz == 0
    assert list(part.obs_names) == list(whole.obs_names[kept])


def test_baron_pancreas_has_the_types_and_genes_with_enough_cells() -> None:
    whole, part = read_packaged("baron_pancreas.h5ad"), loaded("baron_pancreas")
    types = whole.obs["cell_type"].astype(str).to_numpy()
    sizes = dict(zip(*np.unique(types, return_counts=True), strict=True))
    assert sizes["t_cell"] == 2
    assert sizes["schwann"] == 5
    own = whole[types != "t_cell"]
    assert list(part.obs_names) == list(own.obs_names)
    assert list(part.obs["cell_type"].cat.categories) == sorted(set(sizes) - {"t_cell"})
    counts = own.X.toarray()
    kept = np.count_nonzero(counts, axis=0) >= 10
    assert list(part.var_names) == [name.replace(".", "-") for name in own.var_names[kept]]
    assert {"INS", "GCG", "SST", "PPY", "GHRL", "HLA-B", "NKX2-2"} <= set(part.var_names)
    np.testing.assert_array_equal(part.X.toarray(), counts[:, kept])


def test_zeisel_has_the_packaged_counts() -> None:
    assert (loaded("zeisel").X != read_packaged("zeisel.h5ad").X).nnz == 0


def test_pbmc68k_counts_reproduce_the_log_values_of_scanpy() -> None:
    import scanpy as sc

    source = sc.datasets.pbmc68k_reduced()
    counts = loaded("pbmc68k_reduced").X
    published = source.raw.X.tocsr()
    assert counts.nnz == published.nnz
    per_cell = source.obs["n_counts"].to_numpy(dtype=float)
    again = np.log1p(counts.toarray() / per_cell[:, None] * 1e4)
    # scanpy's file has three decimals; an error of one count would be seven times larger.
    np.testing.assert_allclose(again, published.toarray(), rtol=0, atol=5.01e-4)
    assert list(loaded("pbmc68k_reduced").var_names) == list(source.raw.var_names)
    labels = loaded("pbmc68k_reduced").obs["bulk_labels"].astype(str)
    assert list(labels) == list(source.obs["bulk_labels"].astype(str))


def test_toy_xor_labels_follow_the_rule() -> None:
    adata = loaded("toy_xor")
    markers = np.flatnonzero(adata.var["is_marker"])
    assert len(markers) == 3
    n_on = adata.X[:, markers].toarray().sum(axis=1)
    expected = np.where(np.isin(n_on, [0, 3]), "A", "B")
    np.testing.assert_array_equal(adata.obs["class"].astype(str), expected)


def test_in_toy_xor_no_single_gene_is_informative() -> None:
    adata = loaded("toy_xor")
    genes = adata.X.toarray()
    assert set(np.unique(genes)) == {0, 1}
    is_a = (adata.obs["class"].astype(str) == "A").to_numpy(dtype=float)
    n_on = genes.sum(axis=0)
    share_on = is_a @ genes / n_on
    share_off = is_a @ (1 - genes) / (len(genes) - n_on)
    five_standard_errors = 5 * np.sqrt(0.25 * 0.75 * 4 / len(genes))
    assert np.abs(share_on - share_off).max() < five_standard_errors
    assert is_a.mean() == pytest.approx(0.25, abs=0.03)


def test_toy_xor_depends_only_on_its_seed() -> None:
    one, same, other = (simulate(50, 20, seed) for seed in (1, 1, 2))
    assert (one.X != same.X).nnz == 0
    assert one.obs.equals(same.obs)
    assert (one.X != other.X).nnz > 0


# --- cells and their fingerprint


def test_cells_do_not_share_memory_with_their_anndata(tiny_adata: ad.AnnData) -> None:
    cells = as_cells(tiny_adata)
    before = cells.adata.X.toarray()
    tiny_adata.X.data[:] = 99
    tiny_adata.obs["cell_type"] = "modified"
    np.testing.assert_array_equal(cells.adata.X.toarray(), before)
    assert cells.classes == ["astrocyte", "microglia", "neuron"]


def test_y_indexes_the_sorted_classes(tiny_adata: ad.AnnData) -> None:
    tiny_adata.obs["cell_type"] = tiny_adata.obs["cell_type"].cat.reorder_categories(
        ["neuron", "astrocyte", "microglia"]
    )
    cells = as_cells(tiny_adata)
    assert cells.classes == ["astrocyte", "microglia", "neuron"]
    assert list(np.asarray(cells.classes)[cells.y]) == list(tiny_adata.obs["cell_type"])


def test_a_category_without_cells_is_not_a_class(tiny_adata: ad.AnnData) -> None:
    tiny_adata.obs["cell_type"] = tiny_adata.obs["cell_type"].cat.add_categories(["unseen"])
    assert "unseen" not in as_cells(tiny_adata).classes


def with_stored_zeros(counts: sp.csr_matrix) -> sp.csr_matrix:
    rows, columns = np.indices(counts.shape)
    return sp.csr_matrix(
        (counts.toarray().ravel(), (rows.ravel(), columns.ravel())), shape=counts.shape
    )


@pytest.mark.parametrize(
    "store",
    [
        lambda counts: counts.toarray(),
        lambda counts: counts.astype(np.uint16),
        lambda counts: counts.astype(np.float64),
        sp.csc_matrix,
        sp.csr_array,
        with_stored_zeros,
    ],
    ids=["dense", "uint16", "float64", "csc", "csr_array", "stored zeros"],
)
def test_the_fingerprint_does_not_depend_on_how_counts_are_stored(
    tiny_adata: ad.AnnData, tiny_cells: Cells, store: Callable[[Any], Any]
) -> None:
    tiny_adata.X = store(tiny_adata.X)
    assert as_cells(tiny_adata).fingerprint == tiny_cells.fingerprint


def test_the_fingerprint_ignores_data_that_trials_do_not_use(
    tiny_adata: ad.AnnData, tiny_cells: Cells
) -> None:
    tiny_adata.obs["donor"] = "d2"
    tiny_adata.obsm["X_pca"] = np.zeros((tiny_adata.n_obs, 2))
    tiny_adata.obs["cell_type"] = tiny_adata.obs["cell_type"].astype(str).astype(object)
    assert as_cells(tiny_adata, name="other").fingerprint == tiny_cells.fingerprint


def one_more_count(adata: ad.AnnData) -> None:
    adata.X.data[5] += 1


def another_label(adata: ad.AnnData) -> None:
    labels = adata.obs["cell_type"]
    adata.obs.iloc[0, 0] = next(c for c in labels.cat.categories if c != labels.iloc[0])


def another_class_name(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"neuron": "neurons"})


def another_gene_name(adata: ad.AnnData) -> None:
    adata.var_names = ["gene0", *adata.var_names[1:]]


@pytest.mark.parametrize(
    "change", [one_more_count, another_label, another_class_name, another_gene_name]
)
def test_the_fingerprint_depends_on_counts_genes_and_labels(
    tiny_adata: ad.AnnData, tiny_cells: Cells, change: Callable[[ad.AnnData], None]
) -> None:
    change(tiny_adata)
    assert as_cells(tiny_adata).fingerprint != tiny_cells.fingerprint


def test_the_fingerprint_depends_on_the_normalization(
    tiny_adata: ad.AnnData, tiny_cells: Cells
) -> None:
    other = make_cells(tiny_adata, "cell_type", name="tiny", normalization="l2", origin="")
    assert other.fingerprint != tiny_cells.fingerprint


# --- user files


def write(adata: ad.AnnData, folder: Path) -> str:
    path = folder / "cells.h5ad"
    adata.write_h5ad(path)
    return str(path)


def load_file(path: str, **changes: Any) -> Cells:
    settings: dict[str, Any] = {"path": path, "label_key": "cell_type"}
    return load_cells(DataSpec(**(settings | changes)))


def test_a_user_file_gives_the_same_cells(
    tiny_adata: ad.AnnData, tiny_cells: Cells, tmp_path: Path
) -> None:
    cells = load_file(write(tiny_adata, tmp_path))
    assert cells.fingerprint == tiny_cells.fingerprint
    assert (cells.name, cells.normalization) == ("cells", "total")


def test_counts_are_read_from_the_requested_layer(
    tiny_adata: ad.AnnData, tiny_cells: Cells, tmp_path: Path
) -> None:
    tiny_adata.layers["raw"] = tiny_adata.X.copy()
    tiny_adata.X = tiny_adata.X.log1p()
    path = write(tiny_adata, tmp_path)
    assert load_file(path, layer="raw").fingerprint == tiny_cells.fingerprint
    with pytest.raises(UserError, match="it looks log-normalised"):
        load_file(path)


@pytest.mark.parametrize("values", [[1, 2, 3], [True, False, True]], ids=["integers", "booleans"])
def test_labels_may_be_integers_or_booleans(tiny_adata: ad.AnnData, values: list[Any]) -> None:
    tiny_adata.obs["cell_type"] = np.resize(values, tiny_adata.n_obs)
    assert find_problems(tiny_adata, "cell_type") == []
    assert as_cells(tiny_adata).classes == sorted({str(value) for value in values})


@pytest.mark.parametrize("convert", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("profile", [[1] * 40, [0, 3] * 20])
def test_data_in_which_no_gene_varies_are_refused(
    tiny_adata: ad.AnnData, convert: Any, profile: list[int]
) -> None:
    counts = np.tile(np.array(profile, dtype=np.float32), (tiny_adata.n_obs, 1))
    tiny_adata.X = convert(counts)
    (problem,) = find_problems(tiny_adata, "cell_type")
    assert problem.startswith("no gene of X varies: all 120 cells have the same counts")
    counts[-1, -1] += 1
    tiny_adata.X = convert(counts)
    assert find_problems(tiny_adata, "cell_type") == []


def scaled(adata: ad.AnnData) -> None:
    dense = adata.X.toarray()
    adata.X = dense - dense.mean(axis=0)


def repeated_genes(adata: ad.AnnData) -> None:
    names = list(adata.var_names)
    adata.var_names = ["Actb", "Actb", *names[2:]]


def missing_labels(adata: ad.AnnData) -> None:
    adata.obs.iloc[:2, 0] = None


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
def test_all_problems_of_a_file_are_listed(tiny_adata: ad.AnnData, tmp_path: Path) -> None:
    for change in (scaled, repeated_genes, missing_labels):
        change(tiny_adata)
    path = write(tiny_adata, tmp_path)
    with pytest.raises(UserError) as caught:
        load_file(path)
    for part in (path, "negative values", "more than once", "has no label for 2 of 120"):
        assert part in str(caught.value)


def test_a_problem_in_a_layer_names_the_layer(tiny_adata: ad.AnnData) -> None:
    tiny_adata.layers["raw"] = tiny_adata.X.log1p()
    (problem,) = find_problems(tiny_adata, "cell_type", "raw")
    assert problem.startswith("layer 'raw' has")


def test_checking_and_loading_do_not_modify_the_anndata(tiny_adata: ad.AnnData) -> None:
    tiny_adata.layers["raw"] = tiny_adata.X.copy()
    before = tiny_adata.copy()
    usable, _ = require_usable(tiny_adata, "cell_type", "raw", "adata")
    cells = as_cells(usable)
    cells.adata.X.data[:] = 7
    usable.X.data.setflags(write=False)
    np.testing.assert_array_equal(tiny_adata.X.toarray(), before.X.toarray())
    np.testing.assert_array_equal(tiny_adata.layers["raw"].toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(tiny_adata.obs, before.obs)
    pd.testing.assert_frame_equal(tiny_adata.var, before.var)


def test_an_is_marker_column_of_a_user_file_is_ignored(
    tiny_adata: ad.AnnData, tmp_path: Path
) -> None:
    tiny_adata.var["is_marker"] = ["yes", "no"] * (tiny_adata.n_vars // 2)
    cells = load_file(write(tiny_adata, tmp_path))
    assert "is_marker" not in cells.adata.var
