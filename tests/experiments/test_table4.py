from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tiny import SMALL, simulate_cells

from mmlab.datasets.cells import Cells, make_cells
from mmlab.metrics.reconstruction import METRICS_BY_TYPE
from mmlab.preprocessing.normalization import log_normalize
from mmlab.preprocessing.recipes import prepare_layers
from mmlab.preprocessing.splits import replicate_split
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.trial.defaults import resolve_spec

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCVI_METHODS = ["scvi_sample", "scvi_mean", "scvi_mean_counts"]


@pytest.fixture(scope="module")
def table4() -> Iterator[ModuleType]:
    """The script, imported as a module."""
    sys.path.insert(0, str(EXPERIMENTS))
    yield importlib.import_module("table4_scvi")
    sys.path.remove(str(EXPERIMENTS))


@pytest.fixture
def trial(tiny_cells: Cells) -> TrialSpec:
    spec = TrialSpec(
        data=DataSpec(name="toy_xor"),
        selector="markermap_unsupervised",
        params=SMALL,
        n_markers=5,
    )
    return resolve_spec(spec, tiny_cells)


def normalized(normalization: Any) -> Cells:
    return make_cells(
        simulate_cells(), "cell_type", name="tiny", normalization=normalization, origin="simulated"
    )


@pytest.mark.parametrize("normalization", ["total", "none", "l2"])
def test_reconstructed_counts_are_normalized_like_those_of_the_dataset(
    table4: ModuleType, normalization: str
) -> None:
    cells, train = normalized(normalization), np.arange(80)
    prepared = prepare_layers(cells.adata, cells.normalization, "train_only", train)["zscore"]
    scale = table4.Scale.of(cells, train)
    counts: Any = cells.adata.X
    np.testing.assert_array_equal(scale.z_scores(counts), prepared)
    log_values = log_normalize(counts, cells.normalization).toarray()
    paper_scale = (log_values - log_values[train].mean()) / log_values[train].std()
    assert np.abs(prepared).max() < 10
    np.testing.assert_allclose(scale.paper(prepared), paper_scale, atol=1e-4)


def value(table: pd.DataFrame, **which: str) -> float:
    for column, wanted in which.items():
        table = table[table[column] == wanted]
    (found,) = table["value"]
    return float(found)


def test_measures_cover_each_type_and_all_cells(table4: ModuleType, tiny_cells: Cells) -> None:
    rng = np.random.default_rng(0)
    y, classes = tiny_cells.y, tiny_cells.classes
    x = rng.normal(size=(len(y), 40)).astype(np.float32) * np.arange(1, 41, dtype=np.float32)
    # Only the reconstruction of the first type is wrong: by 2 in each gene.
    reconstructed = x + 2 * (y == 0)[:, None].astype(np.float32)
    table = table4.measured({"matrix": (x, reconstructed), "gene": (x, x)}, y, classes)
    assert len(table) == 2 * len(METRICS_BY_TYPE) * (len(classes) + 1)
    sizes = table.groupby("cell_type")["n_cells"].unique().explode()
    assert sizes.to_dict() == {
        **dict(zip(classes, np.bincount(y), strict=True)),
        "all test cells": len(y),
    }
    share = (y == 0).mean()
    for cell_type, part in {classes[0]: 1.0, classes[1]: 0.0, "all test cells": share}.items():
        own = {"scale": "matrix", "cell_type": cell_type}
        assert value(table, measure="l1", **own) == pytest.approx(80 * part, rel=1e-5)
        assert value(table, measure="l2", **own) == pytest.approx(2 * 40**0.5 * part, rel=1e-5)
    # A constant shift of one type changes the variances over all cells, but not within a type.
    of_type = table[(table["scale"] == "matrix") & (table["cell_type"] != "all test cells")]
    variances = of_type[of_type["measure"].isin(["jaccard", "spearman"])]["value"]
    np.testing.assert_allclose(variances, 1)
    assert value(table, measure="spearman", scale="matrix", cell_type="all test cells") < 1
    perfect = table[table["scale"] == "gene"].groupby("measure")["value"]
    assert perfect.min().to_dict() == pytest.approx({"jaccard": 1, "spearman": 1, "l1": 0, "l2": 0})


