"""Toy example of the paper: three genes together are informative, a single gene is not."""

from __future__ import annotations

import numpy as np
import pytest

from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.trial.run import run_trial

N_SEEDS = 4


@pytest.fixture(scope="module")
def cells() -> Cells:
    return load_cells(DataSpec(name="toy_xor"))


def n_markers_found(cells: Cells, selector: str) -> list[int]:
    """Number of true markers in the panel of each seed."""
    truth = set(np.flatnonzero(cells.adata.var["is_marker"]))
    found = []
    for seed in range(N_SEEDS):
        spec = TrialSpec(data=DataSpec(name="toy_xor"), selector=selector, n_markers=3, seed=seed)
        panel = run_trial(spec, cells).panel["gene_index"]
        found.append(len(truth & set(panel)))
    return found


@pytest.mark.long
def test_supervised_markermap_finds_all_markers_with_most_seeds(cells: Cells) -> None:
    found = n_markers_found(cells, "markermap_supervised")
    assert found.count(3) > N_SEEDS / 2


def test_a_univariate_method_does_not_find_all_markers(cells: Cells) -> None:
    found = n_markers_found(cells, "scanpy_t_test")
    assert 3 not in found
