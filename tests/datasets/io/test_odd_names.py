"""Labels that are no types and genes that are none are said to be odd; check and select agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tiny import simulate_cells
from typer.testing import CliRunner

from mmlab.cli import app
from mmlab.datasets import load_cells
from mmlab.datasets.io.checks import find_problems
from mmlab.datasets.io.counts import check_file
from mmlab.errors import UserError
from mmlab.preprocessing.splits import paper_split
from mmlab.spec.trial import DataSpec


def write(adata: ad.AnnData, folder: Path) -> str:
    path = folder / "cells.h5ad"
    adata.write_h5ad(path)
    return str(path)


def name_genes(adata: ad.AnnData, names: list[str]) -> None:
    adata.var_names = [*names, *adata.var_names[len(names) :]]


def label_cells(adata: ad.AnnData, labels: list[str]) -> None:
    adata.obs["cell_type"] = np.resize(labels, adata.n_obs)


def no_types(adata: ad.AnnData) -> None:
    label_cells(adata, ["B cell", "Unknown", "unassigned", "Doublet_2"])


def antibody_features(adata: ad.AnnData) -> None:
    adata.var["feature_types"] = ["Gene Expression"] * 30 + ["Antibody Capture"] * 10


def antibody_names(adata: ad.AnnData) -> None:
    name_genes(adata, ["CD3_TotalSeqB", "AB_CD8", "ADT-CD4", "CD19-TotalSeq-A"])


def dates(adata: ad.AnnData) -> None:
    name_genes(adata, ["1-Mar", "2-Sep", "Dec-01"])


@pytest.mark.parametrize(
    ("change", "start"),
    [
        (no_types, "90 cells of obs['cell_type'] have the odd label 'Unknown', 'unassigned', 'Do"),
        (antibody_features, "10 of 40 genes look like antibodies (var['feature_types'] is 'Antib"),
        (antibody_names, "4 of 40 genes look like antibodies (by their names), first 'CD3_Total"),
        (dates, "3 gene names are dates, first '1-Mar', '2-Sep', 'Dec-01': a spreadsheet has"),
    ],
)
# anndata warns of a future version of the zarr stores that it writes.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("end", ["h5ad", "zarr"])
def test_odd_names_are_mentioned_once_and_not_refused(
    change: Callable[[ad.AnnData], None], start: str, end: str, tmp_path: Path
) -> None:
    adata = simulate_cells()
    change(adata)
    path = tmp_path / f"cells.{end}"
    adata.write_h5ad(path) if end == "h5ad" else adata.write_zarr(path)
    checked = check_file(str(path), "cell_type")
    assert checked.problems == []
    assert [sentence.startswith(start) for sentence in checked.warnings] == [True]
    assert list(load_cells(DataSpec(path=str(path), label_key="cell_type")).notes) == (
        checked.warnings
    )


def test_usual_names_are_not_odd(tmp_path: Path) -> None:
    adata = simulate_cells()
    names = ["ABCA1", "ADTRP", "MARCH1", "SEPT2", "DEC1", "CITED2", "H2-Ab1", "HLA-A", "AB"]
    name_genes(adata, names)
    adata.var["feature_types"] = "Gene Expression"
    label_cells(adata, ["Unknown-like T", "Other", "doublecortin neuron"])
    assert check_file(write(adata, tmp_path), "cell_type").warnings == []


@pytest.mark.parametrize(("n_pairs", "question"), [(1, False), (10, True)])
def test_two_species_are_suspected_if_many_names_differ_in_case_only(
    n_pairs: int, question: bool, tmp_path: Path
) -> None:
    adata = simulate_cells()
    lower = [f"Gene{i}" for i in range(n_pairs)]
    name_genes(adata, [*lower, *(name.upper() for name in lower)])
    (warning,) = check_file(write(adata, tmp_path), "cell_type").warnings
    assert warning.startswith(f"{n_pairs} gene names differ from another one only in case")
    assert ("two species" in warning) is question


def test_select_prints_what_is_odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    adata = simulate_cells()
    no_types(adata)
    path = write(adata, tmp_path)
    options = ["--label-key", "cell_type", "-k", "5", "--method", "scanpy_t_test"]
    result = CliRunner().invoke(app, ["select", "--data", path, *options])
    assert result.exit_code == 0
    assert result.stderr.count("have the odd label 'Unknown'") == 1


# --- check agrees with select


@pytest.mark.parametrize("n_cells", [16, 29, 30, 31, 39, 40, 41, 60])
@pytest.mark.parametrize("n_types", [3, 4, 6])
def test_a_file_can_be_used_if_and_only_if_its_cells_can_be_split(
    n_cells: int, n_types: int, tmp_path: Path
) -> None:
    adata = simulate_cells()[:n_cells].copy()
    label_cells(adata, [f"type {i}" for i in range(n_types)])
    path = write(adata, tmp_path)
    problems = check_file(path, "cell_type").problems
    try:
        codes = pd.Categorical(adata.obs["cell_type"]).codes.astype(np.int64)
        paper_split(codes, np.random.default_rng(0))
    except UserError:
        assert len(problems) == 1
        rare = np.unique(codes, return_counts=True)[1].min() < 4
        reason = "needs at least 4 cells" if rare else "is label_key the column of the cell types?"
        assert reason in problems[0]
        with pytest.raises(UserError) as caught:
            load_cells(DataSpec(path=path, label_key="cell_type"))
        assert problems[0] in str(caught.value)
    else:
        assert problems == []


def test_names_of_cells_are_told_apart_from_types(tmp_path: Path) -> None:
    adata = simulate_cells()
    adata.obs["barcode"] = adata.obs_names
    (problem,) = check_file(write(adata, tmp_path), "barcode").problems
    assert f"{adata.n_obs} different values for {adata.n_obs} cells" in problem
    assert problem.endswith("is label_key the column of the cell types?")
    assert "--min-cells-per-type" not in problem


def test_each_problem_is_printed_once(tmp_path: Path) -> None:
    adata = simulate_cells()
    adata.obs.iloc[:2, 0] = None
    adata.X = adata.X.log1p()
    path = write(adata, tmp_path)
    result = CliRunner().invoke(app, ["datasets", "check", path, "--label-key", "cell_type"])
    shown = result.output + str(result.exception)
    problems = check_file(path, "cell_type").problems
    assert len(problems) == 2
    for problem in problems:
        assert shown.count(problem) == 1


@pytest.mark.parametrize("name", ["cell_type", "donor"])
def test_repeated_columns_are_refused_only_if_they_are_the_labels(name: str) -> None:
    adata = simulate_cells()
    adata.obs = pd.concat([adata.obs, adata.obs[[name]]], axis=1)
    expected = ["obs has 2 columns with the name 'cell_type': keep one of them"]
    assert find_problems(adata, "cell_type") == (expected if name == "cell_type" else [])
