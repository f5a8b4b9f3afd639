"""AnnData in zarr stores can be used; other formats get the code that converts them."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
from tiny import simulate_cells

from mmlab.datasets import count_cells, load_cells
from mmlab.datasets.cells import Cells
from mmlab.datasets.io.counts import check_file, open_counts
from mmlab.spec.trial import DataSpec

# anndata warns of names with a slash, and zarr of consolidated metadata of format 3.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def load(path: Path, **options: Any) -> Cells:
    return load_cells(DataSpec(path=str(path), label_key="cell_type", **options))


def problem_of(path: Path) -> str:
    (problem,) = check_file(str(path), "cell_type").problems
    assert "\n" not in problem
    return problem


# --- zarr

STORED: dict[str, Callable[[Any], Any]] = {
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "dense": sp.csr_matrix.toarray,
}


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_store_gives_the_same_cells(
    stored: Callable[[Any], Any], version: int, tmp_path: Path, tiny_cells: Cells
) -> None:
    adata = simulate_cells()
    adata.X = stored(adata.X)
    path = tmp_path / "cells.zarr"
    with ad.settings.override(zarr_write_format=version):
        adata.write_zarr(path, chunks=(50, 40) if stored is STORED["dense"] else None)
    cells = load(path)
    assert cells.fingerprint == tiny_cells.fingerprint
    assert cells.name == "cells"
    assert count_cells(DataSpec(path=str(path), label_key="cell_type")) == 120
    with open_counts(str(path), "cell_type") as counts:
        whole = sp.vstack(list(counts.blocks(100))).tocsr()
    assert (whole != tiny_cells.adata.X).nnz == 0


@pytest.mark.parametrize("place", ["layer 'counts'", "raw"])
def test_layers_and_raw_of_a_zarr_store_are_searched(
    place: str, tmp_path: Path, tiny_cells: Cells
) -> None:
    adata = simulate_cells()
    if place == "raw":
        adata.raw = adata
    else:
        adata.layers["counts"] = adata.X
    adata.X = adata.X.log1p()
    adata = adata[:, :30].copy() if place == "raw" else adata
    adata.write_zarr(tmp_path / "cells.zarr")
    cells = load(tmp_path / "cells.zarr")
    assert cells.origin.endswith(f"counts in {place}")
    assert cells.fingerprint == tiny_cells.fingerprint


@pytest.mark.parametrize("dtype", ["string", "boolean"])
def test_labels_of_a_zarr_store_may_have_a_nullable_dtype(dtype: str, tmp_path: Path) -> None:
    adata = simulate_cells()
    values = {"string": ["a", "b"], "boolean": [True, False]}[dtype]
    adata.obs["cell_type"] = pd.array(values * 60, dtype=dtype)
    with ad.settings.override(allow_write_nullable_strings=True):
        adata.write_zarr(tmp_path / "cells.zarr")
    assert load(tmp_path / "cells.zarr").classes == sorted(map(str, values))


def test_a_zarr_store_with_problems_is_refused_like_a_file(tmp_path: Path) -> None:
    adata = simulate_cells()
    adata.X = None
    adata.obs.iloc[:3, 0] = None
    adata.write_zarr(tmp_path / "cells.zarr")
    problems = check_file(str(tmp_path / "cells.zarr"), "cell_type").problems
    assert problems[0] == "X is empty; raw counts are needed"
    assert problems[1].startswith("obs['cell_type'] has no label for 3 of 120 cells")


@pytest.mark.parametrize("version", [2, 3])
def test_a_lost_chunk_of_a_sparse_matrix_is_not_read_as_zeros(version: int, tmp_path: Path) -> None:
    path = tmp_path / "cells.zarr"
    with ad.settings.override(zarr_write_format=version):
        simulate_cells().write_zarr(path)
    (chunk,) = (file for file in (path / "X/data").rglob("0") if file.is_file())
    chunk.unlink()
    (problem,) = check_file(str(path), "cell_type").problems
    assert problem == "/X/data lacks 1 of 1 chunks; copy it again"


def damaged_values(store: Path) -> None:
    for chunk in (path for path in (store / "X/data").rglob("*") if path.name.isdigit()):
        chunk.write_bytes(b"\x00" * 20)


def without_obs(store: Path) -> None:
    shutil.rmtree(store / "obs")


def without_index(store: Path) -> None:
    shutil.rmtree(store / "X/indptr")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (damaged_values, "/X/data cannot be read: "),
        (without_obs, "it is a zarr store, but not of an AnnData: it lacks obs or var"),
        (without_index, "the zarr store cannot be read: "),
    ],
)
def test_a_damaged_zarr_store_is_refused(
    spoil: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "cells.zarr"
    with ad.settings.override(zarr_write_format=2):
        simulate_cells().write_zarr(path)
    (path / ".zmetadata").unlink(missing_ok=True)
    spoil(path)
    assert problem_of(path).startswith(words)


@pytest.mark.parametrize("folder", ["tables/table", "mod/rna"])
def test_the_table_of_another_zarr_store_is_named(
    folder: str, tmp_path: Path, tiny_cells: Cells
) -> None:
    import zarr

    root = zarr.open_group(tmp_path / "all.zarr", mode="w", zarr_format=2)
    root.create_group(folder.split("/")[0])
    with ad.settings.override(zarr_write_format=2):
        simulate_cells().write_zarr(tmp_path / "all.zarr" / folder)
    problem = problem_of(tmp_path / "all.zarr")
    assert problem == f"it is not an AnnData, but contains one: pass the path {folder} in it"
    assert load(tmp_path / "all.zarr" / folder).fingerprint == tiny_cells.fingerprint


# --- formats that are converted


def convert(problem: str, names: dict[str, Any] | None = None) -> ad.AnnData:
    """Run the Python code of a problem and return the file that it writes."""
    (code,) = re.findall(r"convert it in Python: `(.*?)`", problem)
    assert "adata.obs" in problem
    exec(code, names or {})
    (path,) = re.findall(r"write_h5ad\('(.*?)'\)", code)
    assert path.endswith(".h5ad")
    return ad.read_h5ad(path)


def assert_same(converted: ad.AnnData, *, named: bool = True) -> None:
    expected = simulate_cells()
    assert converted.shape == expected.shape
    np.testing.assert_array_equal(sp.csr_matrix(converted.X).toarray(), expected.X.toarray())
    if named:
        assert list(converted.obs_names) == list(expected.obs_names)
        assert list(converted.var_names) == list(expected.var_names)


def write_10x_h5(path: Path, group: str) -> None:
    adata = simulate_cells()
    counts = adata.X.T.tocsc().astype(np.int32)
    names = np.array(list(adata.var_names), dtype="S")
    with h5py.File(path, "w") as file:
        matrix = file.create_group(group)
        for name in ("data", "indices", "indptr"):
            matrix[name] = getattr(counts, name)
        matrix["shape"] = np.array(counts.shape)
        matrix["barcodes"] = np.array(list(adata.obs_names), dtype="S")
        if group == "matrix":
            matrix["features/name"] = matrix["features/id"] = names
            matrix["features/feature_type"] = np.array([b"Gene Expression"] * len(names))
            matrix["features/genome"] = np.array([b"GRCh38"] * len(names))
        else:
            matrix["gene_names"] = matrix["genes"] = names


@pytest.mark.parametrize("group", ["matrix", "GRCh38"])
def test_10x_h5(group: str, tmp_path: Path) -> None:
    write_10x_h5(tmp_path / "filtered_feature_bc_matrix.h5", group)
    problem = problem_of(tmp_path / "filtered_feature_bc_matrix.h5")
    assert problem.startswith("it looks like a 10x file; convert it in Python: `import scanpy; ")
    assert_same(convert(problem))


def write_10x_mtx(folder: Path, prefix: str, *, packed: bool, features: str) -> Path:
    adata = simulate_cells()
    folder.mkdir()
    opener: Any = gzip.open if packed else open
    end = ".gz" if packed else ""
    matrix = folder / f"{prefix}matrix.mtx{end}"
    with opener(matrix, "wb") as stream:
        scipy.io.mmwrite(stream, adata.X.T.astype(int))
    for name, lines in (
        (features, [f"ENS{i}\t{gene}\tGene Expression" for i, gene in enumerate(adata.var_names)]),
        ("barcodes.tsv", list(adata.obs_names)),
    ):
        with opener(folder / f"{prefix}{name}{end}", "wt") as stream:
            stream.write("\n".join(lines) + "\n")
    return matrix


@pytest.mark.parametrize(
    ("prefix", "packed", "features"),
    [("", True, "features.tsv"), ("GSM1_", True, "features.tsv"), ("", False, "genes.tsv")],
)
@pytest.mark.parametrize("named", ["folder", "matrix"])
def test_10x_folder(prefix: str, packed: bool, features: str, named: str, tmp_path: Path) -> None:
    matrix = write_10x_mtx(tmp_path / "run", prefix, packed=packed, features=features)
    problem = problem_of(matrix.parent if named == "folder" else matrix)
    start = "it is a folder of 10x files" if named == "folder" else "it is a MatrixMarket file"
    assert problem.startswith(start)
    assert_same(convert(problem))


def test_10x_folder_that_has_to_be_packed_first(tmp_path: Path) -> None:
    write_10x_mtx(tmp_path / "run", "", packed=False, features="features.tsv")
    problem = problem_of(tmp_path / "run")
    assert f"pack its files with `gzip {tmp_path / 'run'}/*`, then convert it in" in problem


@pytest.mark.parametrize("packed", [False, True])
def test_a_single_matrix_market_file(packed: bool, tmp_path: Path) -> None:
    adata = simulate_cells()
    path = tmp_path / ("counts.mtx.gz" if packed else "counts.mtx")
    opener: Any = gzip.open if packed else open
    with opener(path, "wb") as stream:
        scipy.io.mmwrite(stream, adata.X.T.astype(int))
    problem = problem_of(path)
    assert "leave out .T if its rows are cells" in problem
    names = {"cell_names": list(adata.obs_names), "gene_names": list(adata.var_names)}
    assert_same(convert(problem, names))


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("a.csv", ","), ("a.tsv", "\t"), ("a.txt", "\t"), ("a.txt.gz", "\t"), ("a.csv.gz", ";")],
)
def test_a_text_table(name: str, delimiter: str, tmp_path: Path) -> None:
    table = simulate_cells().to_df().T
    path = tmp_path / name
    table.to_csv(path, sep=delimiter)
    problem = problem_of(path)
    assert problem.startswith("it is a text file; convert it in Python")
    assert "leave out .T if its rows are cells" in problem
    assert_same(convert(problem))


def write_loom(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["matrix"] = simulate_cells().X.T.toarray()
        file["row_attrs/Gene"] = file["col_attrs/CellID"] = np.array([b"a"])


def write_mudata(path: Path) -> None:
    from anndata.io import write_elem

    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "MuData"
        adata = simulate_cells()
        for name in ("prot", "rna"):
            write_elem(file.require_group("mod"), name, adata)
        write_elem(file, "obs", adata.obs)
        write_elem(file, "var", adata.var)


def write_seurat(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("assays", "meta.data", "cell.names"):
            file.create_group(name)


def write_molecules(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["barcode_idx"] = np.arange(3)


def write_packed(path: Path) -> None:
    path.write_bytes(gzip.compress(b"anything"))


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.loom", write_loom, ["it is a loom file", "pip install loompy", "read_loom("]),
        ("a.h5mu", write_mudata, ["modalities prot, rna", "mudata.read_h5mu(", '["rna"]']),
        ("a.h5seurat", write_seurat, ["SeuratDisk::Convert(", 'dest = "h5ad"']),
        ("molecule_info.h5", write_molecules, ["pass filtered_feature_bc_matrix.h5"]),
        ("a.rds", write_packed, ["in R: `zellkonverter::writeH5AD(", "readRDS(", "/a.h5ad"]),
        ("a.RData", write_packed, ["in R: `zellkonverter::writeH5AD(", "get(load("]),
        ("a.h5ad.gz", write_packed, ["it is packed; unpack it first and pass the .h5ad file"]),
        ("a.tar.gz", write_packed, ["it is packed; unpack it first"]),
    ],
)
def test_other_formats_are_named_with_the_next_step(
    name: str, write: Callable[[Path], None], words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path)
    problem = problem_of(path)
    for word in words:
        assert word in problem
    if name != "molecule_info.h5":
        assert "10x" not in problem


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cels.h5ad", "it does not exist; similar names in its folder: cells.h5ad"),
        ("unlike", "it does not exist; its folder has cells.h5ad"),
        ("liver.h5ad", "it does not exist; its folder has cells.h5ad"),
        ("Cells.h5", "it does not exist; similar names in its folder: cells.h5ad"),
        ("no/cells.h5ad", "it does not exist, nor does the folder "),
        ("", "it is a folder; pass the path of an .h5ad file or of an AnnData .zarr; it has cells"),
    ],
)
def test_a_missing_file_is_missing(name: str, words: str, tmp_path: Path) -> None:
    simulate_cells().write_h5ad(tmp_path / "cells.h5ad")
    assert problem_of(tmp_path / name).startswith(words)


# --- columns and links


def test_a_link_to_nothing_is_told_from_a_missing_file(tmp_path: Path) -> None:
    for name in ("link.h5ad", "link.zarr"):
        (tmp_path / name).symlink_to("gone")
        assert problem_of(tmp_path / name) == (
            "it is a link to gone, which does not exist; correct the link"
        )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"codes": [100, 0, 1]}, "codes need to be between -1 and"),
        ({"codes": [-7, 0, 1]}, "codes need to be between -1 and"),
        ({"categories": ["a", "a", "a"]}, "categories must be unique"),
        ({"categories": [b"a", b"\xff", b"c"]}, "codec can't decode byte 0xff"),
    ],
)
def test_damaged_labels_name_their_column_and_what_to_do(
    damage: dict[str, list[Any]], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "cells.h5ad"
    simulate_cells().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        labels = file["obs/cell_type"]
        assert isinstance(labels, h5py.Group)
        for name, values in damage.items():
            part = labels[name]
            assert isinstance(part, h5py.Dataset)
            part[: len(values)] = values
    problem = problem_of(path)
    assert problem.startswith("/obs/cell_type")
    assert reason in problem
    assert problem.endswith(
        "; copy the file again, or write it again with the program that made it"
    )


def test_a_label_column_may_have_a_slash_in_its_name(tmp_path: Path) -> None:
    adata = simulate_cells()
    adata.obs["type/fine"] = adata.obs["cell_type"]
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    cells = load_cells(DataSpec(path=str(path), label_key="type/fine"))
    assert cells.classes == list(adata.obs["cell_type"].cat.categories)
    (problem,) = check_file(str(path), "type").problems
    assert "columns: cell_type, donor, type/fine)" in problem


def test_soft_links_inside_the_file_are_followed(tmp_path: Path, tiny_cells: Cells) -> None:
    path = tmp_path / "cells.h5ad"
    simulate_cells().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file.move("X", "uns/matrix")
        file["X"] = h5py.SoftLink("/uns/again")
        file["uns/again"] = h5py.SoftLink("./matrix")
    assert load(path).fingerprint == tiny_cells.fingerprint


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/nowhere/X", "/layers/counts is a soft link to '/nowhere', which does not exist"),
        ("../X", "/layers/counts is a soft link to '/layers/..', which does not exist"),
        ("/layers/counts", "/layers/counts is a soft link that leads to itself"),
        ("/uns/other/X", "/layers/counts is an external link to 'secret.h5'"),
    ],
)
def test_soft_links_that_lead_nowhere_or_outside_are_refused(
    target: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "cells.h5ad"
    simulate_cells().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["layers/counts"] = h5py.SoftLink(target)
        file["uns/other"] = h5py.ExternalLink("secret.h5", "/")
    problems = " ".join(check_file(str(path), "cell_type").problems)
    assert "/uns/other is an external link" in problems
    assert words in problems or "(and 1 more of that kind)" in problems
