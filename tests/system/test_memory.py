"""Peak memory covers only the measured computation, and trials do not leak memory."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from tiny import SMALL, as_cells, simulate_cells

from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.system import memory
from mmlab.system.memory import PeakMemory
from mmlab.trial.run import run_trial


def megabytes(n: int) -> np.ndarray[Any, Any]:
    return np.ones(n * 2**20, dtype=np.uint8)


def test_the_peak_includes_freed_memory() -> None:
    before = PeakMemory().read()["peak_memory_mb"]
    peak = PeakMemory()
    block = megabytes(200)
    del block
    after = peak.read()["peak_memory_mb"]
    assert 150 < after - before < 300


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset the peak"
)
def test_the_peak_excludes_memory_freed_before() -> None:
    block = megabytes(200)
    with_block = PeakMemory().read()["peak_memory_mb"]
    del block
    assert PeakMemory().read()["peak_memory_mb"] < with_block - 150


def test_the_peak_where_the_system_cannot_reset_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(Path, "write_text", fail)
    usage = resource.struct_rusage(range(16))
    monkeypatch.setattr(memory.resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert PeakMemory().read()["peak_memory_mb"] == usage.ru_maxrss / 2**20
    monkeypatch.setattr(memory.sys, "platform", "freebsd14")
    assert PeakMemory().read()["peak_memory_mb"] == usage.ru_maxrss / 1024


@pytest.mark.slow
def test_twenty_consecutive_trials_do_not_leak_memory() -> None:
    cells = as_cells(simulate_cells(400, 2500))
    matrix_mb = cells.adata.n_obs * cells.adata.n_vars * 4 / 2**20
    resident = []
    for seed in range(20):
        spec = TrialSpec(
            data=DataSpec(path="tiny.h5ad", label_key="cell_type"),
            selector="markermap_joint",
            params=SMALL,
            n_markers=6,
            seed=seed,
        )
        result = run_trial(spec, cells)
        resident.append(psutil.Process().memory_info().rss / 2**20)
        assert resident[-1] <= result.peak_memory["peak_memory_mb"] + 10
    # If each trial leaked one dense matrix of the cells, this would be 15 matrices.
    assert resident[-1] - resident[4] < 5 * matrix_mb


def test_an_allocation_that_fails_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert memory.is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as of_numpy:
        np.ones(2**50)
    assert memory.is_out_of_memory(of_numpy.value)
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not memory.is_out_of_memory(RuntimeError("shapes differ"))
