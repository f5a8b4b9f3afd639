"""The bad inputs that mmlab must bear, by number: one line that helps, and nothing written.

Three are missing here: 5 (a hash that differs), 10 and 11 (archives) belong to downloads.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from tiny import simulate_cells
from typer.testing import CliRunner

import mmlab
from mmlab.cli import app, main
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.model import Model, fit_model
from mmlab.preprocessing.splits import Split, replicate_split
from mmlab.spec.trial import DataSpec, TrialSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning"),
    pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning"),
]

Test = TypeVar("Test", bound=Callable[..., None])

COVERED: set[int] = set()
KEY = ["--label-key", "cell_type"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, with what it holds."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def refusal(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> str:
    """The one line on stderr that a command ends with; the folder must stay as it is."""
    before = contents(folder)
    monkeypatch.setattr(sys, "argv", ["mmlab", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    assert caught.value.code == 2
    assert contents(folder) == before
    assert captured.err.startswith("Error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.out + captured.err
    return captured.err


def covers(number: int) -> Callable[[Test], Test]:
    """Counts a test of one bad input."""
    COVERED.add(number)
    return lambda test: test


def rows(table: list[tuple[int, Any, list[str]]]) -> Any:
    """Parameters of a test: what spoils the input, and words of the message."""
    COVERED.update(number for number, *_ in table)
    return [
        pytest.param(spoil, words, id=f"{number} {getattr(spoil, '__name__', spoil)}")
        for number, spoil, words in table
    ]


COMMANDS = {
    "check": ["datasets", "check"],
    "select": ["select", "-k", "5", "--data"],
    "tune": ["tune", "-k", "5", "--data"],
}
every_command = pytest.mark.parametrize("command", COMMANDS)


# --- files that are no h5ad, or not only one


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("gene,cell\n" * 100)


def zipped(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b" + bytes(100))


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def overwritten(path: Path) -> None:
    with h5py.File(path) as file:
        header = h5py.h5o.get_info(file["X/data"].id).addr
    content = bytearray(path.read_bytes())
    content[header : header + 16] = b"\xff" * 16
    path.write_bytes(content)


def attributes_of_another_type(path: Path) -> None:
    content = path.read_bytes()
    text = b"encoding-type\x00\x00\x00\x19\x01"
    assert text in content
    # A text of variable length becomes a list of something: reading it ends the process.
    path.write_bytes(content.replace(text, text[:-1] + b"\x05"))


def other_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["matrix/barcodes"] = [1, 2]


def old_format_without_content(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["obs"] = np.zeros(3, dtype=[("index", "S3"), ("cell_type", "i1")])
        file["var"] = file["X"] = np.zeros(3)


def nothing_inside(path: Path) -> None:
    h5py.File(path, "w").close()


def secret(path: Path) -> Path:
    """A file of the user's that no h5ad may read."""
    other = path.with_name("secret.h5")
    with h5py.File(other, "w") as file:
        file["passwords"] = np.arange(120 * 40).reshape(120, 40)
    return other


