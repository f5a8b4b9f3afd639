"""Fixtures over the tiny data of ``tiny.py``."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import settings
from numpy.typing import NDArray
from tiny import MARKERS, as_cells, simulate_cells

from mmlab.datasets.cells import Cells
from mmlab.preprocessing.recipes import prepare_layers

# The fixtures of a report with hostile names serve the tests of the folder and of the browser.
pytest_plugins = ["hostile"]

# Time is not tested, and a red test should be red again when it is run again.
settings.register_profile("mmlab", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("mmlab")


def pytest_configure() -> None:
    """One thread, in this process and in those it starts, unless the environment says more.

    Two threads that wait for each other make a small model up to a hundred times slower on a
    busy machine, and numba, which scanpy uses for sparse matrices, raises torch's number too.
    """
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # What tests leave of their studies and datasets is not for the user's home.
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="mmlab-tests-")
    os.environ["MMLAB_CACHE"] = tempfile.mkdtemp(prefix="mmlab-tests-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first: the others then fill what a second process has left."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture
def tiny_adata() -> ad.AnnData:
    """A fresh copy for every test, which may write to it."""
    return simulate_cells()


@pytest.fixture(scope="session")
def tiny_cells() -> Cells:
    """Shared by all tests: whoever writes to the counts gets an error."""
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
    """All layers of the tiny cells, statistics from all of them; the dense one is read-only."""
    everything = np.arange(tiny_cells.adata.n_obs)
    prepared = prepare_layers(tiny_cells.adata, tiny_cells.normalization, "paper", everything)
    prepared["zscore"].setflags(write=False)
    return prepared


@pytest.fixture(scope="session")
def zscore(layers: dict[str, Any]) -> NDArray[np.float32]:
    return np.asarray(layers["zscore"])


@pytest.fixture(scope="session")
def labels(tiny_cells: Cells) -> NDArray[np.str_]:
    """The class names of the tiny cells, one a cell."""
    return np.asarray(tiny_cells.classes)[tiny_cells.y]
