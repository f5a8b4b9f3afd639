"""Tables of a comparison: finished replicates, summaries, published numbers, displayed tables."""

from __future__ import annotations

import hashlib
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from mmlab.comparison.published import add_published_numbers, published_numbers
from mmlab.comparison.result_table import (
    is_metric,
    read_rows,
    row_from_parquet,
    summarise_rows,
    write_rows,
)
from mmlab.comparison.shown_table import markdown
from mmlab.comparison.tables import (
    compare_methods,
    view_tables,
    write_comparison,
)
from mmlab.datasets import DATASETS
from mmlab.errors import UserError
from mmlab.figures.published_numbers import published_figure
from mmlab.selectors import SELECTORS
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.yaml import read_spec

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))


def row(method: str, replicate: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {
        "digest": hashlib.sha256(f"{method}-{replicate}".encode()).hexdigest(),
        "dataset": "zeisel",
        "fingerprint": "f",
        "selector": method,
        "method": method,
        "setting": "k=50",
        "params": "{}",
        "n_markers": 50,
        "replicate": replicate,
        "fit_seconds": 2.0,
        "seconds": 3.0,
        "panel": [(replicate * 7 + i) % 100 for i in range(50)],
        "knn/accuracy": accuracy,
        "random_forest/accuracy": accuracy - 0.01,
        "linear/l2": 1 - accuracy,
        "confusion/knn": [[3, 0], [1, 2]],
        **more,
    }


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        row(method, replicate, mean + 0.01 * rng.standard_normal())
        for method, mean in (("smash", 0.95), ("rankcorr", 0.90), ("random", 0.97))
        for replicate in range(4)
    )


# --- finished replicates


def test_rows_are_unchanged_after_writing_and_reading_parquet(
    rows: pd.DataFrame, tmp_path: Path
) -> None:
    before: list[Any] = rows.drop(columns="method").to_dict(orient="records")
    before[0]["decoder/l2"] = 0.5  # a metric that only one row has
    write_rows(before, tmp_path / "rows.parquet")
    after = read_rows(tmp_path / "rows.parquet")
    assert sorted(after, key=lambda r: r["digest"]) == sorted(before, key=lambda r: r["digest"])
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.parquet") == []


