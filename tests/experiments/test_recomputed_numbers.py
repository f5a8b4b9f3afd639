"""The tables of the README and of experiments/results, recomputed from the shipped rows.

Neither mmlab nor the scripts that write the tables are imported: the numbers are computed a second
time, from the definitions.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from printed import RESULTS, ROOT, Comparison, agrees_in_digits, block, parse_cell, prose, tables
from recomputed import (
    Study,
    bold_methods,
    dataset_sizes,
    load_study,
    n_test_cells,
    paired_tests,
    published,
    result_rows,
    stability,
    study_of_dataset,
)

#: Heading of a table -> its columns -> metric.
METRICS = {
    "K-nearest neighbours": {"accuracy": "knn/accuracy", "weighted F1": "knn/weighted_f1"},
    "Random forest": {
        "accuracy": "random_forest/accuracy",
        "weighted F1": "random_forest/weighted_f1",
    },
    "Linear reconstruction": {"l2": "linear/l2", "l1": "linear/l1"},
    "Panel": {
        "balanced acc.": "knn/balanced_accuracy",
        "redundancy": "panel/mean_redundancy",
        "neighbourhood": "panel/neighbourhood_preservation",
        "NMI": "leiden/nmi",
        "ARI": "leiden/ari",
        "stability": "stability",
        "fit time (s)": "fit_seconds",
    },
}
NOT_TESTED = set(METRICS["Panel"].values()) - {"knn/balanced_accuracy"}
DATASETS = ("zeisel", "zeisel_subtypes", "citeseq")
#: Robustness studies are in test_recomputed_curves.py.
MADE_BY = re.compile(r"Made by `mmlab run ((?!\S+/robustness)\S+\.yaml) --rows \S+/(\w+)\.parquet`")
DOCUMENTS = [
    path for path in sorted(RESULTS.glob("*.md")) if MADE_BY.search(path.read_text("utf-8"))
]


def study_of_document(path: Path) -> Study:
    """Read the study file that a document names."""
    made_by = MADE_BY.search(path.read_text(encoding="utf-8"))
    assert made_by
    study = load_study(ROOT / made_by[1])
    assert study.dataset == made_by[2]
    return study


def least_common_replicates(path: Path) -> int:
    """Return the number of common replicates below which a tie is not bold, 0 if not printed."""
    found = re.search(r"fewer than (\d+) common replicates .* is bold only if", path.read_text())
    return int(found[1]) if found else 0


def mean_of(study: Study, method: str, metric: str) -> float | None:
    rows = study.rows[method]
    if metric == "stability":
        return stability(rows["panel"].tolist(), dataset_sizes()[study.dataset][1])
    return float(rows[metric].mean())


def compare_cell(
    compare: Comparison, study: Study, method: str, metric: str, text: str, bold: set[str]
) -> None:
    """Compare mean, sample standard deviation (where printed) and bold type of a cell."""
    cell, place = parse_cell(text), f"{method}, {metric}"
    compare.number(f"{place}, mean", cell.mean, mean_of(study, method, metric))
    if metric not in METRICS["Panel"].values():
        compare.number(f"{place}, standard deviation", cell.sd, study.rows[method][metric].std())
    compare.equal(f"{place}, bold", cell.bold, method in bold)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("heading", METRICS)
def test_table_of_study(path: Path, heading: str) -> None:
    study, metrics = study_of_document(path), METRICS[heading]
    (table,) = [one for one in tables(path.read_text("utf-8")) if one.titles[1].startswith(heading)]
    bold = {
        metric: set() if metric in NOT_TESTED else bold_methods(study, metric, least)
        for least in [least_common_replicates(path)]
        for metric in metrics.values()
    }
    with Comparison(f"{path.name}, {table.titles[1]}") as compare:
        compare.equal("methods", sorted(row[0] for row in table.rows), sorted(study.rows))
        compare.equal("metrics", [one for one in table.columns if one in metrics], [*metrics])
        for method, n, *cells in table.rows:
            if method not in study.rows:
                continue
            compare.number(f"{method}, n", n, len(study.rows[method]))
            metric, mean = "", 0.0
            for column, text in zip(table.columns[2:], cells, strict=True):
                reported = published(study.selectors[method], study.dataset, metric)
                if column in metrics:
                    metric = metrics[column]
                    compare_cell(compare, study, method, metric, text, bold[metric])
                    mean = mean_of(study, method, metric) or 0
                elif column == "published":
                    compare.number(f"{method}, published {metric}", text, reported)
                else:
                    difference = None if reported is None else mean - reported
                    compare.equal("column", column, "diff.")
                    compare.number(f"{method}, difference of {metric}", text, difference)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_paired_tests_of_study(path: Path) -> None:
    study = study_of_document(path)
    file = path.with_name(f"{path.stem}_tests.csv")
    stored = pd.read_csv(file)
    metrics = [*dict.fromkeys(stored["metric"])]
    expected = pd.concat([paired_tests(study, metric) for metric in metrics], ignore_index=True)
    tested = {metric for part in METRICS.values() for metric in part.values()} - NOT_TESTED
    keys = ["method", "metric"]
    both = expected.merge(stored, on=keys, how="outer", suffixes=("", " stored"))
    with Comparison(file.name) as compare:
        compare.equal("metrics", set(metrics), tested)
        compare.equal("number of tests", len(stored), len(expected))
        compare.equal("test", set(stored["test"]), {"corrected resampled t-test"})
        compare.equal("setting", set(stored["setting"]), {"k=50"})
        compare.equal("n_markers", set(stored["n_markers"]), {50})
        for row in both.to_dict("records"):
            place = f"{row['method']}, {row['metric']}"
            compare.equal(f"{place}, reference", row["reference stored"], row["reference"])
            for column in ("n", "mean_difference", "low", "high", "p", "p_holm"):
                printed, value = row[f"{column} stored"], row[column]
                compare.check(
                    f"{place}, {column}", printed, value, agrees_in_digits(printed, value, 6)
                )


@pytest.mark.parametrize("dataset", DATASETS)
def test_benchmark_table_of_readme(dataset: str) -> None:
    (table,) = tables(block("benchmark"))
    study, metric = study_of_dataset(dataset), "knn/accuracy"
    # The section does not say that too few common replicates give no tie; this document does.
    bold = bold_methods(study, metric, least_common_replicates(RESULTS / f"{dataset}.md"))
    column = table.columns.index(f"`{dataset}`")
    with Comparison(f"README, benchmark, {dataset}") as compare:
        compare.equal("column", table.columns[column + 1], "published")
        (n_splits,) = prose("{} random splits of seed 0, or the number in parentheses.")
        compare.number("splits", n_splits, study.n_replicates)
        methods = {row[0].strip("`"): row[column : column + 2] for row in table.rows}
        compare.equal("methods without a row", set(study.rows) - set(methods), set())
        for method, (text, reported) in methods.items():
            if method not in study.rows:
                compare.equal(method, (text, reported), ("", ""))
                continue
            compare_cell(compare, study, method, metric, text, bold)
            n = len(study.rows[method])
            compare.number(f"{method}, n", parse_cell(text).n or f"{study.n_replicates}", n)
            value = published(study.selectors[method], dataset, metric)
            compare.number(f"{method}, published", reported, value)


def test_second_seed_of_readme() -> None:
    text, metric = block("second seed"), "knn/accuracy"
    found = re.search(r"With `--seed (\d+)`", text)
    parts = re.findall(r"on `(\w+)` ((?:`\w+` [^`;]+)+)", text)
    assert found and len(parts) == 2, text
    with Comparison("README, second seed") as compare:
        for dataset, printed in parts:
            study = study_of_dataset(dataset, int(found[1]))
            bold = bold_methods(study, metric, least_common_replicates(RESULTS / f"{dataset}.md"))
            cells = dict(re.findall(r"`(\w+)` ([^,`]*\d\**)", printed))
            compare.equal(f"methods of {dataset}", set(cells), set(study.rows))
            for method, cell in cells.items():
                compare_cell(compare, study, method, metric, cell, bold)
                n = len(study.rows[method])
                compare.equal(f"{method} on {dataset}, splits", study.n_replicates, n)


def test_faithful_table_of_readme() -> None:
    (table,) = tables(block("faithful"))
    study, metric = load_study(ROOT / "experiments" / "faithful_zeisel.yaml"), "knn/accuracy"
    with Comparison("README, faithful=true") as compare:
        printed = {row[0].strip("`"): row[1:] for row in table.rows}
        compare.equal("methods", set(printed), set(study.selectors.values()))
        (n_splits,) = prose("on the same {} splits of `zeisel` (`mmlab run")
        for method, (default, faithful, reported) in printed.items():
            for text, label in ((default, method), (faithful, f"{method} (faithful)")):
                compare.number(label, text, mean_of(study, label, metric))
                compare.number(f"{label}, splits", n_splits, len(study.rows[label]))
            value = published(method, study.dataset, metric)
            compare.number(f"{method}, published", reported, value)


def scores_of_confusion(counts: NDArray[np.int64]) -> dict[str, float | NDArray[np.float64]]:
    """Return the scores of a confusion matrix, rows: true types, columns: predicted types.

    Mean misclassification and mean F1 are equations 5 and 6 of the paper, averages over types; the
    precision of a type that is never predicted counts as 0.
    """
    hits, of_type, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    f1 = 2 * hits / (of_type + predicted)
    precision = hits / np.maximum(predicted, 1)
    return {
        "accuracy": hits.sum() / counts.sum(),
        "balanced_accuracy": (hits / of_type).mean(),
        "weighted_f1": (f1 * of_type).sum() / counts.sum(),
        "mean_misclassification": (1 - precision).mean(),
        "mean_f1": f1.mean(),
        "f1": f1,
    }


@pytest.mark.parametrize("classifier", ["knn", "random_forest"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_scores_follow_from_the_confusion_matrices(dataset: str, classifier: str) -> None:
    n_cells, n_genes, n_types = dataset_sizes()[dataset]
    with Comparison(f"{dataset}.parquet, {classifier}") as compare:
        for index, row in result_rows(dataset).iterrows():
            place = f"row {index} ({row['selector']}, replicate {row['replicate']})"
            counts = np.stack(row[f"confusion/{classifier}"])
            compare.equal(f"{place}, size", counts.shape, (n_types, n_types))
            compare.equal(f"{place}, test cells", counts.sum(), n_test_cells(n_cells))
            compare.equal(f"{place}, genes", len({*row["panel"]}), row["n_markers"])
            compare.equal(f"{place}, all genes", max(row["panel"]) < n_genes, True)
            scores = scores_of_confusion(counts)
            stored = {name: row[f"{classifier}/{name}"] for name in scores if name != "f1"}
            for name, value in (stored | {"f1": row[f"per_class_f1/{classifier}"]}).items():
                is_equal = np.allclose(value, scores[name], rtol=0, atol=1e-9)
                compare.check(f"{place}, {name}", value, scores[name], is_equal)
