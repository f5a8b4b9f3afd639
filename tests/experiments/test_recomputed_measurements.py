"""What the README and the documents say of --quick and of table 4, recomputed from stored results.

As in ``test_recomputed_numbers.py``, neither mmlab nor the scripts that write tables are imported.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from printed import (
    RESULTS,
    Comparison,
    parse_cell,
    prose,
    readme,
    table_with,
    tables,
    to_number,
)
from recomputed import dataset_sizes, published_table

#: The candidate that --quick became.
QUICK = "400 steps of 128, rate 1.5e-3"
TABLE4 = (RESULTS / "table4.md").read_text(encoding="utf-8")
SCALES = {"": "matrix", "z": "gene", "count": "counts"}
ALL_CELLS = "all test cells"


def budget(dataset: str, mode: str, k: int, training: str) -> dict[str, pd.DataFrame]:
    """Return the rows of a training; also those of it and of the default on shared splits."""
    rows = pd.read_parquet(RESULTS / "quick_budget.parquet")
    rows = rows[(rows["dataset"] == dataset) & (rows["mode"] == mode) & (rows["k"] == k)]
    own = rows[rows["candidate"] == training].set_index(["seed", "replicate"])
    default = rows[rows["candidate"] == "default"].set_index(["seed", "replicate"])
    shared = own.index.intersection(default.index)
    return {"all": own, "own": own.loc[shared], "default": default.loc[shared]}


def test_quick_table_of_readme() -> None:
    table = table_with(readme(), "share of the CPU time")
    steps, batch_size = prose("trains MarkerMap for about {} steps of {} cells")
    least, most = prose("On validation cells, {} to {} splits a dataset")
    splits = []
    with Comparison("README, --quick") as compare:
        for name, *printed in table.rows:
            found = re.fullmatch(r"(?:`(\w+)`|Baron's human pancreas), (\d+) markers", name)
            assert found, name
            rows = budget(found[1] or "baron_pancreas", table.columns[0], int(found[2]), QUICK)
            splits.append(len(rows["own"]))
            own, default = (rows[part].mean(numeric_only=True) for part in ("own", "default"))
            values = {
                f"{column} of {part}": means[column]
                for column in ("knn_accuracy", "knn_balanced_accuracy")
                for part, means in (("default", default), ("--quick", own))
            }
            values["share of the CPU time"] = own["seconds"] / default["seconds"]
            for (title, value), text in zip(values.items(), printed, strict=True):
                compare.number(f"{name}, {title}", text, value)
            compare.number(f"{name}, steps", steps, round(own["steps"], -2))
            compare.number(f"{name}, cells of a step", batch_size, own["batch_size"])
        compare.number("fewest splits", least, min(splits))
        compare.number("most splits", most, max(splits))


def test_table_of_budgets() -> None:
    (table,) = tables((RESULTS / "quick_budget.md").read_text(encoding="utf-8"))
    stored = pd.read_parquet(RESULTS / "quick_budget.parquet")
    keys = stored[["dataset", "mode", "k", "candidate"]].astype(str).apply(tuple, axis=1)
    with Comparison("quick_budget.md") as compare:
        compare.equal("rows", {tuple(row[:4]) for row in table.rows}, set(keys))
        for dataset, mode, k, training, *printed in table.rows:
            rows = budget(dataset, mode, int(k), training)
            means = {part: rows[part].mean(numeric_only=True) for part in rows}
            difference = means["own"] - means["default"]
            values = {"splits": len(rows["all"]), "steps": means["all"]["steps"]}
            for column in ("knn_accuracy", "knn_balanced_accuracy"):
                values[column] = means["all"][column]
                values[f"difference of {column}"] = difference[column]
            values["seconds"] = means["all"]["seconds"]
            values["share of default"] = means["own"]["seconds"] / means["default"]["seconds"]
            values["shared splits"] = len(rows["own"])
            for (title, value), text in zip(values.items(), printed, strict=True):
                compare.number(f"{dataset}, {mode}, {k}, {training}: {title}", text, value)


@cache
def reconstruction() -> pd.DataFrame:
    """Return mean and standard deviation of the measures of table 4 over the splits."""
    rows = pd.read_parquet(RESULTS / "table4.parquet")
    keys = ["dataset", "cell_type", "method", "scale", "measure"]
    assert not rows.duplicated([*keys, "split"]).any()
    groups = rows.groupby(keys)
    first = groups[["sees", "epochs"]].first()
    return groups["value"].agg(["mean", "std", "count"]).join(first).join(groups["n_cells"].mean())


def mean_measure(dataset: str, method: str, measure: str, cell_type: str = ALL_CELLS) -> float:
    """Return a measure on the paper's scale."""
    mean: Any = reconstruction().loc[(dataset, cell_type, method, "matrix", measure), "mean"]
    return float(mean)


def published_reconstruction(method: str, cell_type: str, column: str) -> float | None:
    """Return a published number; the paper measured variances of a sample of scVI on counts."""
    is_sample = method == "scvi_sample"
    key = "All" if cell_type == ALL_CELLS else cell_type, "scvi" if is_sample else method
    row = published_table("table4_reconstruction_by_cell_type", "cell_type", "method")[key]
    scale, _, measure = column.rpartition(" ")
    has_scale = scale == ("count" if is_sample and measure != "l2" else "")
    return row.get(measure) if has_scale else None