def test_a_file_without_finished_replicates_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("not a table")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_rows(tmp_path / "text.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError, match="no column 'digest'"):
        read_rows(tmp_path / "other.parquet")


def test_a_failed_write_keeps_the_old_file(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(rows.to_dict(orient="records"), path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_rows([{"no": "digest"}], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_missing_values_are_left_out_of_a_row() -> None:
    found = row_from_parquet({"a": float("nan"), "b": None, "c": np.array([1, 2]), "d": 0})
    assert found == {"c": [1, 2], "d": 0}


def test_is_metric_accepts_only_registered_metrics() -> None:
    assert is_metric("knn/accuracy")
    assert is_metric("panel/mean_redundancy")
    nested = ("confusion/knn", "per_class_f1/knn", "per_cell/knn/accuracy", "per_cell/linear/l2")
    assert not any(map(is_metric, ("seconds", "knn/none", *nested)))


def test_a_summary_has_mean_and_standard_deviation_of_every_metric(rows: pd.DataFrame) -> None:
    summary = summarise_rows(rows, n_genes=100).set_index(["method", "metric"])
    own = rows.loc[rows["method"] == "smash", "knn/accuracy"]
    found = summary.loc[("smash", "knn/accuracy")]
    assert found["mean"] == pytest.approx(own.mean())
    assert found["std"] == pytest.approx(statistics.stdev(own))
    assert found["n"] == 4
    stability = summary.loc[("smash", "stability/nogueira")]
    assert stability["low"] < stability["mean"] < stability["high"]
    one = summarise_rows(rows[rows["replicate"] == 0], n_genes=100)
    assert not one["metric"].str.startswith("stability/").any()
    assert one["std"].isna().all()


def test_panels_of_all_genes_have_no_stability(rows: pd.DataFrame) -> None:
    summary = summarise_rows(rows, n_genes=50)
    assert not summary["metric"].str.startswith("stability/").any()


# --- published numbers


def test_published_numbers_are_those_of_the_paper() -> None:
    table = published_numbers().set_index(["selector", "dataset", "metric"])["published"]
    assert table["markermap_supervised", "zeisel", "knn/accuracy"] == 0.950
    assert table["smash", "citeseq", "random_forest/accuracy"] == 0.936
    assert table["scanpy_hvg", "zeisel", "linear/l2"] == 0.636
    assert table.index.is_unique
    assert set(table.index.get_level_values("selector")) <= set(SELECTORS)


def test_published_numbers_and_differences_are_added(rows: pd.DataFrame) -> None:
    summary = summarise_rows(rows.assign(method="mine"), n_genes=100)
    table = add_published_numbers(summary, {"mine": "smash"}).set_index("metric")
    assert table.loc["knn/accuracy", "published"] == 0.952
    expected = table.loc["knn/accuracy", "mean"] - 0.952
    assert table.loc["knn/accuracy", "difference"] == pytest.approx(expected)
    assert np.isnan(table.loc["fit_seconds", "published"])


def test_panels_of_other_sizes_have_no_published_number(rows: pd.DataFrame) -> None:
    summary = summarise_rows(rows.assign(n_markers=25), n_genes=100)
    table = add_published_numbers(summary, {name: name for name in SELECTORS})
    assert table["published"].isna().all()


# --- comparison


def test_methods_are_ordered_by_the_first_metric_next_to_published_numbers(
    rows: pd.DataFrame,
) -> None:
    comparison = compare_methods(rows, summarise_rows(rows, 100), {"random"})
    title, header, body, legend = view_tables(comparison, 50, "<{}>".format)[0]
    assert title == "k-nearest neighbours (table 1 of the paper)"
    assert legend == (
        "Mean ± sample standard deviation over n replicates, published number, difference. "
        "Higher is better: accuracy (share of the cells with the right type), "
        "weighted F1 (F1 of the types, weighted by their cells, 0 to 1)."
    )
    assert header == ["method", "n", "accuracy", "published", "diff.", "weighted F1"]
    assert [line[0] for line in body] == ["random", "smash", "rankcorr"]
    assert body[1][3] == "0.952"


def test_tables_of_other_data_do_not_speak_of_the_paper(rows: pd.DataFrame) -> None:
    """Neither in titles nor in headers, legends or the Markdown file."""
    rows = rows.assign(dataset="my_cells")
    tables = view_tables(compare_methods(rows, summarise_rows(rows, 100), set()), 50, str)
    text = markdown(tables)
    assert "± sample standard deviation over n replicates" in text
    for word in ("paper", "published", "diff"):
        assert word not in text


def test_a_single_replicate_is_shown_without_standard_deviation(rows: pd.DataFrame) -> None:
    one = rows[rows["replicate"] == 0]
    text = markdown(view_tables(compare_methods(one, summarise_rows(one, 100), set()), 50, str))
    assert "| smash | 1 | 0.9" in text
    assert "±" not in text
    assert "nan" not in text


def test_the_figure_has_one_point_per_published_number(rows: pd.DataFrame, tmp_path: Path) -> None:
    comparison = compare_methods(rows, summarise_rows(rows, 100), {"random"})
    figure = published_figure(comparison.table)
    assert figure is not None
    points = sum(len(c.lines[0].get_xdata()) for axes in figure.axes for c in axes.containers)
    assert points == comparison.table["published"].notna().sum() == 7
    assert published_figure(comparison.table.assign(published=np.nan)) is None
    write_comparison(comparison, rows, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "comparison.csv",
        "comparison.parquet",
        "ours_against_published.png",
        "paired_tests.csv",
        "paired_tests.parquet",
        "replicates.parquet",
    }


# --- study files


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_shipped_studies_name_existing_selectors_and_datasets(path: Path) -> None:
    spec = read_spec(path, ComparisonSpec)
    assert {method.selector for method in spec.methods} <= set(SELECTORS)
    assert spec.data.name in DATASETS
    assert spec.data.name in path.stem


def test_every_dataset_of_the_paper_has_two_studies() -> None:
    datasets = set(published_numbers()["dataset"])
    assert len(datasets) == 7
    for table in ("table1_3", "table2_reconstruction"):
        assert {f"{table}_{name}" for name in datasets} <= {path.stem for path in EXPERIMENTS}


def test_the_studies_include_every_method_of_the_paper() -> None:
    published = published_numbers()
    for path in (path for path in EXPERIMENTS if path.stem.startswith("table")):
        spec = read_spec(path, ComparisonSpec)
        metric = "linear/l2" if "table2" in path.stem else "knn/accuracy"
        own = (published["dataset"] == spec.data.name) & (published["metric"] == metric)
        assert set(published[own]["selector"]) <= {method.selector for method in spec.methods}


def test_an_invalid_study_file_is_an_error_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    content = {"data": {"name": "zeisel"}, "methods": ["random", "random"], "replicas": 3}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        read_spec(path, ComparisonSpec)
    assert "replicas is not a known key" in str(caught.value)
    path.write_text(yaml.safe_dump({"data": {"name": "zeisel"}, "methods": ["random", "random"]}))
    with pytest.raises(UserError, match="duplicate methods: random"):
        read_spec(path, ComparisonSpec)
