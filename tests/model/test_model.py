"""Panels ready for use: they predict what the benchmark measured, from files without code."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.model import Model, fit_model
from mmlab.preprocessing.normalization import log_normalize
from mmlab.preprocessing.splits import replicate_split
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.trial.result import TrialResult
from mmlab.trial.run import run_trial

SPEC = TrialSpec(
    data=DataSpec(name="tiny"), selector="scanpy_t_test", n_markers=6, protocol="locked"
)


@pytest.fixture(scope="module")
def result(tiny_cells: Cells) -> TrialResult:
    return run_trial(SPEC, tiny_cells)


@pytest.fixture(scope="module")
def model(result: TrialResult, tiny_cells: Cells) -> Model:
    panel = result.panel["gene_index"].to_numpy(dtype=np.int64)
    return fit_model(panel, tiny_cells, replicate_split(SPEC, tiny_cells, 0), {"dataset": "tiny"})


@pytest.fixture(scope="module")
def locked(tiny_cells: Cells) -> ad.AnnData:
    """The cells that no search sees."""
    test = replicate_split(SPEC, tiny_cells, 0).test
    return tiny_cells.adata[test].copy()


def test_the_locked_cells_are_the_same_for_every_replicate_and_in_no_search(
    tiny_cells: Cells,
) -> None:
    search = SPEC.model_copy(update={"protocol": "search"})
    splits = [replicate_split(SPEC, tiny_cells, r) for r in range(3)]
    for split in [*splits, replicate_split(search, tiny_cells, 1)]:
        np.testing.assert_array_equal(split.test, splits[0].test)
        assert not set(split.train_validation) & set(split.test)
    assert set(splits[0].train) != set(splits[1].train)


def test_it_predicts_what_the_benchmark_has_measured(
    model: Model, result: TrialResult, locked: ad.AnnData
) -> None:
    predicted = model.predict(locked)
    right = predicted["cell_type"].to_numpy() == locked.obs["cell_type"].astype(str).to_numpy()
    assert right.mean() == pytest.approx(result.metrics["knn/accuracy"], abs=1e-12)
    assert predicted["share"].between(0.2, 1).all()
    assert list(predicted.index) == list(locked.obs_names)


def test_it_reconstructs_what_the_benchmark_has_measured(
    model: Model, result: TrialResult, locked: ad.AnnData, tiny_cells: Cells
) -> None:
    rebuilt = model.reconstruct(locked)
    assert list(rebuilt.columns) == tiny_cells.genes.tolist()
    true = log_normalize(locked.X, "total").toarray()
    error = np.square((true - rebuilt.to_numpy()) / model.sd).mean()
    assert error == pytest.approx(result.metrics["linear/l2"], rel=1e-3)


def test_a_data_frame_of_the_panel_is_enough(model: Model, locked: ad.AnnData) -> None:
    values = log_normalize(locked.X, "total").toarray()
    frame = pd.DataFrame(values, index=locked.obs_names, columns=locked.var_names)
    # Columns in any order, and only those of the panel.
    pd.testing.assert_frame_equal(
        model.predict(frame[sorted(model.markers)]), model.predict(locked)
    )


def test_saved_and_loaded_it_is_the_same(model: Model, locked: ad.AnnData, tmp_path: Path) -> None:
    model.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    again = Model.load(tmp_path)
    assert again.markers == model.markers
    pd.testing.assert_frame_equal(again.predict(locked), model.predict(locked))
    pd.testing.assert_frame_equal(again.reconstruct(locked), model.reconstruct(locked))


def test_missing_genes_are_named(model: Model, locked: ad.AnnData) -> None:
    missing = model.markers[0]
    with pytest.raises(UserError, match=f"the AnnData lacks 1 genes .*: {missing}"):
        model.predict(locked[:, locked.var_names != missing])
    # Total counts are those of all genes.
    with pytest.raises(UserError, match="lacks 34 genes"):
        model.predict(locked[:, model.markers])
    frame = pd.DataFrame(np.zeros((2, 1)), columns=[missing])
    with pytest.raises(UserError, match=f"the data frame lacks 5 genes .*: {model.markers[1]}"):
        model.predict(frame)


def test_what_is_no_number_is_refused(model: Model) -> None:
    frame = pd.DataFrame(np.full((2, 6), np.nan), columns=model.markers)
    with pytest.raises(UserError, match="not finite"):
        model.predict(frame)
    twice = pd.DataFrame(np.zeros((2, 7)), columns=[*model.markers, model.markers[0]])
    with pytest.raises(UserError, match="a gene twice"):
        model.predict(twice)


def test_the_paper_recipe_would_show_the_locked_cells() -> None:
    with pytest.raises(ValueError, match="locked"):
        TrialSpec(data=DataSpec(name="tiny"), selector="random", protocol="locked", recipe="paper")
