"""Which cells of a file are used, and how its genes are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tiny import simulate_cells
from typer.testing import CliRunner

import mmlab
from mmlab.cli import app
from mmlab.datasets import add_file, count_cells, load_cells
from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE
from mmlab.datasets.cache.records import find_record
from mmlab.datasets.cells import Cells
from mmlab.datasets.io.checks import require_usable
from mmlab.datasets.io.counts import check_file
from mmlab.errors import UserError
from mmlab.spec.trial import DataSpec, FileOptions, TrialSpec
from mmlab.trial.run import run_trial

LABELS = ["astrocyte", "microglia", "neuron"]


def with_rare_and_unlabelled() -> ad.AnnData:
    """3 cells of a rare type at positions 0, 50, 119; no label at 7 (NaN), 8 (NA) and 9 (blank)."""
    adata = simulate_cells()
    labels = adata.obs["cell_type"].astype(object)
    labels.iloc[[0, 50, 119]] = "rare"
    labels.iloc[[7, 8, 9]] = [np.nan, "NA", " "]
    adata.obs["cell_type"] = pd.Categorical(labels)
    return adata


def used(adata: ad.AnnData) -> ad.AnnData:
    return adata[adata.obs["cell_type"].isin(LABELS).to_numpy()].copy()


def write(adata: ad.AnnData, folder: Path, name: str = "cells.h5ad") -> str:
    path = folder / name
    adata.write_h5ad(path)
    return str(path)


def load(path: str, **options: Any) -> Cells:
    return load_cells(DataSpec(path=path, label_key="cell_type", **options))


# --- cells


@pytest.mark.parametrize("dtype", ["float64", "float32", "category", "object"])
def test_cluster_numbers_that_are_floats_because_of_nan_are_integers(
    dtype: str, tmp_path: Path
) -> None:
    adata = simulate_cells()
    numbers = adata.obs["cell_type"].cat.codes.to_numpy() * 5
    labelled = np.arange(adata.n_obs) >= 3
    adata.obs["cell_type"] = pd.Series(
        np.where(labelled, numbers, np.nan), index=adata.obs_names
    ).astype(dtype)
    # anndata writes no column of objects that are numbers: they exist in memory alone.
    source = adata if dtype == "object" else write(adata, tmp_path)

    def load_labels(options: FileOptions) -> list[str]:
        if isinstance(source, str):
            return list(load(source, **options.model_dump()).adata.obs["cell_type"].astype(str))
        _, inspection = require_usable(source, "cell_type", None, "adata", options)
        return list(inspection.labels[inspection.kept])

    expected = [str(number) for number in numbers[labelled]]
    assert load_labels(FileOptions(drop_unlabelled=True)) == expected
    assert set(expected) == {"0", "5", "10"}
    with pytest.raises(UserError, match=r"floating-point .*numbers, 3 of 120 cells have none: lea"):
        load_labels(FileOptions())


@pytest.mark.parametrize("value", [0.5, np.inf, 1e300, -0.25])
def test_labels_that_are_no_integers_are_refused(value: float, tmp_path: Path) -> None:
    adata = simulate_cells()
    adata.obs["cell_type"] = np.arange(120) % 3 * 1.0
    adata.obs.loc[adata.obs_names[:2], "cell_type"] = [value, np.nan]
    with pytest.raises(UserError, match=r"floating-point .* convert them to text"):
        load(write(adata, tmp_path), drop_unlabelled=True)


@pytest.mark.parametrize("stored", ["csr", "csc", "dense"])
def test_rare_types_and_cells_without_a_label_are_left_out(
    stored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adata = with_rare_and_unlabelled()
    expected = load(write(used(adata), tmp_path, "used.h5ad"))
    adata.X = adata.X.toarray() if stored == "dense" else adata.X.asformat(stored)
    path = write(adata, tmp_path)
    options = {"min_cells_per_type": 4, "drop_unlabelled": True}
    cells = load(path, **options)
    assert cells.fingerprint == expected.fingerprint
    assert list(cells.adata.obs_names) == list(expected.adata.obs_names)
    sentences = [
        "left out: 3 of 120 cells, which have no label",
        "left out: 1 of 4 types of obs['cell_type'] (3 of 120 cells), with fewer than 4 cells "
        "each: 'rare' 3",
    ]
    assert list(cells.notes) == sentences
    assert count_cells(DataSpec(path=path, label_key="cell_type", **options)) == 114
    load(path, **options)
    assert capsys.readouterr().err.splitlines() == [f"{path}: {line}" for line in sentences]


def test_only_requested_cells_are_left_out(tmp_path: Path) -> None:
    path = write(with_rare_and_unlabelled(), tmp_path)
    with pytest.raises(UserError, match="leave them out with --drop-unlabelled") as caught:
        load(path, min_cells_per_type=4)
    assert "has no label for 2 of 120 cells" in str(caught.value)
    with pytest.raises(UserError, match="with --min-cells-per-type 4") as caught:
        load(path, drop_unlabelled=True)
    assert "'rare' has 3" in str(caught.value)
    assert "'NA'" not in str(caught.value)
    with pytest.raises(UserError, match="has no cell type; at least two types"):
        load(path, min_cells_per_type=1000, drop_unlabelled=True)


def test_a_type_with_exactly_the_minimum_is_kept(tmp_path: Path) -> None:
    path = write(simulate_cells(), tmp_path)
    cells = load(path, min_cells_per_type=40, drop_unlabelled=True)
    assert np.bincount(cells.y).tolist() == [40, 40, 40]
    assert cells.notes == ()


def test_cells_that_are_left_out_need_no_counts(tmp_path: Path) -> None:
    adata = with_rare_and_unlabelled()
    adata.X = adata.X.multiply(np.arange(120)[:, None] != 7).tocsr()
    options = FileOptions(min_cells_per_type=4, drop_unlabelled=True)
    checked = check_file(write(adata, tmp_path), "cell_type", None, options)
    assert checked.problems == []
    assert (checked.n_cells, checked.n_classes) == (114, 3)
    assert any("which have no label" in warning for warning in checked.warnings)


def test_an_added_dataset_has_the_used_cells_and_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    options = {"min_cells_per_type": 4, "drop_unlabelled": True, "gene_names": "symbol"}
    path = write(with_symbols(with_rare_and_unlabelled()), tmp_path)
    record = add_file(Path(path), "cell_type", None, "mine", FileOptions(**options))
    cells, in_memory = load_cells(DataSpec(name="mine")), load(path, **options)
    assert cells.fingerprint == in_memory.fingerprint
    assert cells.gene_ids is not None
    assert cells.gene_ids.tolist() == [f"ENSG{i:011d}" for i in range(40)]
    assert record.notes == in_memory.notes
    assert len(record.notes) == 4


# anndata warns of a future version of the zarr stores that it writes.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("end", ["h5ad", "zarr"])
@pytest.mark.parametrize("place", ["X", "raw", "layer"])
def test_fractional_counts_of_the_used_cells_are_rounded_and_genes_renamed(
    end: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    adata = with_symbols(with_rare_and_unlabelled())
    # Only a rare cell, which is left out, has no counts after rounding.
    values = adata.X.toarray() * 0.93
    values[50] = np.minimum(values[50], 0.4)
    is_used = adata.obs["cell_type"].isin(LABELS).to_numpy()
    expected = np.rint(values)[is_used]
    adata.X = values
    if place == "raw":
        adata.raw = adata.copy()
    elif place == "layer":
        adata.layers["corrected"] = values
    if place != "X":
        adata.X = np.zeros_like(values)
    in_memory = adata.copy()
    path = tmp_path / f"cells.{end}"
    adata.write_h5ad(path) if end == "h5ad" else adata.write_zarr(path)
    layer = {"X": None, "raw": "raw", "layer": "corrected"}[place]
    options = FileOptions(
        min_cells_per_type=4, drop_unlabelled=True, gene_names="symbol", round_counts=True
    )
    loaded = load(str(path), layer=layer, **options.model_dump())
    command = ["datasets", "add", str(path), "--label-key", "cell_type", "--name", "mine"]
    command += ["--min-cells-per-type", "4", "--drop-unlabelled", "--gene-names", "symbol"]
    command += ["--round-counts", *([] if layer is None else ["--layer", layer])]
    assert CliRunner().invoke(app, command).exit_code == 0
    record = find_record("mine")
    assert record is not None
    added = load_cells(DataSpec(name="mine"))
    for cells in (loaded, added):
        np.testing.assert_array_equal(cells.adata.X.toarray(), expected)
        assert list(cells.adata.obs_names) == list(adata.obs_names[is_used])
        assert cells.genes[[9, 10, 12]].tolist() == [
            "Sym9",
            "Sym10_ENSG00000000010",
            "ENSG00000000012",
        ]
        assert cells.gene_ids is not None
        assert cells.gene_ids.tolist() == list(adata.var_names)
    assert record.origin.endswith(", rounded to integers")
    assert record.notes == loaded.notes
    assert len(record.notes) == 4
    assert (
        count_cells(DataSpec(path=str(path), label_key="cell_type", **options.model_dump())) == 114
    )
    usable, found = require_usable(in_memory, "cell_type", layer, "adata", options)
    np.testing.assert_array_equal(usable.X.toarray(), expected)
    assert list(usable.var_names) == loaded.genes.tolist()
    assert found.notes == loaded.notes
    settings = options.model_dump() | {"n_markers": 6, "method": "scanpy_t_test"}
    mmlab.select_markers(in_memory, "cell_type", layer=layer, **settings)
    integers = ad.AnnData(expected, adata.obs[is_used].copy(), adata.var[[]].copy())
    mmlab.select_markers(integers, "cell_type", 6, method="scanpy_t_test")
    assert in_memory.uns["mmlab"]["gene_ids"] == integers.uns["mmlab"]["panel"]


def test_options_that_are_not_given_change_no_digest() -> None:
    plain = DataSpec(path="a.h5ad", label_key="t")
    assert plain.model_dump() == {"name": None, "path": "a.h5ad", "label_key": "t", "layer": None}
    given = DataSpec(path="a.h5ad", label_key="t", min_cells_per_type=5)
    assert DataSpec.model_validate(given.model_dump()) == given


def test_select_markers_takes_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    adata = with_symbols(with_rare_and_unlabelled())
    alone = used(adata)
    settings: dict[str, Any] = {"n_markers": 6, "method": "scanpy_t_test"}
    mmlab.select_markers(
        adata,
        "cell_type",
        min_cells_per_type=4,
        drop_unlabelled=True,
        gene_names="symbol",
        include=["Sym3", "ENSG00000000020"],
        **settings,
    )
    mmlab.select_markers(alone, "cell_type", include=list(adata.var_names[[3, 20]]), **settings)
    np.testing.assert_array_equal(adata.var["mmlab_marker"], alone.var["mmlab_marker"])
    np.testing.assert_array_equal(adata.var["mmlab_score"], alone.var["mmlab_score"])
    result = adata.uns["mmlab"]
    assert result["gene_ids"] == alone.uns["mmlab"]["panel"]
    assert result["panel"][0] == "Sym3"
    assert "adata: left out: 1 of 4 types" in capsys.readouterr().err


# --- gene names


def with_symbols(adata: ad.AnnData) -> ad.AnnData:
    """Name genes by Ensembl ids; two genes share a symbol, one has none."""
    symbols = [f"Sym{i}" for i in range(adata.n_vars)]
    symbols[11], symbols[12] = "Sym10", ""
    adata.var["symbol"] = symbols
    adata.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]
    return adata


def in_x(adata: ad.AnnData) -> None:
    return None


def categorical(adata: ad.AnnData) -> None:
    adata.var["symbol"] = pd.Categorical(adata.var["symbol"].replace("", np.nan))


def in_raw(adata: ad.AnnData) -> None:
    adata.raw = adata.copy()
    adata.X = adata.X.log1p()


def in_raw_without_columns(adata: ad.AnnData) -> None:
    adata.raw = ad.AnnData(adata.X.copy(), adata.obs, pd.DataFrame(index=adata.var_names))
    adata.X = adata.X.log1p()


@pytest.mark.parametrize("place", [in_x, categorical, in_raw, in_raw_without_columns])
def test_genes_are_named_by_a_column_of_var(
    place: Callable[[ad.AnnData], None], tmp_path: Path
) -> None:
    adata = with_symbols(simulate_cells())
    place(adata)
    cells = load(write(adata, tmp_path), gene_names="symbol")
    expected = [f"Sym{i}" for i in range(40)]
    expected[10:13] = ["Sym10_ENSG00000000010", "Sym10_ENSG00000000011", "ENSG00000000012"]
    assert cells.genes.tolist() == expected
    assert cells.gene_ids is not None
    assert cells.gene_ids.tolist() == [f"ENSG{i:011d}" for i in range(40)]
    shared, unnamed = cells.notes
    assert shared.startswith("1 symbols of var['symbol'] occur more than once: their 2 genes are ")
    assert unnamed.startswith("1 genes have no symbol in var['symbol'] and keep their identifier")


def test_a_panel_has_both_names(tmp_path: Path) -> None:
    path = write(with_symbols(simulate_cells()), tmp_path)
    data = DataSpec(path=path, label_key="cell_type", gene_names="symbol")
    include = ["ENSG00000000030", "Sym4"]
    spec = TrialSpec(data=data, selector="scanpy_t_test", n_markers=6, include=include)
    panel = run_trial(spec).panel
    assert list(panel) == ["rank", "gene", "gene_index", "score", "gene_id"]
    assert panel["gene"].tolist()[:2] == ["Sym30", "Sym4"]
    assert panel["gene_id"].tolist() == [f"ENSG{i:011d}" for i in panel["gene_index"]]


def test_a_column_that_does_not_exist_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = write(with_symbols(simulate_cells()), tmp_path)
    with pytest.raises(UserError, match="gene_names 'symbols' is not a column of var") as caught:
        load(path, gene_names="symbols")
    assert "(columns: is_marker, symbol); did you mean 'symbol'?" in str(caught.value)


def test_names_in_a_repeated_column_are_refused() -> None:
    adata = with_symbols(simulate_cells())
    adata.var = pd.concat([adata.var, adata.var[["symbol"]]], axis=1)
    with pytest.raises(UserError, match="var has 2 columns with the name 'symbol': keep one"):
        require_usable(adata, "cell_type", None, "adata", FileOptions(gene_names="symbol"))


def test_identifiers_with_a_column_of_symbols_are_hinted_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(with_symbols(simulate_cells()), tmp_path)
    load(path)
    load(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("seems to contain the symbols: pass --gene-names symbol")