@pytest.mark.parametrize("title", [table.titles[0] for table in tables(TABLE4)])
def test_table_of_reconstruction(title: str) -> None:
    (table,) = [one for one in tables(TABLE4) if one.titles[0] == title]
    is_overall, found = table.columns[0] == "dataset", set()
    stored: Any = reconstruction()
    with Comparison(f"table4.md, {title}") as compare:
        for first, n_cells, method, sees, epochs, *printed in table.rows:
            dataset, cell_type = (first, ALL_CELLS) if is_overall else (title.split()[0], first)
            place = f"{first}, {method}"
            name, _, is_published = method.partition(", ")
            if is_published:
                for column, text in zip(table.columns[5:], printed, strict=True):
                    value = published_reconstruction(name, cell_type, column)
                    compare.number(f"{place}, {column}", text, value)
                continue
            found.add((dataset, cell_type, method))
            rows = stored.loc[(dataset, cell_type, method)]
            compare.equal(f"{place}, sees", {sees}, set(rows["sees"]))
            n_epochs = rows["epochs"].iloc[0]
            compare.number(f"{place}, epochs", epochs, None if pd.isna(n_epochs) else n_epochs)
            compare.number(f"{place}, cells", n_cells, rows["n_cells"].iloc[0])
            for column, text in zip(table.columns[5:], printed, strict=True):
                scale, _, measure = column.rpartition(" ")
                cell, key = parse_cell(text), (SCALES[scale], measure)
                has_rows = key in rows.index
                for part, number in (("mean", cell.mean), ("std", cell.sd)):
                    value = rows.loc[key, part] if has_rows else None
                    compare.number(f"{place}, {column}, {part}", number, value)
        expected = {key[:3] for key in stored.index if is_overall or key[0] == title.split()[0]}
        expected = {key for key in expected if not is_overall or key[1] == ALL_CELLS}
        compare.equal("rows", found, expected)


def test_sentences_about_table_4() -> None:
    datasets = ("zeisel", "citeseq")
    l2 = prose(
        """MarkerMap is nearer to the cells (l2 over all test cells {} against {} on `zeisel`, {}
        against {} on `citeseq`, on the paper's scale)"""
    )
    spearman = prose("scVI ranks the genes' variances better ({} against {}, {} against {})")
    mean = prose("scVI is nearer ({}, {}) and still ranks the variances better ({}, {})")
    genes = prose("from {} and {} times as many genes")
    linear = prose("is about as good as MarkerMap's decoder ({}, {})")
    (n_splits,) = prose("on the same test cells of {} splits, per cell type and over all cells")
    (n_markers,) = prose("MarkerMap's reconstruction from {} genes with scVI, which sees all genes")
    (n_epochs,) = prose("--datasets zeisel citeseq --epochs {}` computes it")
    rival, sample = "markermap_unsupervised", "scvi_sample"
    by_method = reconstruction().groupby("method")[["sees", "epochs"]].first()
    with Comparison("README, sentences about table 4") as compare:
        compare.equal("splits", set(reconstruction()["count"]), {to_number(n_splits)})
        for i, dataset in enumerate(datasets):
            for measure, texts in (("l2", l2), ("spearman", spearman)):
                for method, text in zip((rival, sample), texts[2 * i : 2 * i + 2], strict=True):
                    value = mean_measure(dataset, method, measure)
                    compare.number(f"{dataset}, {measure} of {method}", text, value)
            value = mean_measure(dataset, "scvi_mean", "l2")
            compare.number(f"{dataset}, l2 of scvi_mean", mean[i], value)
            value = mean_measure(dataset, "scvi_mean", "spearman")
            compare.number(f"{dataset}, spearman of scvi_mean", mean[i + 2], value)
            value = mean_measure(dataset, "linear", "l2")
            compare.number(f"{dataset}, l2 of linear", linear[i], value)
            times = dataset_sizes()[dataset][1] / to_number(n_markers)
            compare.number(f"{dataset}, genes", genes[i], times)
        compare.equal("MarkerMap sees", f"{n_markers} genes", by_method["sees"][rival])
        compare.number("epochs of scVI", n_epochs, by_method["epochs"][sample])


@pytest.mark.parametrize("dataset", ["zeisel", "citeseq"])
def test_comparisons_of_table_4(dataset: str) -> None:
    prose("Mean against mean, scVI is nearer ({}, {}) and still ranks the variances better")
    prose("({}, {}), overall and within every type, from")
    cell_types = reconstruction().loc[dataset].index.get_level_values("cell_type").unique()
    assert len(cell_types) == dataset_sizes()[dataset][2] + 1
    rival = "markermap_unsupervised"
    with Comparison(f"README, table 4, {dataset}") as compare:
        for method, measures in (("scvi_mean", (-1, 1)), ("scvi_sample", (1, 1))):
            for measure, sign in zip(("l2", "spearman"), measures, strict=True):
                for cell_type in cell_types if method == "scvi_mean" else [ALL_CELLS]:
                    difference = mean_measure(dataset, method, measure, cell_type)
                    difference -= mean_measure(dataset, rival, measure, cell_type)
                    place = f"{cell_type}, sign of {measure} of {method} minus {rival}"
                    compare.equal(place, sign, np.sign(difference))
