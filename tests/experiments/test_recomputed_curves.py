"""The tables of the robustness studies, recomputed from the shipped rows without mmlab's code."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pandas as pd
import pytest
import yaml
from numpy.typing import NDArray
from printed import RESULTS, ROOT, Comparison, parse_cell, tables
from recomputed import (
    TEST_OVER_TRAIN,
    Study,
    bold_methods,
    paired_tests,
    resampled_t_test,
    result_rows,
)
from scipy import stats

DATASETS = ("zeisel", "citeseq")
#: Title of a table -> its metric.
METRICS = {
    "K-nearest neighbours: label noise in selection and classifier": "knn/accuracy",
    "K-nearest neighbours: label noise in selection only": "clean_knn/accuracy",
    "Random forest: label noise in selection and classifier": "random_forest/accuracy",
    "Random forest: label noise in selection only": "clean_random_forest/accuracy",
}
AREA, LOSS = "area under curve", "noise at 5 % loss"


@cache
def studies(dataset: str) -> dict[float, Study]:
    """Return the rows of a study by noise level."""
    path = ROOT / "experiments" / f"robustness_{dataset}.yaml"
    spec = yaml.safe_load(path.read_text("utf-8"))
    rows = result_rows(f"robustness_{dataset}")
    assert set(rows["seed"]) == {spec.get("seed", 0)}
    assert set(rows["n_markers"]) == set(spec["n_markers"])
    assert set(rows["noise_level"]) == set(spec["levels"])
    methods = [{"selector": m} if isinstance(m, str) else m for m in spec["methods"]]
    labels = {m.get("label", m["selector"]): m["selector"] for m in methods}
    # Without noise, classifiers that are fitted on clean labels are the others.
    for metric in METRICS.values():
        clean = rows[metric].where(rows["noise_level"] > 0, rows[metric.removeprefix("clean_")])
        rows = rows.assign(**{metric: clean})
    found = {}
    for level in spec["levels"]:
        at_level = rows[rows["noise_level"] == level]
        by_method = {
            label: at_level[at_level["selector"] == selector].set_index("replicate").sort_index()
            for label, selector in labels.items()
        }
        assert all(table.index.is_unique for table in by_method.values())
        found[float(level)] = Study(dataset, spec["replicates"], by_method, labels)
    return found


def curves(dataset: str, method: str, metric: str) -> pd.DataFrame:
    """Return a metric, replicates x noise levels."""
    return pd.DataFrame({lv: s.rows[method][metric] for lv, s in studies(dataset).items()})


def area_text(values: pd.DataFrame) -> str:
    levels = values.columns.to_numpy(dtype=float)
    steps = np.diff(levels)
    middles = (values.to_numpy()[:, 1:] + values.to_numpy()[:, :-1]) / 2
    areas = middles @ steps / (levels[-1] - levels[0])
    _, low, high = resampled_t_test(areas)
    return f"{areas.mean():.3f} ({max(low, 0):.3f} to {min(high, 1):.3f})"


def loss_text(values: pd.DataFrame) -> str:
    levels = values.columns.to_numpy(dtype=float)
    grid = np.linspace(levels[0], levels[-1], 2001)
    fine = np.array([np.interp(grid, levels, row) for row in values.to_numpy()])
    mean = fine.mean(axis=0)
    where = np.flatnonzero(mean <= 0.95 * mean[0])
    level = percent(grid[where[0]] if len(where) else np.inf)
    difference = fine - 0.95 * fine[:, :1]
    n = len(difference)
    half = stats.t.ppf(0.975, n - 1) * np.sqrt(
        (1 / n + TEST_OVER_TRAIN) * difference.var(axis=0, ddof=1)
    )
    may_be_lost = np.flatnonzero(difference.mean(axis=0) <= half)
    may_be_kept = np.flatnonzero(difference.mean(axis=0) >= -half)
    if not len(may_be_lost):
        return level
    low, high = grid[may_be_lost[0]], grid[may_be_kept[-1]]
    return f"{level} ({percent(low)} to {percent(np.inf if high == grid[-1] else high)})"


def percent(level: float) -> str:
    return "not reached" if np.isinf(level) else f"{100 * level:.0f} %"


def numbers(text: str) -> NDArray[np.float64]:
    """Return the numbers of a text; "not reached" is 999."""
    return np.array(re.findall(r"[\d.]+", text.replace("not reached", "999")), dtype=float)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("title", METRICS)
def test_table_of_curves(dataset: str, title: str) -> None:
    metric, path = METRICS[title], RESULTS / f"robustness_{dataset}.md"
    (table,) = [one for one in tables(path.read_text("utf-8")) if one.titles[1] == title]
    by_level = studies(dataset)
    columns = [f"noise {100 * level:.0f} %" for level in by_level]
    bold = [bold_methods(study, metric, 3) for study in by_level.values()]
    with Comparison(f"{path.name}, {title}") as compare:
        compare.equal("columns", table.columns, ["method", "n", *columns, AREA, LOSS])
        compare.equal("methods", [row[0] for row in table.rows], [*by_level[0.0].rows])
        for method, n, *cells in table.rows:
            values = curves(dataset, method, metric)
            compare.number(f"{method}, n", n, len(values))
            for level, text, best in zip(values, cells, bold, strict=False):
                cell = parse_cell(text)
                compare.number(f"{method}, {level}", cell.mean, values[level].mean())
                compare.equal(f"{method}, {level}, bold", cell.bold, method in best)
            compare.equal(f"{method}, {AREA}", cells[-2], area_text(values))
            printed, own = numbers(cells[-1]), numbers(loss_text(values))
            # The limits of the interval are rounded outwards to 0.05 %, and then to 1 %.
            agree = len(printed) == len(own) and bool((abs(printed - own) <= 1).all())
            compare.check(f"{method}, {LOSS}", cells[-1], loss_text(values), agree)


@pytest.mark.parametrize("dataset", DATASETS)
def test_paired_tests_of_curves(dataset: str) -> None:
    stored = pd.read_csv(RESULTS / f"robustness_{dataset}_tests.csv")
    keys = ["method", "metric", "setting"]
    stored = stored.set_index(keys).sort_index()
    assert stored.index.is_unique
    expected = pd.concat(
        [
            paired_tests(study, metric).assign(setting=f"noise {100 * level:.0f} %")
            for level, study in studies(dataset).items()
            for metric in METRICS.values()
        ]
    )
    expected = expected.set_index(keys).sort_index()
    of_curves = stored[stored.index.get_level_values("metric").isin(METRICS.values())]
    assert of_curves.index.equals(expected.index)
    assert of_curves["reference"].tolist() == expected["reference"].tolist()
    for column in ("mean_difference", "low", "high", "p", "p_holm"):
        np.testing.assert_allclose(of_curves[column], expected[column], rtol=1e-5, atol=1e-12)
