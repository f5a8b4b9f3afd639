"""Arguments of the Python interface: numbers of numpy, Series, and mistakes of type."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from tiny import SMALL_OF_ALL, simulate_cells

import mmlab
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.model import Model, fit_model
from mmlab.preprocessing.splits import replicate_split
from mmlab.selectors import SELECTORS
from mmlab.spec.trial import DataSpec, TrialSpec


def select(**changes: Any) -> dict[str, Any]:
    """What a call of ``select_markers`` on the tiny cells writes."""
    adata = changes.pop("adata", None)
    adata = simulate_cells() if adata is None else adata
    options = {"label_key": "cell_type", "n_markers": 5, "method": "scanpy_t_test"} | changes
    result = mmlab.select_markers(adata, copy=True, **options)
    assert result is not None
    content: dict[str, Any] = result.uns["mmlab"]
    return content


def genes() -> pd.Index:
    return simulate_cells().var_names


TRAINING = {"max_epochs": 2, "min_epochs": 1, "hidden_size": 16, "batch_size": 32}


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8, np.array])
def test_numbers_of_numpy_are_numbers(integer: Any) -> None:
    plain = select(n_markers=6, seed=3, min_per_type=1, method="markermap_supervised", **TRAINING)
    params = {name: integer(value) for name, value in TRAINING.items()}
    other = select(
        n_markers=integer(6),
        seed=integer(3),
        min_per_type=integer(1),
        method="markermap_supervised",
        **params,
    )
    assert other["panel"] == plain["panel"]
    assert other["params"] == plain["params"]
    assert {type(other[name]) for name in ("n_markers", "seed")} == {int}


@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_floats_of_numpy_are_numbers(number: Any) -> None:
    plain = select(method="markermap_supervised", learning_rate=0.0078125, **TRAINING)
    options = {"max_mean_counts": number(1000), "learning_rate": number(0.0078125)}
    other = select(method="markermap_supervised", **options, **TRAINING)
    assert other["panel"] == plain["panel"]
    assert type(other["params"]["learning_rate"]) is float


@pytest.mark.parametrize("name", [name for name in SELECTORS if name != "oracle"])
def test_selectors_take_numbers_of_numpy(name: str, tiny_cells: Cells) -> None:
    counts, y = tiny_cells.adata.X.toarray(), tiny_cells.y
    known = signature(SELECTORS[name]).parameters
    params = {key: value for key, value in SMALL_OF_ALL.items() if key in known}
    params |= {"n_markers": 5, "seed": 2}
    panels = []
    for integer in (int, np.int64):
        numbers = {
            key: integer(value) if isinstance(value, int) else value
            for key, value in params.items()
        }
        selector = SELECTORS[name](**numbers)
        X = counts if selector.input_layer == "counts" else np.log1p(counts)
        validation = {} if selector.fits_on_validation else {"X_val": X[:20], "y_val": y[:20]}
        panels.append(selector.fit(X, y, counts=counts, **validation).panel_.tolist())
    assert panels[0] == panels[1]


@pytest.mark.parametrize("kind", ["object", "category", "string"])
def test_groups_and_weights_may_be_series(kind: str) -> None:
    groups = pd.Series(["a"] * 20 + ["b"] * 20, index=genes())
    weights = pd.Series(np.linspace(0.1, 1, 40), index=genes())
    expected = select(groups=groups.to_dict(), max_per_group=3, weights=weights.to_dict())
    given = select(groups=groups.astype(kind), max_per_group=np.int64(3), weights=weights)
    assert given["panel"] == expected["panel"]
    assert given["constraints"] == expected["constraints"]


def test_missing_values_of_a_series_are_left_out() -> None:
    groups = pd.Series(["a", np.nan] * 20, index=genes())
    weights = pd.Series([np.nan, 0.5] * 20, index=genes())
    expected = select(
        groups=groups.dropna().to_dict(), max_per_group=2, weights=weights.dropna().to_dict()
    )
    given = select(groups=groups, max_per_group=2, weights=weights)
    assert given["constraints"] == expected["constraints"]


def test_lists_of_genes_may_be_of_any_kind() -> None:
    expected = select(include=["Gene0", "Gene1"])["panel"]
    for include in (("Gene0", "Gene1"), np.array(["Gene0", "Gene1"]), genes()[:2]):
        assert select(include=include)["panel"] == expected
    assert select(include=pd.Series(["Gene0", "Gene1"]), exclude=None)["panel"] == expected


class MuData:
    """Of the name by which a MuData is recognised."""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"include": "Gene0"}, "include is the single name 'Gene0': pass a list, ['Gene0']."),
        ({"exclude": "Gene0"}, "exclude is the single name 'Gene0': pass a list, ['Gene0']."),
        ({"include": 3}, "include is of type int: pass a list of gene names."),
        ({"groups": "pathway"}, "groups is of type str: pass a dict, or a pandas Series"),
        ({"weights": np.ones(40)}, "weights is of type ndarray: pass a dict, or a pandas Series"),
        ({"weights": pd.Series([1, 1], ["a", "a"])}, "weights has the gene 'a' more than once."),
        ({"adata": "cells.h5ad"}, "is the path 'cells.h5ad': pass anndata.read_h5ad('cells.h5ad')"),
        ({"adata": Path("cells.h5ad")}, "adata is the path 'cells.h5ad': pass anndata.read_h5ad("),
        ({"adata": pd.DataFrame([[1]])}, "adata is a DataFrame: pass anndata.AnnData with the"),
        (
            {"adata": MuData()},
            "adata is a MuData: pass one of its modalities, such as adata['rna']",
        ),
        ({"adata": np.ones((2, 2))}, "adata is of type ndarray: pass an AnnData."),
        ({"n_markers": 2.5}, "n_markers: input should be a valid integer, got 2.5."),
        ({"n_markers": np.bool_(True)}, "n_markers: input should be a valid integer, got"),
        (
            {"label_key": ["cell_type"]},
            "data.label_key: input should be a valid string, got ['cell",
        ),
    ],
)
def test_a_mistake_of_type_is_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        select(**changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_value_in_an_error_is_short() -> None:
    adata = simulate_cells()
    with pytest.raises(UserError) as caught:
        select(label_key=adata.obs["cell_type"])
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (pd.get_dummies(simulate_cells().obs["cell_type"]), "y has the shape (120, 3): pass one"),
        (
            np.where(np.arange(120) < 3, np.nan, np.arange(120) % 3),
            "for 3 of 120 cells, first at p",
        ),
        ([None] + ["a", "b"] * 59 + ["a"], "y has no label (NaN or None) for 1 of 120 cells"),
        (simulate_cells().obs["cell_type"].where(np.arange(120) > 1), "for 2 of 120 cells, first"),
    ],
)
def test_labels_of_selectors_are_one_per_cell(labels: Any, words: str, tiny_cells: Cells) -> None:
    selector = SELECTORS["scanpy_t_test"](n_markers=5)
    with pytest.raises(UserError) as caught:
        selector.fit(tiny_cells.adata.X.toarray(), labels)
    assert words in str(caught.value)


def test_labels_may_be_a_column(tiny_cells: Cells) -> None:
    X = tiny_cells.adata.X.toarray()
    flat, column = (
        SELECTORS["scanpy_t_test"](n_markers=5).fit(X, y).panel_.tolist()
        for y in (tiny_cells.y, tiny_cells.y[:, None])
    )
    assert flat == column


@pytest.fixture
def model(tiny_cells: Cells) -> Model:
    trial = TrialSpec(data=DataSpec(name="tiny"), selector="random")
    split = replicate_split(trial, tiny_cells, 0)
    return fit_model(np.arange(12), tiny_cells, split, {})


def test_a_model_is_shown_on_one_line(model: Model) -> None:
    assert repr(model) == (
        "Model(12 markers of 40 genes: Gene0, Gene1, Gene2, Gene3, Gene4, Gene5, Gene6, Gene7, "
        "Gene8, Gene9, ...; 3 cell types, 96 reference cells, normalization='total')"
    )


def test_a_model_refuses_what_is_no_anndata(model: Model) -> None:
    for value, words in (
        ("cells.h5ad", "data is the path 'cells.h5ad': pass anndata.read_h5ad('cells.h5ad')."),
        (np.ones((2, 40)), "data is of type ndarray: pass an AnnData or a data frame."),
    ):
        with pytest.raises(UserError) as caught:
            model.predict(value)
        assert str(caught.value) == words
    assert isinstance(model.predict(simulate_cells()), pd.DataFrame)
    assert isinstance(simulate_cells(), ad.AnnData)
