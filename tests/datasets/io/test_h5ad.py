"""User files: search, stream and load counts; warnings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import CLASSES, simulate_cells

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.datasets.io.counts import check_file, open_counts
from mmlab.datasets.io.matrix import InvalidMatrixError, Matrix
from mmlab.datasets.io.open_matrix import open_matrix
from mmlab.datasets.io.value_scan import Occurrences, ValueScan
from mmlab.errors import UserError
from mmlab.spec.trial import DataSpec

STORED: dict[str, Callable[[Any], Any]] = {
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "dense": lambda counts: counts.toarray(),
    "int64": lambda counts: counts.astype(np.int64),
    "big endian": lambda counts: counts.toarray().astype(">f8"),
    "half": lambda counts: counts.toarray().astype(np.float16),
}
every_format = pytest.mark.parametrize("stored", STORED.values(), ids=STORED)


def write(adata: ad.AnnData, folder: Path, **options: Any) -> str:
    path = folder / "cells.h5ad"
    adata.write_h5ad(path, **options)
    return str(path)


def load(path: str, layer: str | None = None) -> Cells:
    return load_cells(DataSpec(path=path, label_key="cell_type", layer=layer))


# --- stream and load


@every_format
@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_counts_do_not_depend_on_the_storage_format(
    tiny_cells: Cells, tmp_path: Path, stored: Callable[[Any], Any], compression: Any
) -> None:
    adata = simulate_cells()
    adata.X = stored(adata.X)
    path = write(adata, tmp_path, compression=compression)
    assert load(path).fingerprint == tiny_cells.fingerprint


@every_format
@pytest.mark.parametrize("n_values", [1, 100, 1000, 10**6])
def test_blocks_contain_consecutive_whole_cells(
    tiny_cells: Cells, tmp_path: Path, stored: Callable[[Any], Any], n_values: int
) -> None:
    adata = simulate_cells()
    adata.X = stored(adata.X)
    with open_counts(write(adata, tmp_path), "cell_type") as counts:
        blocks = list(counts.blocks(n_values))
        assert counts.kept.all()
        assert counts.matrix.shape == (120, 40)
    assert {block.dtype for block in blocks} == {np.dtype(np.float32)}
    assert all(isinstance(block, sp.csr_matrix) for block in blocks)
    if n_values == 1:
        assert len(blocks) == 120
    whole = sp.vstack(blocks).tocsr()
    assert (whole != tiny_cells.adata.X).nnz == 0


def test_open_counts_has_names_and_labels(tmp_path: Path) -> None:
    adata = simulate_cells()
    with open_counts(write(adata, tmp_path), "cell_type") as counts:
        assert counts.location == "X"
        assert isinstance(counts.matrix.values, h5py.Dataset)
        assert list(counts.cell_names) == list(adata.obs_names)
        assert list(counts.gene_names) == list(adata.var_names)
        assert list(counts.labels) == list(adata.obs["cell_type"])
        assert list(counts.labels.index) == list(adata.obs_names)
        assert list(counts.labels.cat.categories) == list(CLASSES)


def test_only_counts_names_and_labels_are_read(tmp_path: Path, tiny_cells: Cells) -> None:
    adata = simulate_cells()
    adata.obsm["X_pca"] = np.ones((120, 3))
    adata.obs["score"] = np.linspace(0, 1, 120)
    path = write(adata, tmp_path, compression="gzip")
    with h5py.File(path, "r") as file:
        chunks = [
            file[name].id.get_chunk_info(0)
            for name in ("obsm/X_pca", "obs/score", "obs/donor/codes")
        ]
    content = bytearray(Path(path).read_bytes())
    for chunk in chunks:
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    Path(path).write_bytes(content)
    with pytest.raises(OSError, match="filter returned failure"):
        ad.read_h5ad(path)
    assert load(path).fingerprint == tiny_cells.fingerprint


def test_a_chunk_that_cannot_be_decompressed_is_reported(tmp_path: Path) -> None:
    path = write(simulate_cells(), tmp_path, compression="gzip")
    with h5py.File(path, "r") as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    content = bytearray(Path(path).read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    Path(path).write_bytes(content)
    with pytest.raises(UserError, match=r"/X/data cannot be read: .*filter returned failure"):
        load(path)


def test_a_missing_compression_filter_is_reported(tmp_path: Path) -> None:
    path = write(simulate_cells(), tmp_path, compression="gzip")
    content = Path(path).read_bytes()
    # HDF5 filter 1 is deflate, filter 32015 is zstd.
    deflate, zstd = (
        number.to_bytes(2, "little") + b"\x08\x00\x01\x00\x01\x00deflate" for number in (1, 32015)
    )
    assert deflate in content
    Path(path).write_bytes(content.replace(deflate, zstd))
    with pytest.raises(
        UserError, match=r"HDF5 filter 32015\) is not installed; write the file with gzip"
    ):
        load(path)


def test_high_compression_of_many_zeros_is_accepted(tmp_path: Path) -> None:
    dense = np.zeros((600, 30_000), dtype=np.float32)
    dense[:, ::1000] = 1
    dense[0, 0] = 2
    names = [f"cell_{i}" for i in range(600)]
    obs = pd.DataFrame({"cell_type": ["a", "b"] * 300}, index=names)
    adata = ad.AnnData(dense, obs=obs)
    path = write(adata, tmp_path, compression="gzip", compression_opts=1)
    with h5py.File(path) as file:
        assert file["X"].id.get_storage_size() < dense.nbytes / 40
    assert check_file(path, "cell_type").problems == []


def test_a_file_of_anndata_before_0_7_can_be_read(tmp_path: Path) -> None:
    import scanpy

    (packaged,) = (Path(scanpy.__file__).parent / "datasets").glob("*pbmc68k_reduced.h5ad")
    checked = check_file(str(packaged), "bulk_labels")
    assert (checked.n_cells, checked.n_genes, checked.n_classes) == (700, 765, 10)
    (problem,) = checked.problems
    assert problem.startswith(
        "raw counts are needed, but no location has them: X (looks scaled, smallest -2.0), raw "
        "(looks log-normalised, maximum 6.5)"
    )


def test_labels_of_anndata_0_7_can_be_read(tmp_path: Path, tiny_cells: Cells) -> None:
    path = write(simulate_cells(), tmp_path)
    with h5py.File(path, "r+") as file:
        obs = file["obs"]
        codes, categories = (obs[f"cell_type/{part}"][:] for part in ("codes", "categories"))
        del obs["cell_type"]
        obs["__categories/cell_type"] = categories
        obs["cell_type"] = codes
        obs["cell_type"].attrs["categories"] = obs["__categories/cell_type"].ref
    assert load(path).fingerprint == tiny_cells.fingerprint


@pytest.mark.parametrize("dtype", ["string", "Int64", "boolean"])
def test_labels_may_have_a_nullable_dtype_of_pandas(tmp_path: Path, dtype: str) -> None:
    adata = simulate_cells()
    values = {"string": ["a", "b", "c"], "Int64": [1, 2, 3], "boolean": [True, False]}[dtype]
    adata.obs["cell_type"] = pd.array(np.resize(np.array(values), 120).tolist(), dtype=dtype)
    with ad.settings.override(allow_write_nullable_strings=True):
        path = write(adata, tmp_path)
    assert load(path).classes == sorted(map(str, values))


# --- scan of a matrix


matrices = (
    st.integers(1, 9)
    .flatmap(
        lambda n_genes: st.lists(
            st.lists(
                st.sampled_from(
                    [0.0, 0.0, 1.0, 3.0, 0.5, -2.0, 2.0**24 + 2, np.nan, np.inf, -np.inf]
                ),
                min_size=n_genes,
                max_size=n_genes,
            ),
            min_size=1,
            max_size=9,
        )
    )
    .map(lambda rows: np.array(rows, dtype=np.float64))
)


@given(matrices, st.sampled_from(["dense", "csr", "csc"]), st.integers(1, 30))
def test_a_scan_agrees_with_numpy(values: NDArray[np.float64], kind: str, n_values: int) -> None:
    stored = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix}[kind](values)
    with pytest.MonkeyPatch.context() as patch:
        blocks = Matrix.stored_blocks
        patch.setattr(Matrix, "stored_blocks", lambda matrix: blocks(matrix, n_values))
        scan = ValueScan(open_matrix(stored))
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        masks = {
            "nan": np.isnan(values),
            "infinite": np.isinf(values),
            "negative": finite & (values < 0),
            "fractions": finite & (values != np.rint(values)),
            "too_large": finite & (values > 2**24),
        }
    for name, mask in masks.items():
        found: Occurrences = getattr(scan, name)
        assert found.count == mask.sum()
        if found.count:
            assert mask[found.first]
    assert scan.is_counts == (not any(mask.any() for mask in masks.values()))
    np.testing.assert_array_equal(scan.n_cells_by_gene, (values != 0).sum(axis=0))
    assert scan.n_nonzero == (values != 0).sum()
    if finite.all():
        np.testing.assert_allclose(scan.cell_totals, values.sum(axis=1))
        in_storage = values if kind == "dense" else values[values != 0]
        assert scan.largest == (in_storage.max() if in_storage.size else 0)


def test_an_invalid_matrix_is_rejected_with_the_reason() -> None:
    for element, message in (
        (np.zeros(3), "has 1 dimensions"),
        (sp.coo_matrix(np.eye(3)), "sparse matrix in COO format; convert it with its tocsr"),
        ([[1, 2]], "is of type list"),
    ):
        with pytest.raises(InvalidMatrixError, match=message):
            open_matrix(element)


# --- search for counts


def make_locations(**kinds: str) -> ad.AnnData:
    """Tiny cells whose locations contain counts, log values or scaled values.

    ``kinds`` maps ``X``, ``raw`` or the name of a layer to ``counts``, ``log`` or ``scaled``.
    """
    adata = simulate_cells()
    counts = adata.X
    matrices = {
        "counts": counts,
        "log": counts.log1p(),
        "scaled": counts.toarray() - counts.toarray().mean(axis=0),
    }
    if "raw" in kinds:
        adata.X = matrices[kinds.pop("raw")]
        adata.raw = adata
    adata.X = matrices[kinds.pop("X", "scaled")]
    for name, kind in kinds.items():
        adata.layers[name] = matrices[kind]
    return adata


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({"X": "counts"}, "X"),
        ({"counts": "counts", "X": "counts", "raw": "counts"}, "layer 'counts'"),
        ({"raw_counts": "counts"}, "layer 'raw_counts'"),
        ({"Counts": "counts"}, "layer 'Counts'"),
        ({"counts": "log", "count": "counts"}, "layer 'count'"),
        ({"counts": "log", "X": "counts"}, "X"),
        ({"counts": "log", "X": "scaled", "raw": "counts"}, "raw"),
        ({"spliced": "counts", "raw": "counts"}, "raw"),
    ],
)
def test_default_locations_are_searched_in_order(
    kinds: dict[str, str], expected: str, tmp_path: Path, tiny_cells: Cells
) -> None:
    path = write(make_locations(**kinds), tmp_path)
    assert check_file(path, "cell_type").counts_in == expected
    cells = load(path)
    assert cells.fingerprint == tiny_cells.fingerprint
    assert cells.origin == f"file {path}, counts in {expected}"


def test_counts_in_raw_have_the_genes_of_raw(tmp_path: Path, tiny_cells: Cells) -> None:
    adata = simulate_cells()
    adata.raw = adata
    adata.X = adata.X.log1p()
    path = write(adata[:, :10].copy(), tmp_path)
    assert load(path).fingerprint == tiny_cells.fingerprint


@pytest.mark.parametrize("layer", ["X", "raw", "mine"])
def test_only_the_requested_location_is_used(layer: str, tmp_path: Path) -> None:
    for kind, is_counts in (("counts", True), ("log", False)):
        kinds = {"X": "log", "raw": "log", "mine": "log", "counts": "counts", layer: kind}
        path = write(make_locations(**kinds), tmp_path)
        checked = check_file(path, "cell_type", layer)
        title = layer if layer != "mine" else "layer 'mine'"
        assert (checked.counts_in == title) is is_counts
        if not is_counts:
            assert checked.problems[0].startswith(f"{title} has ")
            assert "it looks log-normalised" in checked.problems[0]
            assert checked.warnings == []


def test_a_layer_with_counts_and_another_name_is_suggested(tmp_path: Path) -> None:
    path = write(make_locations(X="log", raw="scaled", umis="counts", norm="log"), tmp_path)
    (problem,) = check_file(path, "cell_type").problems
    assert problem.startswith("raw counts are needed, but no location has them: X (looks log-")
    assert problem.endswith("; layer 'umis' looks like counts: pass --layer umis")


# --- warnings


def few_cells(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = ["rare"] * 6 + ["common"] * 114


def missing_as_text(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = ["nan"] * 20 + ["neuron"] * 50 + ["glia"] * 50


def trailing_space(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = ["neuron "] * 60 + ["glia"] * 60


def similar_classes(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = ["T cell"] * 40 + ["t-Cell"] * 40 + ["B cell"] * 40


def names_differing_in_case(adata: ad.AnnData) -> None:
    adata.var_names = ["Actb", "ACTB", *adata.var_names[2:]]


def ensembl_identifiers(adata: ad.AnnData) -> None:
    adata.var["gene_symbols"] = list(adata.var_names)
    adata.var_names = [f"ENSMUSG{i:011d}.2" for i in range(adata.n_vars)]


def low_total_counts(adata: ad.AnnData) -> None:
    counts = adata.X.toarray()
    counts[5], counts[5, 0] = 0, 3
    adata.X = sp.csr_matrix(counts)


def high_total_counts(adata: ad.AnnData) -> None:
    counts = adata.X.toarray()
    counts[5] += 1000
    adata.X = sp.csr_matrix(counts)


def read_counts(adata: ad.AnnData) -> None:
    adata.X.data[:] *= 60_000


def binarised(adata: ad.AnnData) -> None:
    adata.X = (adata.X > 0).astype(np.float32)


def dense_with_many_zeros(adata: ad.AnnData) -> None:
    counts = adata.X.toarray()
    counts[:, 3:] = np.where(counts[:, 3:] > 10, counts[:, 3:], 0)
    counts[:, 0] = 1
    adata.X = counts


def log_values_in_the_layer_counts(adata: ad.AnnData) -> None:
    adata.layers["counts"] = adata.X.log1p()


def more_genes_in_raw(adata: ad.AnnData) -> ad.AnnData:
    adata.raw = adata
    return adata[:, :30].copy()


WARNINGS: dict[Callable[[ad.AnnData], ad.AnnData | None], str] = {
    few_cells: "cell types of obs['cell_type'] with fewer than 10 cells, of which one or two are "
    "test cells: 'rare' 6",
    missing_as_text: "20 cells of obs['cell_type'] have the label 'nan': it is treated as a type",
    trailing_space: "names of types that begin or end with a space: 1, first 'neuron '",
    similar_classes: "names of types that differ from another one only in case, spaces or",
    names_differing_in_case: "1 gene names differ from another one only in case, first 'Actb'",
    ensembl_identifiers: "genes are named by Ensembl identifiers, so panels will list identifiers; "
    "var['gene_symbols'] seems to contain the symbols",
    low_total_counts: "1 cells have less than a twentieth of the counts of the median cell (",
    high_total_counts: "1 cells have more than twenty times the counts of the median cell (",
    read_counts: "the largest count is ",
    binarised: "X has only the values 0 and 1: were the counts binarised?",
    dense_with_many_zeros: "X is dense, but 8",
    log_values_in_the_layer_counts: "layer 'counts' is not used: layer 'counts' has ",
    more_genes_in_raw: "X has 30 genes, raw has 40: only the 30 genes can be chosen",
}


@pytest.mark.parametrize(("change", "start"), WARNINGS.items(), ids=[c.__name__ for c in WARNINGS])
def test_unusual_properties_give_a_warning_and_no_problem(
    change: Callable[[ad.AnnData], ad.AnnData | None], start: str, tmp_path: Path
) -> None:
    adata = simulate_cells()
    changed = change(adata)
    checked = check_file(write(adata if changed is None else changed, tmp_path), "cell_type")
    assert checked.problems == []
    assert any(warning.startswith(start) for warning in checked.warnings), checked.warnings
    assert all("\n" not in warning for warning in checked.warnings)


def test_cells_without_unusual_properties_give_no_warnings(tmp_path: Path) -> None:
    assert check_file(write(simulate_cells(), tmp_path), "cell_type").warnings == []