def test_scvi_means_are_over_z_scores_or_over_counts(table4: ModuleType, tiny_cells: Cells) -> None:
    counts: Any = tiny_cells.adata.X[:30]
    scale = table4.Scale.of(tiny_cells, np.arange(80))
    other = sp.csr_matrix(counts.toarray()[::-1])
    reconstructed = table4.reconstructed_by_scvi(iter([counts, other]), scale)
    assert list(reconstructed) == SCVI_METHODS
    truth = scale.z_scores(counts)
    np.testing.assert_array_equal(reconstructed["scvi_sample"], truth)
    np.testing.assert_allclose(
        reconstructed["scvi_mean"], (truth + scale.z_scores(other)) / 2, atol=1e-5
    )
    both = sp.csr_matrix((counts.toarray() + other.toarray()) / 2)
    np.testing.assert_allclose(reconstructed["scvi_mean_counts"], scale.z_scores(both), atol=1e-5)
    assert np.abs(reconstructed["scvi_mean"] - reconstructed["scvi_mean_counts"]).max() > 0.1


def test_markdown_has_mean_and_spread_next_to_published_numbers(table4: ModuleType) -> None:
    rows = [
        {"split": split, "scale": "matrix", "cell_type": cell_type, "measure": "l2", "value": value}
        for cell_type, values in {"Astro": (40.0, 42.0), "all test cells": (47.0, 49.0)}.items()
        for split, value in enumerate(values)
    ]
    table = pd.DataFrame(rows).assign(
        dataset="mouse_brain", method="linear", sees="50 genes", epochs=None, n_cells=10
    )
    lines = table4.markdown(table, "`a command`").splitlines()
    assert "Made by `a command`." in lines

    def cells(*first: str) -> list[list[str]]:
        rows = [[text.strip() for text in line.strip("|").split("|")] for line in lines]
        return [row for row in rows if row[: len(first)] == list(first)]

    (header,) = {tuple(row) for row in cells("cell type")}
    l2, count = header.index("l2"), header.index("count jaccard")
    assert [row[l2] for row in cells("Astro", "10", "linear")] == ["41.0 ± 1.4"]
    assert [row[l2] for row in cells("Astro", "", "scvi_sample, published")] == ["51.8"]
    assert [row[count] for row in cells("Astro", "", "scvi_sample, published")] == ["0.858"]
    assert [row[l2] for row in cells("mouse_brain", "10", "linear")] == ["48.0 ± 1.4"]
    published = cells("mouse_brain", "", "markermap_unsupervised, published")
    assert [row[header.index("jaccard")] for row in published] == ["0.738"]


def test_all_problems_are_reported_at_once(
    table4: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(table4, "find_spec", lambda name: None)
    output = ["--output", str(tmp_path / "none" / "table4")]
    arguments = ["--datasets", "zeisle", "citeseq", "--n-markers", "501", *output]
    monkeypatch.setattr(sys, "argv", ["table4_scvi.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        table4.main()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    for part in ("'.[scvi]'", "is not a folder", "'zeisle'", "from 1 to 500"):
        assert part in message
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    importlib.util.find_spec("scvi") is None,
    reason="scvi-tools is not installed (pip install '.[scvi]')",
)
def test_scvi_markermap_and_regression_are_evaluated_on_one_split(
    table4: ModuleType, trial: TrialSpec, tiny_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table4, "N_SAMPLES", 3)
    table = table4.measure_split(trial, tiny_cells, 0, epochs=2)
    assert list(table["method"].unique()) == ["markermap_unsupervised", "linear", *SCVI_METHODS]
    sees = table.groupby("method")["sees"].unique().explode()
    assert all((sees[name] == "all genes") == ("scvi" in name) for name in sees.index)
    epochs = table.groupby("method")["epochs"].first()
    assert epochs["scvi_mean"] == 2
    assert epochs["markermap_unsupervised"] == SMALL["max_epochs"]
    assert table["value"].notna().all()
    everything = table[table["cell_type"] == "all test cells"]
    assert (everything["n_cells"] == len(replicate_split(trial, tiny_cells, 0).test)).all()
    l2 = everything[(everything["measure"] == "l2") & (everything["scale"] == "gene")]
    by_method = l2.set_index("method")["value"]
    # A sample contains the noise of the counts; a mean has little of it left.
    assert by_method["scvi_mean"] < by_method["scvi_sample"]
    assert set(table[table["scale"] == "counts"]["method"]) == {"scvi_sample"}
    again = table4.measure_split(trial, tiny_cells, 0, epochs=2)
    pd.testing.assert_frame_equal(again, table)
