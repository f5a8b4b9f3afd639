"""`mmlab.select_markers` as a scanpy user calls it."""

from __future__ import annotations

import doctest

import anndata as ad
import numpy as np
import pytest

import mmlab
import mmlab.api
from mmlab.errors import UserError

FAST = {"max_epochs": 3, "hidden_size": 16}


@pytest.mark.parametrize("method", ["random", "scanpy_t_test", "markermap_supervised"])
def test_result_is_written_where_scverse_users_look(tiny_adata: ad.AnnData, method: str) -> None:
    params = FAST if method.startswith("markermap") else {}
    answer = mmlab.select_markers(tiny_adata, "cell_type", 5, method=method, **params)
    assert answer is None
    marker = tiny_adata.var["mmlab_marker"]
    assert marker.dtype == bool
    assert marker.sum() == 5
    assert np.isfinite(tiny_adata.var["mmlab_score"]).all()
    record = tiny_adata.uns["mmlab"]
    assert set(record["panel"]) == set(tiny_adata.var_names[marker])
    assert (record["method"], record["n_markers"], record["seed"]) == (method, 5, 0)
    assert record["version"] == mmlab.__version__
    assert record["params"] == params | record["params"]


def test_counts_and_labels_are_not_changed(tiny_adata: ad.AnnData) -> None:
    before = tiny_adata.copy()
    mmlab.select_markers(tiny_adata, "cell_type", 5, method="scanpy_t_test")
    assert (tiny_adata.X != before.X).sum() == 0
    assert tiny_adata.obs.equals(before.obs)
    assert set(tiny_adata.var) - set(before.var) == {"mmlab_marker", "mmlab_score"}


def test_copy_leaves_the_original_alone(tiny_adata: ad.AnnData) -> None:
    changed = mmlab.select_markers(tiny_adata, "cell_type", 5, method="random", copy=True)
    assert changed is not None
    assert "mmlab_marker" in changed.var
    assert "mmlab_marker" not in tiny_adata.var
    assert "mmlab" not in tiny_adata.uns


def test_layer_holds_the_counts(tiny_adata: ad.AnnData) -> None:
    plain = mmlab.select_markers(tiny_adata, "cell_type", 5, method="scanpy_t_test", copy=True)
    tiny_adata.layers["counts"] = tiny_adata.X.copy()
    tiny_adata.X = np.log1p(tiny_adata.X.toarray())
    layered = mmlab.select_markers(
        tiny_adata, "cell_type", 5, method="scanpy_t_test", layer="counts", copy=True
    )
    assert plain is not None
    assert layered is not None
    assert layered.uns["mmlab"]["panel"] == plain.uns["mmlab"]["panel"]
    with pytest.raises(UserError, match="looks log-normalised"):
        mmlab.select_markers(tiny_adata, "cell_type", 5, layer="X")


def test_same_seed_gives_the_same_panel(tiny_adata: ad.AnnData) -> None:
    panels = []
    for seed in (0, 0, 1):
        mmlab.select_markers(tiny_adata, "cell_type", 5, seed=seed, **FAST)
        panels.append(tiny_adata.uns["mmlab"]["panel"])
    assert panels[0] == panels[1]
    assert panels[0] != panels[2]


def test_result_survives_writing_and_reading(tiny_adata: ad.AnnData, tmp_path: object) -> None:
    mmlab.select_markers(tiny_adata, "cell_type", 5, **FAST)
    path = f"{tmp_path}/cells.h5ad"
    tiny_adata.write_h5ad(path)
    again = ad.read_h5ad(path)
    assert list(again.uns["mmlab"]["panel"]) == tiny_adata.uns["mmlab"]["panel"]
    assert again.var["mmlab_marker"].equals(tiny_adata.var["mmlab_marker"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"label_key": "celltype"}, "did you mean 'cell_type'"),
        ({"label_key": "cell_type", "n_markers": 41}, "has 40 genes"),
        ({"label_key": "cell_type", "method": "markermapp"}, "Did you mean"),
        ({"label_key": "cell_type", "layer": "raw"}, "layer 'raw' does not exist"),
        ({"label_key": "cell_type", "beta": 2.0}, "beta is 2.0, but must be in"),
    ],
)
def test_mistakes_are_errors_and_nothing_is_written(
    tiny_adata: ad.AnnData, arguments: dict[str, object], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        mmlab.select_markers(tiny_adata, **{"n_markers": 5, **arguments})  # type: ignore[arg-type]
    assert "mmlab" not in tiny_adata.uns
    assert "mmlab_marker" not in tiny_adata.var


def test_example_of_the_docstring_runs() -> None:
    assert doctest.testmod(mmlab.api).failed == 0
