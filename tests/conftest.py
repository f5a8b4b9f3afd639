"""Shared fixtures, based on the simulated data of ``tiny.py``."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from tiny import MARKERS, as_cells, simulate_cells

from mmlab.datasets.cells import Cells
from mmlab.preprocessing.recipes import prepare_layers

# Fixtures of a report with hostile names, and of a tracking server with all its parts.
pytest_plugins = ["hostile", "tracking_stack"]

# Timing is not tested: no deadline, and a busy machine may be slow. Derandomised, so that failures
# are reproducible.
settings.register_profile(
    "mmlab",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mmlab")


def pytest_configure() -> None:
    """Limit this process and its children to one thread, unless the environment sets more.

    On a busy machine, two threads that wait for each other make a small model up to a hundred
    times slower. Numba, which scanpy uses for sparse matrices, also raises the number of threads
    of torch.
    """
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Of the environment of the developer, nothing decides where tests write.
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    # Keep studies and datasets of the tests out of the home folder.
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="mmlab-tests-")
    os.environ["MMLAB_CACHE"] = tempfile.mkdtemp(prefix="mmlab-tests-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first, to balance the load of parallel test processes."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def tiny_adata() -> ad.AnnData:
    """Simulated data as AnnData; a new copy for each test, which may modify it."""
    return simulate_cells()


@pytest.fixture(scope="session")
def tiny_cells() -> Cells:
    """Simulated data as Cells, shared by all tests; the counts are read-only."""
    cells = as_cells(simulate_cells())
    counts: sp.csr_matrix = cells.adata.X
    for part in (counts.data, counts.indices, counts.indptr):
        part.setflags(write=False)
    return cells


@pytest.fixture(scope="session")
def true_markers() -> set[int]:
    return {gene for genes in MARKERS for gene in genes}


@pytest.fixture(scope="session")
def layers(tiny_cells: Cells) -> dict[Any, Any]:
    """All layers of the tiny cells with statistics over all cells; z-scores are read-only."""
    all_cells = np.arange(tiny_cells.adata.n_obs)
    prepared = prepare_layers(tiny_cells.adata, tiny_cells.normalization, "paper", all_cells)
    prepared["zscore"].setflags(write=False)
    return prepared


@pytest.fixture(scope="session")
def zscore(layers: dict[str, Any]) -> NDArray[np.float32]:
    return np.asarray(layers["zscore"])


@pytest.fixture(scope="session")
def labels(tiny_cells: Cells) -> NDArray[np.str_]:
    """Class names of the tiny cells, one per cell."""
    return np.asarray(tiny_cells.classes)[tiny_cells.y]
