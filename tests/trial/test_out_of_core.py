"""Datasets that are read from disk give the same results as datasets in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import SMALL, as_cells, simulate_cells

from mmlab.datasets.cache.mapped_counts import map_counts, mapped_file, write_counts
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.model import fit_model
from mmlab.nn.cell_reader import CellReader
from mmlab.preprocessing import expression, recipes
from mmlab.preprocessing.expression import Expression
from mmlab.preprocessing.normalization import log_normalize
from mmlab.preprocessing.recipes import gene_statistics, prepare_layers
from mmlab.preprocessing.splits import replicate_split, sampling_note, subsample
from mmlab.report.panel import describe_panel
from mmlab.selectors import SELECTORS
from mmlab.spec.protocol import MAX_EVALUATION_CELLS, MAX_FIT_CELLS
from mmlab.spec.trial import DataSpec, LabelNoise, TrialSpec
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.run import run_trial

FROM_DISK = sorted(name for name, s in SELECTORS.items() if s.reads_from_disk and name != "oracle")


@pytest.fixture
def mapped(tiny_cells: Cells, tmp_path: Path) -> Cells:
    """The tiny cells with their counts memory-mapped from a file."""
    adata = tiny_cells.adata
    write_counts(tmp_path / "counts.h5ad", [adata.X[:50], adata.X[50:]], adata.obs, adata.var)
    copy = adata.copy()
    copy.X = map_counts(tmp_path / "counts.h5ad")
    assert mapped_file(copy.X) is not None
    return as_cells_of(copy, tiny_cells)


def as_cells_of(adata: Any, like: Cells) -> Cells:
    return Cells("tiny", adata, like.label_key, like.normalization, like.origin, like.simulated)


@pytest.fixture
def large_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the tiny cells as too large for memory and read a few cells at a time."""
    monkeypatch.setattr(recipes, "MAX_DENSE_BYTES", 0)
    monkeypatch.setattr(expression, "_MAX_BLOCK_VALUES", 1000)


def spec_of(name: str, **more: Any) -> TrialSpec:
    params = SMALL if name.startswith("markermap") or name.endswith("vae") else {}
    content = {"data": DataSpec(name="tiny"), "selector": name, "params": params, "n_markers": 6}
    return TrialSpec(**content | more)


