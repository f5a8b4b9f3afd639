"""Report of a comparison: which method it calls the best, ties, and the tests that it shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmlab.comparison.result_table import summarise_rows
from mmlab.comparison.robustness import fill_clean_metrics, robustness_table
from mmlab.report.comparison import comparison_tables, result_sections, result_tables
from mmlab.report.comparison_text import comparison_answer, comparison_limitations, leading_method
from mmlab.spec.comparison import NOISE_AXIS, ComparisonSpec

#: Accuracy without noise by method, and the replicates that it has. On its easy splits, ``smash``
#: has a higher mean than ``cosg``, but it is worse there. ``oracle`` is a control.
METHODS = {
    "cosg": (0.90, range(6)),
    "rankcorr": (0.897, range(6)),
    "mrmr": (0.80, range(6)),
    "smash": (0.88, range(3)),
    "lassonet": (0.99, range(1)),
    "oracle": (0.99, range(6)),
}
SPLITS = [0.04, 0.05, 0.06, -0.05, -0.04, -0.06]
JITTER = [0.003, -0.002, 0.001, -0.004, 0.004, -0.002]


def result_of(levels: list[float], methods: list[str], **more: Any) -> Any:
    """Return a comparison of methods at noise levels, without a tracking store."""
    spec = ComparisonSpec.model_validate(
        {"data": {"name": "zeisel"}, "methods": methods}
        | ({"study": "robustness", "levels": levels} if levels else {})
        | more
    )
    rows = []
    for method in methods:
        accuracy, replicates = METHODS[method]
        for setting in spec.settings:
            level = setting.noise.level
            for replicate in replicates:
                value = (accuracy + SPLITS[replicate]) * (1 - 0.5 * level)
                value += JITTER[replicate] * (method != "cosg")
                row = {
                    "dataset": "zeisel",
                    "method": method,
                    "selector": method,
                    "setting": setting.name,
                    "n_markers": setting.n_markers,
                    "noise_level": level,
                    "replicate": replicate,
                    "panel": [1, 2],
                    "fit_seconds": 1.0,
                    "knn/accuracy": value,
                    "random_forest/accuracy": value,
                    "linear/l2": 1 - value,
                    "confusion/knn": [[3, 0], [1, 2]],
                }
                if level > 0:
                    row |= {"clean_knn/accuracy": value, "clean_random_forest/accuracy": value}
                rows.append(fill_clean_metrics(row) if spec.axis == NOISE_AXIS else row)
    table = pd.DataFrame(rows)
    robustness = robustness_table(table) if spec.axis == NOISE_AXIS else pd.DataFrame()
    return SimpleNamespace(
        study=SimpleNamespace(spec=spec),
        replicates=table,
        summary=summarise_rows(table, 100),
        robustness=robustness,
    )


CELLS: Any = SimpleNamespace(name="zeisel", classes=["a", "b"])


def test_the_answer_names_the_best_method_with_all_replicates_and_its_ties() -> None:
    result = result_of([], list(METHODS))
    means = result.replicates.groupby("method")["knn/accuracy"].mean()
    assert means["smash"] > means["cosg"]
    assert leading_method(result) == "cosg"
    text = comparison_answer(result, comparison_tables(result).tests, "cosg")
    std = np.std(SPLITS, ddof=1)
    assert f"0.900 ± {std:.3f} on test cells (mean ± sample standard deviation over 6" in text[0]
    assert text[0].endswith("Controls are not ranked.")
    assert text[1] == (
        "Not distinguishable from it (corrected resampled t-test with Holm's correction): "
        "rankcorr. Not decided (too few common replicates, or the same difference in all): "
        "lassonet."
    )
    assert any("different splits" in point for point in comparison_limitations(result))


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (["cosg", "mrmr"], "All other methods are significantly worse (corrected"),
        (["cosg", "lassonet"], "No method could be tested against it (too few"),
    ],
)
def test_the_answer_says_if_no_method_ties(methods: list[str], sentence: str) -> None:
    result = result_of([], methods)
    text = comparison_answer(result, comparison_tables(result).tests, "cosg")
    assert text[1].startswith(sentence)
    assert "Controls" not in text[0]


def test_a_single_replicate_has_no_standard_deviation() -> None:
    result = result_of([], ["lassonet"])
    (text,) = comparison_answer(result, comparison_tables(result).tests, "lassonet")
    assert text.endswith("1.033 on test cells (1 replicate).")


def test_the_largest_area_is_not_that_of_a_control_or_of_few_replicates() -> None:
    result = result_of([0, 0.5, 1], list(METHODS))
    areas = result.robustness.query("metric == 'knn/accuracy'").set_index("method")["auc"]
    assert areas.sort_values().index[-1] != "cosg"
    text = comparison_answer(result, comparison_tables(result).tests, "cosg")
    assert "cosg has the highest mean kNN accuracy" in text[-1]
    # The mean curve falls from 0.9 to 0.45; its area is the mean.
    assert "0.675 (95 % confidence interval" in text[-1]


@pytest.mark.parametrize(
    ("methods", "which"),
    [
        (list(METHODS), "k=50, of cosg and the 2 others with the highest accuracy. Rows"),
        (["cosg"], "k=50. Rows"),
    ],
)
def test_a_caption_says_which_methods_have_a_confusion_matrix(
    methods: list[str], which: str
) -> None:
    result = result_of([], methods)
    sections = result_sections(result, comparison_tables(result), CELLS, "cosg")
    (section,) = [section for section in sections if section.title.startswith("Confusion")]
    assert which in section.figures[0].caption


def test_the_report_shows_and_writes_the_tests_of_every_metric() -> None:
    result = result_of([], list(METHODS), n_markers=[10, 50])
    comparison = comparison_tables(result)
    section = result_sections(result, comparison, CELLS, "cosg")[0]
    tables = {table.title: table for table in section.tables}
    for metric in ("knn/accuracy", "random_forest/accuracy", "linear/l2"):
        table = tables[f"Paired tests of {metric} against the best method"]
        assert list(table.header) == [
            *("method", "best method", "genes", "n", "difference", "95 % interval", "p", "p (Holm)")
        ]
        assert len(table.rows) == 2 * 4
        by_method = {line[0]: list(line) for line in table.rows if line[2] == "50"}
        assert by_method["smash"][1:4] == ["cosg", "50", "3"]
        assert by_method["smash"][4] == ("+0.0193" if metric == "linear/l2" else "-0.0193")
        assert by_method["lassonet"][5:] == ["", "", ""]
    bold = [
        line[0]
        for line in tables["50 genes: k-nearest neighbours (table 1 of the paper)"].rows
        if getattr(line[2], "best", False)
    ]
    assert bold == ["cosg", "rankcorr"]
    assert any("Bold: not distinguishable from the best method" in text for text in section.text)
    written = result_tables(result, comparison)["paired_tests"]
    assert set(written["metric"]) == {"knn/accuracy", "random_forest/accuracy", "linear/l2"}
    assert len(written) == 2 * 3 * 4


def test_the_tests_of_every_noise_level_are_written_and_those_of_the_first_shown() -> None:
    result = result_of([0, 0.5, 1], list(METHODS))
    comparison = comparison_tables(result)
    sections = {s.title: s for s in result_sections(result, comparison, CELLS, "cosg")}
    results = sections["Results on random splits"]
    tests = [table for table in results.tables if table.title.startswith("Paired tests")]
    assert [len(table.rows) for table in tests] == [4, 4, 4]
    tables = result_tables(result, comparison)
    assert set(tables["paired_tests"]["setting"]) == {"noise 0 %", "noise 50 %", "noise 100 %"}
    assert tables["curves"]["bold"].any()
    curves = sections["Robustness to label noise"].tables[0]
    (oracle,) = (line for line in curves.rows if line[0] == "oracle")
    assert not any(getattr(cell, "best", False) for cell in oracle)
