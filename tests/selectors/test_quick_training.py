"""The budget of ``--quick``: steps, epochs and batches by number of training cells."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmlab.datasets import DATASETS
from mmlab.datasets.cells import Cells, make_cells
from mmlab.nn.batches import shuffled_minibatches
from mmlab.nn.layers import RandomSource
from mmlab.preprocessing.splits import n_training_cells
from mmlab.selectors import SELECTORS, default_params, quick_params
from mmlab.selectors.quick_training import steps_per_epoch
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.spec.yaml import read_spec
from mmlab.trial.run import run_trial

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
QUICK = [name for name, selector in SELECTORS.items() if selector.quick is not None]
GENES_PER_TYPE = 3


def n_steps(n_cells: int, max_epochs: int, batch_size: int) -> int:
    """Steps of a training, counted in the minibatches that it draws."""
    noise = RandomSource([torch.Generator().manual_seed(0)])
    return max_epochs * len(shuffled_minibatches(n_cells, batch_size, noise))


@given(n_cells=st.integers(2, 2000), batch_size=st.integers(2, 300))
def test_steps_per_epoch_are_the_minibatches_of_the_training(n_cells: int, batch_size: int) -> None:
    assert steps_per_epoch(n_cells, batch_size) == n_steps(n_cells, 1, batch_size)


# By hand: 833 cells are 60 x 13 = 780 default steps, as the 833rd joins the last batch, less than
# twice 58 x 7 = 406; 834 cells are 60 x 14 = 840. Batches of 128 give 7, 11, 17, 48 and 219 steps.
@pytest.mark.parametrize(
    ("n_cells", "supervised", "unsupervised"),
    [
        (84, None, None),
        (489, None, None),
        (833, None, None),
        (834, 58, 58),
        (1345, 37, 37),
        (2103, 24, 24),
        (6031, 9, 9),
        (28_000, 7, 9),
        (700_000, 7, 9),
    ],
)
def test_number_of_epochs(n_cells: int, supervised: int | None, unsupervised: int | None) -> None:
    epochs = {name: quick_params(name, n_cells).get("max_epochs") for name in QUICK}
    assert epochs == {
        "markermap_supervised": supervised,
        "markermap_joint": supervised,
        "markermap_unsupervised": unsupervised,
    }


@given(n_cells=st.integers(3, 100_000), name=st.sampled_from(QUICK))
def test_at_least_the_budget_and_at_most_half_of_the_default_steps(n_cells: int, name: str) -> None:
    params, defaults = quick_params(name, n_cells), default_params(name)
    default = n_steps(n_cells, int(defaults["max_epochs"]), int(defaults["batch_size"]))
    if not params:
        assert n_cells < 1000
        return
    steps = n_steps(n_cells, int(params["max_epochs"]), int(params["batch_size"]))
    assert 400 <= steps <= default / 2
    assert int(params["batch_size"]) <= n_cells / 6
    assert params["min_epochs"] == params["max_epochs"]


@pytest.mark.parametrize("name", ["zeisel", "citeseq"])
def test_the_studies_of_robustness_train_as_quick_does(name: str) -> None:
    spec = read_spec(EXPERIMENTS / f"robustness_{name}.yaml", ComparisonSpec)
    quick = [method for method in spec.methods if method.title.endswith("(quick)")]
    assert {method.selector for method in quick} == set(QUICK)
    n_cells = n_training_cells(DATASETS[name].n_cells)
    for method in quick:
        assert method.params == quick_params(method.selector, n_cells)


def test_method_without_quick_training_has_no_quick_parameters() -> None:
    assert quick_params("scanpy_t_test", 10_000) == {}


def cells_with_a_rare_type(n_cells: int = 1200, n_genes: int = 120) -> Cells:
    """Negative-binomial counts of four types; type 0 is 2 % of the cells, each has 3 markers."""
    rng = np.random.default_rng(0)
    n_rare = n_cells // 50
    y = rng.permutation(np.r_[np.zeros(n_rare, int), 1 + np.arange(n_cells - n_rare) % 3])
    mean = np.where(np.arange(n_genes) // GENES_PER_TYPE == y[:, None], 14.0, 2.0)
    counts = rng.negative_binomial(4, 4 / (4 + mean)).astype(np.float32)
    obs = pd.DataFrame({"cell_type": y.astype(str)}, index=[f"cell_{i}" for i in range(n_cells)])
    var = pd.DataFrame(index=[f"gene_{i}" for i in range(n_genes)])
    adata = ad.AnnData(sp.csr_matrix(counts), obs=obs, var=var)
    return make_cells(adata, "cell_type", name="rare", normalization="total", origin="simulated")


def test_rare_type_keeps_a_marker() -> None:
    cells, name = cells_with_a_rare_type(), "markermap_supervised"
    spec = TrialSpec(
        data=DataSpec(path="cells.h5ad", label_key="cell_type"),
        selector=name,
        params=quick_params(name, n_training_cells(len(cells.y))),
        n_markers=4 * GENES_PER_TYPE,
    )
    panel = run_trial(spec, cells).panel["gene_index"]
    types = set((panel // GENES_PER_TYPE).tolist())
    assert {0, 1, 2, 3} <= types