@pytest.mark.parametrize(
    ("name", "protocol"), [("markermap_joint", "search"), *[(name, "paper") for name in FROM_DISK]]
)
def test_a_trial_on_disk_equals_one_in_memory(
    name: str, protocol: str, tiny_cells: Cells, mapped: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two replicates are trained as a batch of two models.
    spec = spec_of(name, protocol=protocol, replicates=2 if protocol == "search" else 1)
    monkeypatch.setattr(expression, "_MAX_BLOCK_VALUES", 1000)
    in_memory = run_trial(spec, tiny_cells)
    monkeypatch.setattr(recipes, "MAX_DENSE_BYTES", 0)
    from_disk = run_trial(spec, mapped)
    assert from_disk.digest == in_memory.digest
    assert from_disk.metrics == in_memory.metrics
    assert from_disk.panel.equals(in_memory.panel)
    assert from_disk.history.equals(in_memory.history)


@pytest.mark.parametrize("name", ["scanpy_t_test", "persist_supervised"])
def test_a_method_that_needs_all_cells_loads_them_into_memory(
    name: str, tiny_cells: Cells, mapped: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = {"elimination_epochs": 2, "selection_epochs": 3} if "persist" in name else {}
    spec = spec_of(name, params=fast, noise=LabelNoise(level=0.2, kind="pairwise"))
    in_memory = run_trial(spec, tiny_cells)
    monkeypatch.setattr(recipes, "MAX_DENSE_BYTES", 0)
    assert run_trial(spec, mapped).metrics == in_memory.metrics


def test_a_range_test_reads_from_disk(
    tiny_cells: Cells, mapped: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SMALL | {"learning_rate": "auto"}
    spec = spec_of("markermap_supervised", params=params, exclude=["Gene3", "Gene5"])
    in_memory = run_trial(spec, tiny_cells)
    monkeypatch.setattr(recipes, "MAX_DENSE_BYTES", 0)
    assert run_trial(spec, mapped).metrics == in_memory.metrics


def test_model_and_panel_table_of_cells_on_disk(
    tiny_cells: Cells, mapped: Cells, large_cells: None
) -> None:
    panel = np.array([3, 17, 31])
    split = replicate_split(spec_of("random"), tiny_cells, 0)
    ours, expected = (fit_model(panel, cells, split, {}) for cells in (mapped, tiny_cells))
    np.testing.assert_array_equal(ours.coefficients, expected.coefficients)
    np.testing.assert_array_equal(ours.cells, expected.cells)
    tables = [describe_panel([panel], cells) for cells in (mapped, tiny_cells)]
    assert tables[0].equals(tables[1])


def test_too_little_memory_is_an_error_before_any_work(
    mapped: Cells, large_cells: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Free", (), {"available": 1000}))
    with pytest.raises(UserError, match=r"in memory, about .* GB are free; these methods"):
        resolve_spec(spec_of("scanpy_t_test"), mapped)
    assert resolve_spec(spec_of("markermap_supervised"), mapped).n_markers == 6


# --- layers


@pytest.mark.parametrize("layer", ["counts", "log1p", "zscore"])
def test_a_layer_read_from_disk_equals_the_dense_one(
    layer: Any, tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = np.arange(10, 90)
    dense: Any = prepare_layers(tiny_cells.adata, "total", "train_only", train)[layer]
    dense = dense if isinstance(dense, np.ndarray) else dense.toarray()
    monkeypatch.setattr(recipes, "MAX_DENSE_BYTES", 0)
    monkeypatch.setattr(expression, "_MAX_BLOCK_VALUES", 40 * 7)
    lazy: Expression = prepare_layers(tiny_cells.adata, "total", "train_only", train)[layer]
    some, genes = np.array([5, 2, 77, 5]), np.array([9, 0])
    np.testing.assert_array_equal(lazy.toarray(), dense)
    np.testing.assert_array_equal(lazy[some].toarray(), dense[some])
    np.testing.assert_array_equal(lazy[some][1:3].toarray(), dense[some][1:3])
    np.testing.assert_array_equal(lazy[some, genes].toarray(), dense[np.ix_(some, genes)])
    np.testing.assert_array_equal(lazy[:, genes][some].toarray(), dense[np.ix_(some, genes)])
    np.testing.assert_array_equal(lazy[10:30].toarray(), dense[10:30])
    assert lazy[some, genes].shape == (4, 2)
    assert len(lazy[:40]) == 40


def test_gene_statistics_equal_numpys(tiny_cells: Cells) -> None:
    values = log_normalize(tiny_cells.adata.X, "total")
    mean, sd = gene_statistics(values, np.arange(70))
    dense = values[:70].toarray().astype(float)
    np.testing.assert_array_equal(mean, dense.mean(axis=0).astype(np.float32))
    np.testing.assert_array_equal(sd, dense.std(axis=0, ddof=1).astype(np.float32))


def test_a_reader_returns_batches_in_the_requested_order(
    tiny_cells: Cells,
) -> None:
    everything = Expression(tiny_cells.adata.X, "log1p", "total")
    dense = everything.toarray()
    reader = CellReader([everything, everything[::-1]], "cpu")
    both = torch.from_numpy(np.stack([dense, dense[::-1]]))
    rng = np.random.default_rng(0)
    batches = [torch.from_numpy(rng.integers(0, 120, (2, 9))) for _ in range(13)]

    def expected(indices: Any) -> NDArray[np.float32]:
        return np.stack([both[m, indices[m]].numpy() for m in range(2)])

    for indices in reader.prefetch(batches):
        np.testing.assert_array_equal(reader.gather(indices), expected(indices))
        # Other batches may be read in between.
        np.testing.assert_array_equal(reader.gather(batches[0]), expected(batches[0]))
    for ours, theirs in (
        (reader.split(50, dim=1), both.split(50, dim=1)),
        (reader.tensor_split(7, dim=1), both.tensor_split(7, dim=1)),
        (reader[1:2].split(33, dim=1), both[1:2].split(33, dim=1)),
    ):
        for part, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(part, other)


def test_an_error_while_reading_ahead_is_raised(tiny_cells: Cells) -> None:
    reader = CellReader([Expression(tiny_cells.adata.X, "log1p", "total")], "cpu")
    batches = [torch.tensor([[0, 1]]), torch.tensor([[0, 500]])]
    with pytest.raises(IndexError):
        for indices in reader.prefetch(batches):
            reader.gather(indices)


# --- samples of large datasets


def test_a_subsample_takes_both_ends_of_a_part() -> None:
    np.testing.assert_array_equal(subsample(10, 10), np.arange(10))
    assert subsample(11, 4).tolist() == [0, 1, 9, 10]
    assert len(subsample(1001, 7)) == 7
    assert sampling_note(40_532) == ""
    assert (
        f"{MAX_FIT_CELLS:,} cells and evaluated on at most {MAX_EVALUATION_CELLS:,}"
        in sampling_note(70_000)
    )


def test_metrics_are_computed_on_the_subsample(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = as_cells(simulate_cells(n_cells=400))
    for module in ("mmlab.trial.replicate", "mmlab.selectors.validation_score"):
        monkeypatch.setattr(f"{module}.MAX_FIT_CELLS", 60)
        monkeypatch.setattr(f"{module}.MAX_EVALUATION_CELLS", 20)
    result = run_trial(spec_of("markermap_supervised"), cells)
    assert result.confusion["knn"].sum() == 20
    assert (result.confusion["knn"].sum(axis=1) > 0).all()
