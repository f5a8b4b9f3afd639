"""Statistics of the shipped rows, from their definitions, without any code of mmlab."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from printed import RESULTS, ROOT, block, tables
from scipy import stats

CONTROLS = {"random", "shuffled_labels", "oracle", "all_genes"}
LOWER_IS_BETTER = {"linear/l2", "linear/l1"}
#: Splits are 70 % training, 10 % validation and 20 % test cells, and the classifiers are fitted on
#: training and validation cells: 0.2 / 0.8. These nominal shares reproduce the stored p-values, all
#: digits of them; 602 / 2403 cells of zeisel, 0.2 / 0.7, and 602 / 2103 do not.
TEST_OVER_TRAIN = 0.25
ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Study:
    """The rows of a study file: label of the method -> rows, one per replicate, in order."""

    dataset: str
    n_replicates: int
    rows: dict[str, pd.DataFrame]
    selectors: dict[str, str]

    def values(self, metric: str) -> pd.DataFrame:
        """Return a metric, replicates x methods, NaN where a method lacks a replicate."""
        columns = {label: rows[metric] for label, rows in self.rows.items()}
        return pd.DataFrame(columns, index=range(self.n_replicates), dtype=float)

    def competitors(self) -> list[str]:
        return [label for label in self.rows if self.selectors[label] not in CONTROLS]


@cache
def result_rows(dataset: str) -> pd.DataFrame:
    rows = pd.read_parquet(RESULTS / f"{dataset}.parquet")
    return rows.assign(params=rows["params"].map(json.loads))


@cache
def load_study(path: Path, seed: int | None = None) -> Study:
    """Read a study file, and its rows of its seed, or of another seed."""
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    dataset, n_replicates = spec["data"]["name"], spec["replicates"]
    (n_markers,) = spec["n_markers"]
    seed = spec.get("seed", 0) if seed is None else seed
    rows: dict[str, pd.DataFrame] = {}
    selectors: dict[str, str] = {}
    for entry in spec["methods"]:
        entry = {"selector": entry} if isinstance(entry, str) else entry
        label = entry.get("label", entry["selector"])
        found = rows_of_method(dataset, entry["selector"], entry.get("params", {}), n_markers)
        found = found[found["seed"] == seed].set_index("replicate").sort_index()
        found = found[found.index < entry.get("replicates", n_replicates)]
        assert found.index.is_unique, f"{path.name}: {label} has several rows of a replicate"
        if len(found):
            rows[label], selectors[label] = found, entry["selector"]
    return Study(dataset, n_replicates, rows, selectors)


def rows_of_method(
    dataset: str, selector: str, params: dict[str, Any], n_markers: int
) -> pd.DataFrame:
    """Return the rows without label noise that have these parameters, the others at defaults."""
    rows = result_rows(dataset)
    rows = rows[(rows["selector"] == selector) & (rows["noise_level"] == 0)]
    if selector != "all_genes":
        rows = rows[rows["n_markers"] == n_markers]
    asked = {"faithful": False} | params
    has_params = [all(row.get(k, False) == asked[k] for k in asked) for row in rows["params"]]
    return rows[np.array(has_params, dtype=bool)]


def study_of_dataset(dataset: str, seed: int | None = None) -> Study:
    return load_study(ROOT / "experiments" / f"table1_3_{dataset}.yaml", seed)


@cache
def published_table(name: str, *keys: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """Read a table of the paper from its copy in the repository: values of the keys -> row."""
    table = pd.read_csv(ROOT / "mmlab" / "comparison" / "paper" / f"{name}.csv")
    return {tuple(row[key] for key in keys): row for row in table.to_dict("records")}  # type: ignore[misc]


def published(selector: str, dataset: str, metric: str) -> float | None:
    """Return a published number (tables 1, 2, 3 of the paper), None where the paper has none."""
    prefix, _, name = metric.partition("/")
    file = {"knn": "table1_knn", "linear": "table2_reconstruction"}.get(
        prefix, "table3_random_forest"
    )
    return published_table(file, "method", "dataset").get((selector, dataset), {}).get(name)


def resampled_t_test(
    difference: NDArray[np.float64], level: float = 1 - ALPHA
) -> tuple[float, float, float]:
    """Corrected resampled t-test of Nadeau and Bengio 2003.

    If all differences are equal, p is 1 if they are 0, else it cannot be computed.

    Returns
    -------
    Two-sided p, and the limits of the confidence interval of the mean.
    """
    n, mean = len(difference), difference.mean()
    error = np.sqrt((1 / n + TEST_OVER_TRAIN) * np.var(difference, ddof=1))
    if error < 1e-12:
        return (1.0, mean, mean) if abs(mean) < 1e-12 else (np.nan, np.nan, np.nan)
    p = 2 * stats.t.sf(abs(mean) / error, n - 1)
    half = stats.t.ppf((1 + level) / 2, n - 1) * error
    return float(p), mean - half, mean + half


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values adjusted by Holm's step-down procedure; NaN stays NaN and does not count."""
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


@cache
def paired_tests(study: Study, metric: str) -> pd.DataFrame:
    """Return the tests of all competing methods against the best one with all replicates."""
    values = study.values(metric)[study.competitors()]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    complete = values.dropna(axis="columns").mean() * sign
    reference = str(complete.idxmax())
    tests = []
    for method in values.columns.drop(reference):
        difference = (values[method] - values[reference]).dropna().to_numpy()
        if len(difference) > 1:
            p, low, high = resampled_t_test(difference)
            tests.append((method, len(difference), difference.mean(), low, high, p))
    table = pd.DataFrame(tests, columns=["method", "n", "mean_difference", "low", "high", "p"])
    p_holm = holm(table["p"].to_numpy())
    return table.assign(reference=reference, metric=metric, p_holm=p_holm)


@cache
def bold_methods(study: Study, metric: str, min_common: int) -> set[str]:
    """Return the best method and those not significantly worse.

    With fewer common replicates than ``min_common``, a method must be significantly better; one
    that cannot be tested is not bold.
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    tests = paired_tests(study, metric)
    significant, better = tests["p_holm"] < ALPHA, sign * tests["mean_difference"] > 0
    tie = tests["p"].notna() & ~significant & (tests["n"] >= min_common)
    is_bold = (significant & better) | tie
    return {*tests["method"][is_bold], *tests["reference"]}


def stability(panels: list[NDArray[np.int64]], n_genes: int) -> float | None:
    """Return the index of Nogueira et al. 2018 over panels; None if all have all genes."""
    if len(panels) < 2:
        return None
    selected = np.zeros((len(panels), n_genes))
    for row, panel in zip(selected, panels, strict=True):
        row[panel] = 1
    share = selected.sum() / selected.size
    if share == 1:
        return None
    return float(1 - selected.var(axis=0, ddof=1).mean() / (share * (1 - share)))


@cache
def dataset_sizes() -> dict[str, tuple[int, int, int]]:
    """Return the cells, genes and types of the datasets, as the README prints them."""
    (table,) = tables(block("datasets"))
    return {
        name.strip("`"): (*map(int, size.split(" x ")), int(types))  # type: ignore[misc]
        for name, size, types, _ in table.rows
    }


def n_test_cells(n_cells: int) -> int:
    """Return the test cells of a split: what 70 % and 10 %, rounded down, leave."""
    return n_cells - int(0.7 * n_cells) - int(0.1 * n_cells)
