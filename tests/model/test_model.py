"""Fitted panels: they reproduce the metrics of the benchmark, and load without running code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

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
def held_out(tiny_cells: Cells) -> ad.AnnData:
    """The cells of the held-out test set."""
    test = replicate_split(SPEC, tiny_cells, 0).test
    return tiny_cells.adata[test].copy()


def test_the_held_out_test_set_is_the_same_for_every_replicate_and_search(
    tiny_cells: Cells,
) -> None:
    search = SPEC.model_copy(update={"protocol": "search"})
    splits = [replicate_split(SPEC, tiny_cells, r) for r in range(3)]
    for split in [*splits, replicate_split(search, tiny_cells, 1)]:
        np.testing.assert_array_equal(split.test, splits[0].test)
        assert not set(split.train_validation) & set(split.test)
    assert set(splits[0].train) != set(splits[1].train)


def test_predictions_have_the_accuracy_of_the_benchmark(
    model: Model, result: TrialResult, held_out: ad.AnnData
) -> None:
    predicted = model.predict(held_out)
    correct = predicted["cell_type"].to_numpy() == held_out.obs["cell_type"].astype(str).to_numpy()
    assert correct.mean() == pytest.approx(result.metrics["knn/accuracy"], abs=1e-12)
    assert predicted["share"].between(0.2, 1).all()
    assert list(predicted.index) == list(held_out.obs_names)


def test_the_reconstruction_has_the_error_of_the_benchmark(
    model: Model, result: TrialResult, held_out: ad.AnnData, tiny_cells: Cells
) -> None:
    reconstructed = model.reconstruct(held_out)
    assert list(reconstructed.columns) == tiny_cells.genes.tolist()
    true = log_normalize(held_out.X, "total").toarray()
    error = np.square((true - reconstructed.to_numpy()) / model.sd).mean()
    assert error == pytest.approx(result.metrics["linear/l2"], rel=1e-3)


def test_a_model_with_float32_coefficients_is_loaded(
    model: Model, held_out: ad.AnnData, tmp_path: Path
) -> None:
    """Models were saved with float32 coefficients before they were computed in float64."""
    old: Any = {"coefficients": model.coefficients.astype(np.float32)}
    replace(model, **old).save(tmp_path)
    loaded = Model.load(tmp_path)
    assert loaded.coefficients.dtype == np.float32
    expected = model.reconstruct(held_out)
    pd.testing.assert_frame_equal(loaded.reconstruct(held_out), expected, rtol=1e-4, atol=1e-5)


def test_a_data_frame_needs_only_the_genes_of_the_panel(model: Model, held_out: ad.AnnData) -> None:
    values = log_normalize(held_out.X, "total").toarray()
    frame = pd.DataFrame(values, index=held_out.obs_names, columns=held_out.var_names)
    # The columns of the panel in another order.
    pd.testing.assert_frame_equal(
        model.predict(frame[sorted(model.markers)]), model.predict(held_out)
    )


def test_new_cells_may_have_the_original_names_of_genes(
    model: Model, held_out: ad.AnnData, tmp_path: Path
) -> None:
    symbols = [f"SYM{i}" for i in range(len(model.genes))]
    replace(model, genes=symbols, gene_ids=model.genes).save(tmp_path)
    renamed = Model.load(tmp_path)
    shuffled = held_out[:, ::-1].copy()
    pd.testing.assert_frame_equal(renamed.predict(shuffled), model.predict(held_out))
    shuffled.var_names = [symbols[model.genes.index(name)] for name in shuffled.var_names]
    pd.testing.assert_frame_equal(renamed.predict(shuffled), model.predict(held_out))
    shuffled.var_names = [*shuffled.var_names[:-1], "other"]
    with pytest.raises(UserError, match="lacks 1 genes that the model needs: SYM0"):
        renamed.predict(shuffled)


def test_a_loaded_model_equals_the_saved_one(
    model: Model, held_out: ad.AnnData, tmp_path: Path
) -> None:
    model.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    again = Model.load(tmp_path)
    assert again.markers == model.markers
    pd.testing.assert_frame_equal(again.predict(held_out), model.predict(held_out))
    pd.testing.assert_frame_equal(again.reconstruct(held_out), model.reconstruct(held_out))


def test_the_error_names_missing_genes(model: Model, held_out: ad.AnnData) -> None:
    missing = model.markers[0]
    with pytest.raises(UserError, match=f"the AnnData lacks 1 genes .*: {missing}"):
        model.predict(held_out[:, held_out.var_names != missing])
    # All genes are needed for the total counts.
    with pytest.raises(UserError, match="lacks 34 genes"):
        model.predict(held_out[:, model.markers])
    frame = pd.DataFrame(np.zeros((2, 1)), columns=[missing])
    with pytest.raises(UserError, match=f"the data frame lacks 5 genes .*: {model.markers[1]}"):
        model.predict(frame)


def test_values_that_are_not_finite_and_duplicate_genes_are_errors(model: Model) -> None:
    frame = pd.DataFrame(np.full((2, 6), np.nan), columns=model.markers)
    with pytest.raises(UserError, match="not finite"):
        model.predict(frame)
    duplicated = pd.DataFrame(np.zeros((2, 7)), columns=[*model.markers, model.markers[0]])
    with pytest.raises(UserError, match="duplicate gene names"):
        model.predict(duplicated)


def test_the_recipe_of_the_paper_is_rejected_with_a_held_out_test_set() -> None:
    with pytest.raises(ValueError, match="locked"):
        TrialSpec(data=DataSpec(name="tiny"), selector="random", protocol="locked", recipe="paper")
