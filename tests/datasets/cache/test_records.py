from __future__ import annotations

import json
import pickle
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from commands import run
from tiny import as_cells, simulate_cells

from mmlab.datasets import DATASETS, add_file, load_cells
from mmlab.datasets import cells as cells_module
from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE, cache_folder
from mmlab.datasets.cache.cached_counts import open_cells
from mmlab.datasets.cache.install import simulate_dataset
from mmlab.datasets.cache.mapped_counts import map_counts, mapped_file, take_cells, write_counts
from mmlab.datasets.cache.records import list_records
from mmlab.datasets.simulation import Simulation
from mmlab.errors import UserError
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.trial.run import run_trial

SMALL = Simulation("toy", n_cells=600, n_genes=200, n_types=6, density=0.3, seed=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))


def test_mapped_counts_equal_the_counts_and_anndata_can_read_them(tmp_path: Path) -> None:
    adata = SMALL.load()
    path = tmp_path / "counts.h5ad"
    blocks = [adata.X[start : start + 256] for start in range(0, 600, 256)]
    write_counts(path, blocks, adata.obs, adata.var)
    mapped = map_counts(path)
    assert mapped_file(mapped) is not None
    assert mapped_file(adata.X) is None
    assert (mapped != adata.X).nnz == 0
    cells = np.random.default_rng(0).integers(0, 600, 300)
    for counts in (mapped, adata.X):
        assert (take_cells(counts, cells) != adata.X[cells]).nnz == 0
    with pytest.raises(ValueError, match="read-only"):
        mapped.data[0] = 1
    whole = ad.read_h5ad(path)
    assert (whole.X != adata.X).nnz == 0
    assert whole.obs.equals(adata.obs)
    assert [p.name for p in tmp_path.iterdir()] == ["counts.h5ad"]


def test_cells_of_the_cache_equal_cells_in_memory() -> None:
    record = simulate_dataset(DATASETS["toy_xor"], "toy_xor_simulated", n_cells=500, n_genes=100)
    stored = open_cells(record)
    simulation = Simulation("toy_xor", 500, 100, 2, record_density())
    in_memory = cells_module.make_cells(
        simulation.load(),
        "cell_type",
        name="x",
        normalization="total",
        origin="x",
        simulated=True,
    )
    assert stored.fingerprint == in_memory.fingerprint
    assert mapped_file(stored.adata.X) is not None
    assert stored.simulated
    np.testing.assert_array_equal(stored.adata.var["is_marker"], in_memory.adata.var["is_marker"])


def record_density() -> float:
    counts = DATASETS["toy_xor"].load().X
    return float(counts.nnz / (counts.shape[0] * counts.shape[1]))


def test_large_cells_are_pickled_as_a_reference_to_their_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = simulate_dataset(DATASETS["toy_xor"], "toy_xor_simulated", n_cells=500, n_genes=100)
    cells = open_cells(record)
    by_value = pickle.dumps(cells)
    monkeypatch.setattr(cells_module, "_MAX_PICKLED_BYTES", 1000)
    by_reference = pickle.dumps(cells)
    assert len(by_reference) < 3000 < len(by_value)
    for pickled in (by_value, by_reference):
        loaded = pickle.loads(pickled)
        assert loaded.fingerprint == cells.fingerprint
        assert (loaded.adata.X != cells.adata.X).nnz == 0
    assert mapped_file(pickle.loads(by_reference).adata.X) is not None
    # On a machine without the file, the error explains what to do.
    monkeypatch.setenv(FOLDER_VARIABLE, str(cache_folder() / "elsewhere"))
    with pytest.raises(UserError, match=r"are not in .* on this machine"):
        pickle.loads(by_reference)


# --- user files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The tiny cells after scanpy's preprocessing: log values in X, counts in a layer."""
    adata = simulate_cells()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    adata.write_h5ad(tmp_path / "mine.h5ad", compression="gzip")
    return tmp_path / "mine.h5ad"


def test_an_added_file_can_be_used_as_a_dataset(file: Path) -> None:
    command = ("datasets", "add", str(file), "--label-key", "cell_type", "--name", "mine", "--json")
    code, out = run(*command)
    assert code == 0, out
    record = json.loads(out)
    assert (record["n_cells"], record["n_genes"], record["n_classes"]) == (120, 40, 3)
    assert record["origin"] == "file mine.h5ad, counts in layer 'counts'"
    file.unlink()
    cells, expected = load_cells(DataSpec(name="mine")), as_cells(simulate_cells())
    assert cells.fingerprint == expected.fingerprint
    assert mapped_file(cells.adata.X) is not None
    spec = TrialSpec(data=DataSpec(name="mine"), selector="scanpy_t_test", n_markers=6)
    assert run_trial(spec).digest == run_trial(spec, expected).digest
    assert run(*command)[0] == 2


def test_cells_are_equal_by_name_and_by_path(file: Path) -> None:
    add_file(file, "cell_type", None, "mine")
    by_file = load_cells(DataSpec(path=str(file), label_key="cell_type"))
    assert load_cells(DataSpec(name="mine")).fingerprint == by_file.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zeisel", "zeisel is the name of a dataset of mmlab"),
        ("zeisel_simulated", "is the name of a dataset of mmlab"),
        ("../mine", r"'\.\./mine' is not a valid name of a dataset"),
        ("", "'' is not a valid name of a dataset"),
    ],
)
def test_an_invalid_name_is_rejected(name: str, message: str, file: Path) -> None:
    with pytest.raises(UserError, match=message):
        add_file(file, "cell_type", None, name)
    assert list_records() == {}


def test_an_unusable_file_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    adata = simulate_cells()
    adata.X = sp.csr_matrix(adata.X.toarray() - 1)
    adata.write_h5ad(tmp_path / "scaled.h5ad")
    with pytest.raises(UserError, match="negative"):
        add_file(tmp_path / "scaled.h5ad", "cell_type", None, "scaled")
    assert list_records() == {}
    assert not (cache_folder() / "counts").exists()
