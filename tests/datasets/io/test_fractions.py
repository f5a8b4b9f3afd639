"""Fractional counts are told apart from normalised values, and rounded where that is requested."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray
from tiny import simulate_cells

import mmlab
from mmlab.datasets import DATASETS, add_file, load_cells
from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE
from mmlab.datasets.cells import Cells
from mmlab.datasets.io.counts import check_file
from mmlab.datasets.io.fractions import FractionKind
from mmlab.datasets.io.open_matrix import open_matrix
from mmlab.datasets.io.value_scan import ValueScan
from mmlab.errors import UserError
from mmlab.model import fit_model
from mmlab.preprocessing.splits import replicate_split
from mmlab.spec.trial import DataSpec, FileOptions, TrialSpec

Values = NDArray[np.float64]


def simulate_counts(depth: float, *, n_cells: int = 200, n_genes: int = 300) -> NDArray[np.int64]:
    """Counts of cells of different sizes, of genes whose means differ a thousandfold."""
    rng = np.random.default_rng(3)
    sizes = rng.lognormal(0, 0.4, n_cells)
    means = rng.lognormal(0, 1.8, n_genes)
    expected = depth * sizes[:, None] * means / means.sum()
    return rng.negative_binomial(2, 2 / (2 + expected))


# --- what programs write that correct or estimate counts


def soupx(counts: Values, rng: np.random.Generator) -> Values:
    """Ambient counts are subtracted, in proportion to the soup (Young 2020)."""
    soup = counts.sum(axis=0) / counts.sum()
    ambient = 0.1 * counts.sum(axis=1, keepdims=True) * soup
    return np.maximum(counts - ambient, 0)


def decontx(counts: Values, rng: np.random.Generator) -> Values:
    """Each count is multiplied by its probability to be native (Yang 2020)."""
    return counts * rng.beta(20, 2, counts.shape)


def constant_share(counts: Values, rng: np.random.Generator) -> Values:
    return counts * 0.93


def share_of_each_cell(counts: Values, rng: np.random.Generator) -> Values:
    return counts * rng.uniform(0.7, 0.99, (len(counts), 1))


def salmon(counts: Values, rng: np.random.Generator) -> Values:
    """A tenth of the counts comes from ambiguous reads that are distributed."""
    ambiguous = rng.random(counts.shape) < 0.1
    return np.where(ambiguous & (counts > 0), counts * rng.uniform(0.3, 1.7, counts.shape), counts)


def rare_fractions(counts: Values, rng: np.random.Generator) -> Values:
    changed = counts.copy()
    changed[-1, counts[-1].argmax()] += 0.5
    return changed


FRACTIONAL = (soupx, decontx, constant_share, share_of_each_cell, salmon, rare_fractions)


# --- what normalisation makes of counts


def total(counts: Values, target: float) -> Values:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * target


def cp10k(counts: Values, rng: np.random.Generator) -> Values:
    return total(counts, 1e4)


def cpm(counts: Values, rng: np.random.Generator) -> Values:
    return total(counts, 1e6)


def median_total(counts: Values, rng: np.random.Generator) -> Values:
    return total(counts, float(np.median(counts.sum(axis=1))))


def size_factors(counts: Values, rng: np.random.Generator) -> Values:
    return counts / rng.lognormal(0, 0.5, (len(counts), 1))


def tpm(counts: Values, rng: np.random.Generator) -> Values:
    return total(counts / rng.uniform(0.3, 8, counts.shape[1]), 1e6)


def half_of_the_genes(counts: Values, rng: np.random.Generator) -> Values:
    return cp10k(counts, rng)[:, ::2]


def of_corrected_counts(counts: Values, rng: np.random.Generator) -> Values:
    return cp10k(soupx(counts, rng), rng)


NORMALIZED = (
    cp10k,
    cpm,
    median_total,
    size_factors,
    tpm,
    half_of_the_genes,
    of_corrected_counts,
)
LOGARITHMS: dict[str, Callable[[Any], Any]] = {
    "natural": np.log1p,
    "base 2": lambda values: np.log2(1 + values),
    "base 10": lambda values: np.log10(1 + values),
}


def unchanged(counts: Values, rng: np.random.Generator) -> Values:
    return counts


def kind(values: Values) -> FractionKind | None:
    """The kind of values that are stored as float32, in every format."""
    stored = values.astype(np.float32)
    kinds = {
        ValueScan(open_matrix(convert(stored))).fraction_kind
        for convert in (np.asarray, sp.csr_matrix, sp.csc_matrix)
    }
    assert len(kinds) == 1
    return kinds.pop()


depths = pytest.mark.parametrize("depth", [500, 3000, 50_000])


@depths
@pytest.mark.parametrize("correct", FRACTIONAL)
def test_corrected_and_estimated_counts_are_fractional_counts(
    correct: Callable[[Values, np.random.Generator], Values], depth: float
) -> None:
    counts = simulate_counts(depth).astype(float)
    assert kind(correct(counts, np.random.default_rng(1))) == "fractional counts"


@pytest.mark.parametrize("correct", [soupx, constant_share, share_of_each_cell, salmon])
def test_fractional_counts_may_all_be_small(
    correct: Callable[[Values, np.random.Generator], Values],
) -> None:
    counts = np.minimum(simulate_counts(500), 20).astype(float)
    assert kind(correct(counts, np.random.default_rng(1))) == "fractional counts"


@depths
@pytest.mark.parametrize("normalize", NORMALIZED)
def test_normalised_values_are_not_counts(
    normalize: Callable[[Values, np.random.Generator], Values], depth: float
) -> None:
    counts = simulate_counts(depth).astype(float)
    assert kind(normalize(counts, np.random.default_rng(1))) == "normalised"


@depths
@pytest.mark.parametrize("log", LOGARITHMS.values(), ids=LOGARITHMS)
@pytest.mark.parametrize("normalize", [*NORMALIZED, unchanged])
def test_logarithms_are_not_counts(
    normalize: Callable[[Values, np.random.Generator], Values],
    log: Callable[[Any], Any],
    depth: float,
) -> None:
    counts = simulate_counts(depth).astype(float)
    assert kind(log(normalize(counts, np.random.default_rng(1)))) == "log-normalised"


# --- round the counts of a file or an AnnData


def fractional_cells() -> ad.AnnData:
    """The tiny cells with 7 % of each count removed."""
    adata = simulate_cells()
    adata.X.data *= 0.93
    return adata


def write(adata: ad.AnnData, folder: Path) -> str:
    path = folder / "cells.h5ad"
    adata.write_h5ad(path)
    return str(path)


def spec(path: str, **changes: Any) -> DataSpec:
    return DataSpec(path=path, label_key="cell_type", **changes)


def test_fractional_counts_are_refused_with_the_option_that_rounds_them(tmp_path: Path) -> None:
    path = write(fractional_cells(), tmp_path)
    with pytest.raises(UserError) as caught:
        load_cells(spec(path))
    message = str(caught.value)
    assert "values that are not integers: it looks like ambient-corrected or estimated" in message
    assert "--round-counts rounds them (in Python: round_counts=True)" in message
    assert "log-normalised" not in message
    assert "adata.copy()" not in message


@pytest.mark.parametrize("convert", [sp.csr_matrix, sp.csc_matrix, sp.csr_matrix.toarray])
def test_rounded_counts_are_those_of_numpy(convert: Callable[[Any], Any], tmp_path: Path) -> None:
    adata = fractional_cells()
    expected = np.rint(adata.X.toarray())
    adata.X = convert(adata.X)
    path = write(adata, tmp_path)
    cells = load_cells(spec(path, round_counts=True))
    np.testing.assert_array_equal(cells.adata.X.toarray(), expected)
    assert cells.adata.X.data.min() >= 1
    assert cells.origin == f"file {path}, counts in X, rounded to integers"
    checked = check_file(path, "cell_type", None, FileOptions(round_counts=True))
    assert (checked.problems, checked.counts_in) == ([], "X, rounded to integers")
    integers = simulate_cells()
    integers.X = sp.csr_matrix(expected)
    assert load_cells(spec(write(integers, tmp_path))).fingerprint == cells.fingerprint


def test_integers_stay_as_they_are(tmp_path: Path) -> None:
    path = write(simulate_cells(), tmp_path)
    rounded, plain = load_cells(spec(path, round_counts=True)), load_cells(spec(path))
    assert (rounded.fingerprint, rounded.origin) == (plain.fingerprint, plain.origin)


@pytest.mark.parametrize("normalize", [cp10k, lambda *of: np.log1p(cp10k(*of))])
def test_normalised_values_are_not_rounded(
    normalize: Callable[[Values, np.random.Generator], Values], tmp_path: Path
) -> None:
    adata = simulate_cells()
    adata.X = normalize(adata.X.toarray().astype(float), np.random.default_rng(0))
    with pytest.raises(UserError, match=r"normalised .*; raw counts are needed"):
        load_cells(spec(write(adata, tmp_path), round_counts=True))


def test_a_cell_without_counts_after_rounding_is_refused(tmp_path: Path) -> None:
    adata = fractional_cells()
    dense = adata.X.toarray()
    dense[4] = 0
    dense[4, 2] = 0.4
    adata.X = dense
    with pytest.raises(UserError, match="1 of 120 cells have no counts in X, first 'cell_4'"):
        load_cells(spec(write(adata, tmp_path), round_counts=True))


def test_rounding_is_recorded_only_where_it_is_requested() -> None:
    assert "round_counts" not in spec("a.h5ad").model_dump()
    assert spec("a.h5ad", round_counts=True).model_dump()["round_counts"] is True
    with pytest.raises(ValueError, match="only a file can have round_counts"):
        DataSpec(name="zeisel", round_counts=True)
    one, other = (
        TrialSpec(data=spec("a.h5ad", round_counts=rounds), selector="random").digest("f")
        for rounds in (False, True)
    )
    assert one == other  # the fingerprint is that of the rounded counts


def test_rounded_counts_can_be_added_as_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    path = write(fractional_cells(), tmp_path)
    record = add_file(Path(path), "cell_type", None, "rounded", FileOptions(round_counts=True))
    assert record.origin == "file cells.h5ad, counts in X, rounded to integers"
    expected = load_cells(spec(path, round_counts=True)).fingerprint
    assert load_cells(DataSpec(name="rounded")).fingerprint == expected


def test_select_markers_rounds_a_copy() -> None:
    adata = fractional_cells()
    before = adata.X.copy()
    with pytest.raises(UserError, match="round_counts=True"):
        mmlab.select_markers(adata, "cell_type", 5, method="scanpy_t_test")
    mmlab.select_markers(adata, "cell_type", 5, method="scanpy_t_test", round_counts=True)
    assert (before != adata.X).nnz == 0
    rounded = simulate_cells()
    rounded.X = before.rint()
    mmlab.select_markers(rounded, "cell_type", 5, method="scanpy_t_test")
    assert adata.uns["mmlab"]["panel"] == rounded.uns["mmlab"]["panel"]


def test_a_model_rounds_where_that_is_requested(tiny_cells: Cells) -> None:
    trial = TrialSpec(data=DataSpec(name="tiny"), selector="random")
    split = replicate_split(trial, tiny_cells, 0)
    model = fit_model(np.array([3, 5, 8]), tiny_cells, split, {})
    adata = fractional_cells()
    with pytest.raises(UserError, match="round_counts=True"):
        model.predict(adata)
    rounded = adata.copy()
    rounded.X = adata.X.rint()
    for call in (model.predict, model.reconstruct):
        pd.testing.assert_frame_equal(call(adata, round_counts=True), call(rounded))


# --- advice


def test_a_layer_of_rna_velocity_is_not_suggested(tmp_path: Path) -> None:
    adata = fractional_cells()
    adata.layers["spliced"] = simulate_cells().X
    (problem,) = check_file(write(adata, tmp_path), "cell_type").problems
    assert "--round-counts" in problem
    assert "--layer" not in problem
    assert problem.endswith("; layer 'spliced' counts only a part of the transcripts")


def test_where_counts_usually_are_and_how_to_keep_them(tmp_path: Path) -> None:
    adata = simulate_cells()
    adata.X = np.log1p(total(adata.X.toarray(), 1e4))
    (problem,) = check_file(write(adata, tmp_path), "cell_type").problems
    assert 'counts are usually in layers["counts"] or raw: before normalising, keep' in problem
    assert '`adata.layers["counts"] = adata.X.copy()`' in problem
    assert "expm1" not in problem
    adata.raw = adata
    (problem,) = check_file(write(adata, tmp_path), "cell_type").problems
    assert problem.startswith("raw counts are needed, but no location has them: X (looks log-")
    assert 'keep them with `adata.layers["counts"] = adata.X.copy()`' in problem


def run_recovery(problem: str, adata: ad.AnnData) -> ad.AnnData:
    """Run the code of an error, as a user would who copies it."""
    lines = [line for line in problem.splitlines() if line.startswith("    ")]
    assert lines[0] == "    import scipy.sparse as sp"
    names = {"adata": adata}
    exec(textwrap.dedent("\n".join(lines)), names)
    return names["adata"]


@pytest.mark.parametrize(
    ("column", "target", "place"),
    [
        ("n_counts", 1e4, "X"),
        ("total_counts", 1e6, "raw"),
        ("nCount_RNA", 1234.5, "norm"),
        ("n_counts", 1234.5, "raw"),
    ],
)
def test_counts_are_recovered_from_logarithms_and_total_counts(
    column: str, target: float, place: str, tmp_path: Path
) -> None:
    adata = simulate_cells()
    counts = adata.X.toarray()
    adata.obs[column] = counts.sum(axis=1)
    logarithms = sp.csr_matrix(np.log1p(total(counts, target)), dtype=np.float32)
    if place == "X":
        adata.X = logarithms
    elif place == "raw":
        adata.X = logarithms
        adata.raw = adata
        adata.X = logarithms.toarray() - 1
    else:
        adata.layers["norm"] = logarithms
    path = write(adata, tmp_path)
    layer = place if place == "norm" else None
    (problem,) = check_file(path, "cell_type", layer).problems
    recovered = run_recovery(problem, ad.read_h5ad(path))
    np.testing.assert_array_equal(recovered.layers["counts"].toarray(), counts)
    recovered.write_h5ad(path)
    assert check_file(path, "cell_type").problems == []


def test_counts_of_the_file_in_scanpy_are_recovered() -> None:
    import scanpy

    (packaged,) = (Path(scanpy.__file__).parent / "datasets").glob("*pbmc68k_reduced.h5ad")
    (problem,) = check_file(str(packaged), "bulk_labels").problems
    recovered = run_recovery(problem, scanpy.datasets.pbmc68k_reduced())
    expected = DATASETS["pbmc68k_reduced"].load().X
    assert (recovered.layers["counts"] != expected).nnz == 0


def scaled_totals(adata: ad.AnnData) -> None:
    adata.obs["n_counts"] *= 1.37


def totals_as_text(adata: ad.AnnData) -> None:
    adata.obs["n_counts"] = adata.obs["n_counts"].astype(str)


def missing_totals(adata: ad.AnnData) -> None:
    adata.obs["n_counts"] = pd.Series([np.nan] * adata.n_obs, index=adata.obs_names)


@pytest.mark.parametrize("spoil", [scaled_totals, totals_as_text, missing_totals])
def test_no_recovery_is_offered_that_would_not_give_integers(
    spoil: Callable[[ad.AnnData], None], tmp_path: Path
) -> None:
    adata = simulate_cells()
    counts = adata.X.toarray()
    adata.obs["n_counts"] = counts.sum(axis=1)
    adata.X = np.log1p(total(counts, 1e4))[:, ::2].repeat(2, axis=1)
    spoil(adata)
    (problem,) = check_file(write(adata, tmp_path), "cell_type").problems
    assert "looks log-normalised" in problem
    assert "recovers" not in problem