def soft_link(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["layers/counts"] = h5py.SoftLink("/Y")


def external_link(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(secret(path).name, "/passwords")


def nested_external_link(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["uns"].create_group("deep/deeper")["link"] = h5py.ExternalLink("/etc/passwd", "/")
        file["uns/deep/loop"] = file["/"]


def external_storage(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        place = [(str(secret(path)), 0, 120 * 40)]
        file.create_dataset("X", (120, 40), dtype="u1", external=place)


def virtual_dataset(path: Path) -> None:
    layout = h5py.VirtualLayout((120, 40), dtype="i8")
    layout[:] = h5py.VirtualSource(str(secret(path)), "passwords", (120, 40))
    with h5py.File(path, "r+") as file:
        del file["X"]
        file.create_virtual_dataset("X", layout)


def eight_gib_in_a_small_file(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        file.create_dataset("X", (2**27, 16), dtype="f4")
    assert path.stat().st_size < 200_000


def two_gib_in_a_chunk(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["obs/donor"]
        file["obs"].create_dataset(
            "donor", (120,), maxshape=(None,), chunks=(2**28,), dtype="f8", compression="gzip"
        )


def packed_twice(path: Path) -> None:
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((2**24,))
    created.set_deflate(9)
    created.set_deflate(9)
    with h5py.File(path, "r+") as file:
        space = h5py.h5s.create_simple((2**24,))
        created_id = h5py.h5d.create(
            file["uns"].id, b"bomb", h5py.h5t.NATIVE_DOUBLE, space, created
        )
        h5py.Dataset(created_id)[:] = np.zeros(2**24)


def one_long_name(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        labels = file["obs/cell_type/categories"]
        labels[:] = ["long " * 10_000] * len(labels)


def set_indices(position: int, value: int) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["X/indices"][position] = value

    spoil.__name__ = f"index {value}"
    return spoil


def set_pointer(position: int, value: int) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file["X/indptr"][position] = value

    spoil.__name__ = f"pointer {position} is {value}"
    return spoil


def replace_part(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            values = file[name][:]
            del file[name]
            file[name] = change(values)

    spoil.__name__ = f"another {name}"
    return spoil


def other_shape(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = [2**40, 40]


def coo(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["X"].attrs["encoding-type"] = "coo_matrix"


def texts_as_values(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = np.full((120, 40), "3", dtype=object)


FILES = [
    (1, missing, ["it does not exist; its folder has no .h5ad file"]),
    (2, empty, ["it is empty (0 bytes)"]),
    (3, text, ["it is not an HDF5 file, as every .h5ad is: it begins with b'gene,cel'"]),
    (3, zipped, ["begins like a gzip file: unpack it first"]),
    (3, other_hdf5, ["it looks like a 10x file; convert it in Python: `import scanpy"]),
    (3, nothing_inside, ["it lacks obs and var and contains nothing"]),
    (3, old_format_without_content, ["of anndata before 0.7 and cannot be read: "]),
    (4, truncated, ["it is truncated: it has ", " bytes; copy it again"]),
    (4, overwritten, ["it is damaged: "]),
    (4, attributes_of_another_type, ["X is stored as an unknown group; store it as CSR"]),
    (6, soft_link, ["/layers/counts is a soft link to '/Y', which does not exist"]),
    (6, external_link, ["/X is an external link to 'secret.h5'"]),
    (6, nested_external_link, ["/uns/deep/deeper/link is an external link to '/etc/passwd'"]),
    (7, external_storage, ["/X has its values outside the file, in", "secret.h5'"]),
    (7, virtual_dataset, ["/X is a virtual dataset"]),
    (8, eight_gib_in_a_small_file, ["/X declares 8.6 GB, but the file of", "stores 0 bytes"]),
    (8, two_gib_in_a_chunk, ["/obs/donor declares 2.1 GB"]),
    (8, packed_twice, ["/uns/bomb declares 0.1 GB"]),
    (8, one_long_name, ["/obs/cell_type/categories contains strings of 50000 characters"]),
    (9, set_indices(7, 99_999), ["X is corrupt: 1 of its indices point outside", "99999 at"]),
    (9, set_indices(7, -1), ["X is corrupt: 1 of its indices point outside", "first -1 at"]),
    (9, set_pointer(3, -5), ["X is corrupt: its indptr decreases 1 times, first at position 3"]),
    (9, set_pointer(0, 1), ["X is corrupt: its indptr goes from 1 to"]),
    (9, set_pointer(120, 2**30), ["X is corrupt: its indptr goes from 0 to 1073741824"]),
    (9, replace_part("X/data", lambda v: v[:-1]), ["X is corrupt: it has", "values, but"]),
    (9, replace_part("X/indptr", lambda v: v[:-1]), ["its indptr has 120 entries where 121"]),
    (
        9,
        replace_part("X/indices", lambda v: v + 0.5),
        ["its indices array has the type float64, not int"],
    ),
    (9, other_shape, ["X is corrupt: its shape is (1099511627776, 40), but its indptr has 121"]),
    (18, texts_as_values, ["X has values of type object; raw counts are needed"]),
    (19, coo, ["X is stored as coo_matrix; store it as CSR"]),
]


@every_command
@pytest.mark.parametrize(("spoil", "words"), rows(FILES))
def test_a_file_that_cannot_be_trusted_is_refused(
    spoil: Callable[[Path], None],
    words: list[str],
    command: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = folder / "cells.h5ad"
    simulate_cells().write_h5ad(path)
    spoil(path)
    line = refusal(folder, capsys, monkeypatch, [*COMMANDS[command], str(path), *KEY])
    for part in (str(path), *words):
        assert part in line


@every_command
@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (sp.csr_matrix, "X needs 0.0 MB"),
        (sp.csc_matrix, "; stored as CSR it would need less"),
        (lambda counts: counts.toarray(), "; stored as CSR it would need less"),
    ],
    ids=["csr", "csc", "dense"],
)
def test_counts_larger_than_memory_are_refused(
    stored: Callable[[sp.csr_matrix], Any],
    words: str,
    command: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adata = simulate_cells()
    adata.X = stored(adata.X)
    adata.write_h5ad(folder / "cells.h5ad")
    monkeypatch.setattr("mmlab.datasets.io.count_search.available_memory", lambda: 1000)
    line = refusal(folder, capsys, monkeypatch, [*COMMANDS[command], "cells.h5ad", *KEY])
    assert "of memory, but 0.0 MB are free: 120 cells x 40 genes" in line
    assert words in line


# --- matrices, names and labels, in a file and in memory


def some_nan(adata: ad.AnnData) -> None:
    adata.X.data[:3] = np.nan


def one_infinite(adata: ad.AnnData) -> None:
    adata.X.data[0] = np.inf


def scaled(adata: ad.AnnData) -> None:
    dense = adata.X.toarray()
    adata.X = dense - dense.mean(axis=0)


def log_normalized(adata: ad.AnnData) -> None:
    adata.X = adata.X.log1p()


def counts_per_million(adata: ad.AnnData) -> None:
    adata.X = sp.csr_matrix(adata.X.multiply(1e6 / adata.X.sum(axis=1)))


def scaled_beside_log_normalized(adata: ad.AnnData) -> None:
    log_normalized(adata)
    adata.raw = adata
    scaled(adata)


def overflown(adata: ad.AnnData) -> None:
    counts = adata.X.astype(np.int32)
    counts.data[2] = np.int32(-(2**31))
    adata.X = counts


def wrapped(adata: ad.AnnData) -> None:
    counts = adata.X.astype(np.uint32)
    counts.data[2] = 2**32 - 1
    adata.X = counts


def too_large_for_float32(adata: ad.AnnData) -> None:
    counts = adata.X.astype(np.float64)
    counts.data[:2] = 2**24 + 1
    adata.X = counts


def complex_values(adata: ad.AnnData) -> None:
    adata.X = adata.X.astype(np.complex64)


def silent_cells(adata: ad.AnnData) -> None:
    counts = adata.X.toarray()
    counts[[3, 7]] = 0
    adata.X = sp.csr_matrix(counts)


def no_cells(adata: ad.AnnData) -> ad.AnnData:
    return adata[:0].copy()


def no_genes(adata: ad.AnnData) -> ad.AnnData:
    return adata[:, :0].copy()


def no_x(adata: ad.AnnData) -> ad.AnnData:
    return ad.AnnData(obs=adata.obs, var=adata.var)


def repeated_genes(adata: ad.AnnData) -> None:
    adata.var_names = ["Actb", "Actb", *adata.var_names[2:]]


def repeated_cells(adata: ad.AnnData) -> None:
    adata.obs_names = [*adata.obs_names[:-1], "cell_0"]


def empty_genes(adata: ad.AnnData) -> None:
    adata.var_names = ["", *adata.var_names[1:-1], " "]


def other_column(adata: ad.AnnData) -> None:
    adata.obs = adata.obs.rename(columns={"cell_type": "celltype"})


def no_column(adata: ad.AnnData) -> None:
    adata.obs = adata.obs[[]]


def missing_labels(adata: ad.AnnData) -> None:
    adata.obs.iloc[:2, 0] = None


def no_label_at_all(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = np.nan


def blank_labels(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = [" ", *adata.obs["cell_type"].astype(str)[1:]]


def small_classes(adata: ad.AnnData) -> None:
    labels = ["neuron"] * (adata.n_obs - 4) + ["rare"] * 3 + ["rarest"]
    adata.obs["cell_type"] = labels


def one_class(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = "neuron"


def float_labels(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = np.resize([0.0, 1.0], adata.n_obs)


def float_categories(adata: ad.AnnData) -> None:
    adata.obs["cell_type"] = pd.Categorical(np.resize([0.0, 1.5], adata.n_obs))


CELLS = [
    (12, some_nan, ["X has 3 NaN values (first in cell 'cell_0', gene 'Gene"]),
    (13, one_infinite, ["X has 1 infinite values (first in cell 'cell_0', gene 'Gene"]),
    (14, scaled, ["X has", "negative values (smallest -", "it looks scaled"]),
    (15, log_normalized, ["values that are not integers: it looks log-normalised (maximum"]),
    (15, counts_per_million, ["values that are not integers: it looks normalised (maximum"]),
    (15, scaled_beside_log_normalized, ["X (looks scaled, ", "raw (looks log-normalised, "]),
    (17, overflown, ["X has 1 negative values (smallest -2.15e+09", "like an integer overflow"]),
    (17, wrapped, ["X has 1 values above 16777216 (largest 4294967295, first in cell 'cell_0'"]),
    (17, too_large_for_float32, ["X has 2 values above 16777216 (largest 16777217, first"]),
    (19, complex_values, ["X has values of type complex64; raw counts are needed"]),
    (20, silent_cells, ["2 of 120 cells have no counts in X, first 'cell_3', 'cell_7'"]),
    (22, no_cells, ["there are 0 cells and 40 genes; at least one of each is needed"]),
    (22, no_genes, ["there are 120 cells and 0 genes; at least one of each is needed"]),
    (22, no_x, ["X is empty; raw counts are needed"]),
    (24, repeated_genes, ["1 gene names occur more than once, first 'Actb'"]),
    (25, repeated_cells, ["1 cell names occur more than once, first 'cell_0'"]),
    (26, empty_genes, ["2 genes have an empty name, first at position 0"]),
    (
        28,
        other_column,
        ["label_key 'cell_type' is not a column of obs", "donor", "; did you mean 'celltype'?"],
    ),
    (28, no_column, ["label_key 'cell_type' is not a column of obs (columns: none)"]),
    (
        29,
        missing_labels,
        ["obs['cell_type'] has no label for 2 of 120 cells, first 'cell_0', ", "--drop-unlabelled"],
    ),
    (29, no_label_at_all, ["has no label for 120 of 120 cells"]),
    (29, blank_labels, ["obs['cell_type'] has no label for 1 of 120 cells, first 'cell_0'"]),
    (
        30,
        small_classes,
        ["'rare' has 3, 'rarest' has 1", "leave these types out with --min-cells-per-type 4"],
    ),
    (
        31,
        one_class,
        ["obs['cell_type'] has only the type 'neuron'; at least two types are needed"],
    ),
    (32, float_labels, ["obs['cell_type'] contains floating-point numbers (such as 0.0)"]),
    (32, float_categories, ["obs['cell_type'] contains floating-point numbers (such as 0.0)"]),
]


def spoilt(spoil: Callable[[ad.AnnData], ad.AnnData | None]) -> ad.AnnData:
    adata = simulate_cells()
    changed = spoil(adata)
    return adata if changed is None else changed


@every_command
@pytest.mark.parametrize(("spoil", "words"), rows(CELLS))
def test_cells_of_a_file_that_cannot_be_used_are_refused(
    spoil: Callable[[ad.AnnData], ad.AnnData | None],
    words: list[str],
    command: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoilt(spoil).write_h5ad(folder / "cells.h5ad")
    line = refusal(folder, capsys, monkeypatch, [*COMMANDS[command], "cells.h5ad", *KEY])
    for part in ("cells.h5ad", *words):
        assert part in line


def broken_indices(adata: ad.AnnData) -> None:
    adata.X.indices[0] = 99_999


def object_values(adata: ad.AnnData) -> None:
    adata.X = adata.X.toarray().astype(object)


def backed(adata: ad.AnnData) -> ad.AnnData:
    adata.write_h5ad("backed.h5ad")
    return ad.read_h5ad("backed.h5ad", backed="r")


def raw_of_other_genes(adata: ad.AnnData) -> ad.AnnData:
    adata.raw = adata
    log_normalized(adata)
    return adata[:, :20].copy()


IN_MEMORY = [
    *CELLS,
    (9, broken_indices, ["X is corrupt: 1 of its indices point outside the matrix, first 99999"]),
    (15, raw_of_other_genes, ["the raw counts are in raw, which has 40 genes", "adata has 20"]),
    (18, object_values, ["X has values of type object; raw counts are needed"]),
    (36, backed, ["it is backed by backed.h5ad and not in memory: call its to_memory()"]),
]


@pytest.mark.parametrize(("spoil", "words"), rows(IN_MEMORY))
def test_cells_in_memory_that_cannot_be_used_are_refused(
    spoil: Callable[[ad.AnnData], ad.AnnData | None], words: list[str], folder: Path
) -> None:
    adata = spoilt(spoil)
    before = [list(adata.obs), list(adata.var), list(adata.uns)]
    with pytest.raises(UserError) as caught:
        mmlab.select_markers(adata, "cell_type", 5, method="scanpy_t_test")
    if adata.isbacked:
        adata.file.close()
    message = str(caught.value)
    assert message.startswith("adata: ")
    assert "\n" not in message
    for part in words:
        assert part in message
    assert [list(adata.obs), list(adata.var), list(adata.uns)] == before


@covers(35)
def test_a_view_is_copied(tiny_adata: ad.AnnData) -> None:
    before = tiny_adata.copy()
    view = tiny_adata[:100]
    mmlab.select_markers(view, "cell_type", 5, method="scanpy_t_test")
    assert view.n_obs == 100
    assert view.var["mmlab_marker"].sum() == 5
    assert not view.is_view
    np.testing.assert_array_equal(tiny_adata.X.toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(tiny_adata.var, before.var)
    assert "mmlab" not in tiny_adata.uns


# --- accepted, with a warning


def check(path: Path) -> Any:
    result = CliRunner().invoke(app, ["datasets", "check", str(path), *KEY, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@covers(21)
def test_genes_without_counts_are_a_warning_and_not_a_problem(
    folder: Path, tiny_adata: ad.AnnData
) -> None:
    counts = tiny_adata.X.toarray()
    counts[:, [2, 9]] = 0
    tiny_adata.X = sp.csr_matrix(counts)
    tiny_adata.write_h5ad(folder / "cells.h5ad")
    answer = check(folder / "cells.h5ad")
    assert answer["usable"] is True
    assert answer["warnings"] == [
        "2 of 40 genes have no counts in any cell, first 'Gene2', 'Gene9'"
    ]


@covers(27)
def test_markup_in_names_is_shown_as_text(folder: Path, tiny_adata: ad.AnnData) -> None:
    names = ["<script>alert(1)</script>", "[red]gene[/red]", "[/]", *tiny_adata.var_names[3:]]
    tiny_adata.var_names = names
    types = ["<img src=x>", "[bold]type[/bold]", "[/nothing]"]
    tiny_adata.obs["cell_type"] = tiny_adata.obs["cell_type"].cat.rename_categories(types)
    tiny_adata.write_h5ad(folder / "cells.h5ad")
    answer = check(folder / "cells.h5ad")
    assert (answer["problems"], answer["warnings"]) == ([], [])
    options = ["--data", "cells.h5ad", *KEY, "-k", "3", "--method", "random"]
    result = CliRunner().invoke(app, ["select", *options, "--include", ",".join(names[:3])])
    assert result.exit_code == 0, result.output
    assert f"Panel, best gene first: {', '.join(names[:3])}" in result.stdout
    tiny_adata.obs["cell_type"] = ["[/nothing]", *["[bold]type[/bold]"] * (tiny_adata.n_obs - 1)]
    tiny_adata.write_h5ad(folder / "cells.h5ad")
    result = CliRunner().invoke(app, ["datasets", "check", "cells.h5ad", *KEY])
    assert "'[/nothing]' 1" in result.stdout
    assert "'[/nothing]' has 1" in str(result.exception)


# --- other objects and calls


@pytest.fixture(scope="module")
def model(tiny_cells: Cells) -> Model:
    spec = TrialSpec(data=DataSpec(name="tiny"), selector="random")
    return fit_model(np.arange(6), tiny_cells, replicate_split(spec, tiny_cells, 0), {})


@covers(16)
@pytest.mark.parametrize("call", ["predict", "reconstruct"])
def test_counts_where_logarithms_are_needed_are_refused(
    model: Model, tiny_cells: Cells, call: str
) -> None:
    counts = tiny_cells.adata.to_df()
    with pytest.raises(UserError, match=r"the data frame looks like counts \(integers up to \d+\)"):
        getattr(model, call)(counts)
    logged = tiny_cells.adata.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(UserError, match=r"X of the AnnData has .* it looks log-normalised"):
        getattr(model, call)(logged)
    assert len(getattr(model, call)(np.log1p(counts * 0.7))) == len(counts)


@covers(33)
@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (([0, 1, 2], [3], [1, 2, 4]), "2 cells are in both train and test, the first is cell 1"),
        (([0, 1, 2], [2, 3], [4]), "1 cells are in both train and validation, the first is cell 2"),
        (([0, 1], [2, 3], [3]), "1 cells are in both validation and test, the first is cell 3"),
        (([0, 0], [1], [2]), "a cell occurs twice in the same set of the split"),
    ],
)
def test_parts_of_a_split_share_no_cell(parts: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Split(*(np.array(part, dtype=np.int64) for part in parts))


GENES = ["select", "--data", "cells.h5ad", *KEY, "-k", "5", "--method", "random"]
RANGES = ["tune", "--dataset", "toy_xor", "--search", "space.yaml"]
STUDY = "study: benchmark\ndata: {name: toy_xor}\nmethods: [random]\n"
TAG = "seed: !!python/object/apply:os.mkdir ['witness']"
SPACE = "selector: markermap_supervised\nparameters:\n  beta: "
PBMC = ["--dataset", "pbmc68k_reduced", "--gpus-per-trial", "1000"]
#: Number, command, contents of its YAML files, and words of the message.
COMMAND_LINES = [
    (
        23,
        [*GENES, "--layer", "splice"],
        "",
        ["layer 'splice' does not exist (existing: ", "); did you mean 'spliced'?"],
    ),
    (
        34,
        [*GENES, "--include", "Gene0,Actb"],
        "",
        ["include: 1 of 2 genes are not in cells: 'Actb'"],
    ),
    (37, ["run", "study.yaml"], STUDY + "colour: red", ["study.yaml: colour is not a known key"]),
    (37, ["run", "study.yaml"], STUDY + TAG, ["study.yaml is not valid YAML", "os.mkdir"]),
    (
        38,
        RANGES,
        SPACE + "{low: 0.9, high: 0.5}",
        ["parameters.beta: low must be smaller than high, got 0.9 and 0.5."],
    ),
    (
        38,
        RANGES,
        SPACE + "{low: 0.5, high: 0.5}",
        ["parameters.beta: low must be smaller than high, got 0.5 and 0.5."],
    ),
    (39, ["tune", *PBMC], "", ["a trial requests 1000 GPUs, but this machine has"]),
    (39, ["benchmark", *PBMC, "--methods", "random"], "", ["requests 1000 GPUs, but this machine"]),
]


@pytest.mark.parametrize(
    ("arguments", "content", "words"),
    [
        pytest.param(*row, id=f"{number} {row[0][0]}")
        for number, *row in COMMAND_LINES
        if covers(number)
    ],
)
def test_impossible_requests_are_refused_before_anything_is_written(
    arguments: list[str],
    content: str,
    words: list[str],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adata = simulate_cells()
    adata.layers["spliced"] = adata.X
    adata.write_h5ad(folder / "cells.h5ad")
    for name in ("study.yaml", "space.yaml"):
        (folder / name).write_text(content)
    line = refusal(folder, capsys, monkeypatch, arguments)
    for part in words:
        assert part in line
    assert not (folder / "witness").exists()


def test_every_bad_input_has_a_test() -> None:
    of_downloads = {5, 10, 11}
    assert set(range(1, 40)) - of_downloads == COVERED


def test_memory_that_does_not_suffice_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmlab.cli.app", lambda: torch.empty(2**50))
    assert "not enough memory" in refusal(folder, capsys, monkeypatch, [])
