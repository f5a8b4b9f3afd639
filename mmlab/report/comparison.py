"""A comparison as sections of a report: tables, curves, confusion matrices, the panel."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mmlab import figures
from mmlab.comparison.curves import curve_figures, curve_tables
from mmlab.comparison.tables import (
    ComparisonTables,
    best_method,
    compare_methods,
    competing_methods,
    view_tables,
)
from mmlab.datasets.cells import Cells
from mmlab.figures.published_numbers import published_figure
from mmlab.report.manifest import TrialEntry, entries
from mmlab.report.page import Best, PageFigure, Section, Table
from mmlab.schedule import ComparisonResult
from mmlab.selectors import control_methods
from mmlab.spec.comparison import NOISE_AXIS, SIZE_AXIS, ComparisonSpec
from mmlab.trial.result import CONFUSION, sum_matrices

#: Methods whose confusion matrices are drawn.
_CONFUSIONS = 3
_HEADLINE = "knn/accuracy"
#: Fewer replicates than this say little of their spread.
_FEW = 5


def study_question(spec: ComparisonSpec) -> str:
    """What a comparison asks."""
    name, k = spec.data.title, spec.n_markers[0]
    if spec.axis == NOISE_AXIS:
        return f"How much do methods suffer when cells of {name} have wrong labels ({k} genes)?"
    if spec.axis != SIZE_AXIS:
        return f"What does {spec.axis} change for panels of {k} genes on {name}?"
    if len(spec.settings) > 1:
        return f"How many genes are enough for {name}, and which method chooses them best?"
    seen = " on cells that no search has seen" if spec.protocol == "locked" else ""
    return f"Which method chooses the best panel of {k} genes for {name}{seen}?"


def study_answer(result: ComparisonResult, best: str) -> list[str]:
    """What it found, in a sentence or two."""
    spec, first = result.study.spec, result.study.spec.settings[0].name
    table = result.summary
    own = (table["method"] == best) & (table["setting"] == first) & (table["metric"] == _HEADLINE)
    row = table[own].iloc[0]
    where = "locked test cells" if spec.protocol == "locked" else "test cells"
    text = [
        f"{best} is best at {first}: kNN accuracy {row['mean']:.3f} ± {row['std']:.3f} on {where} "
        f"(mean and standard deviation of {int(row['n'])} replicates)."
    ]
    if spec.axis == NOISE_AXIS and len(result.robustness):
        part = result.robustness[result.robustness["metric"] == _HEADLINE]
        top = part.sort_values("auc", ascending=False).iloc[0]
        text.append(
            f"Over all levels of noise {top['method']} keeps most, area under its curve "
            f"{top['auc']:.3f}."
        )
    return text


def leading_method(result: ComparisonResult) -> str:
    """The competing method with the best kNN accuracy at the first setting."""
    competing = competing_methods(result.replicates, control_methods())
    first = result.study.spec.settings[0]
    part = result.summary[result.summary["setting"] == first.name]
    among = competing or set(result.replicates["method"])
    best = best_method(part, _HEADLINE, int(part["n_markers"].iloc[0]), among)
    assert best is not None  # every finished trial has this metric
    return best


def result_sections(
    result: ComparisonResult, comparison: ComparisonTables, cells: Cells, best: str
) -> list[Section]:
    """Tables with spread and significance, published numbers, curves, confusion matrices."""
    spec = result.study.spec
    place = {"locked": "Results on the locked cells", "paper": "Results"}[spec.protocol]
    stem = f"{spec.protocol}_" if spec.protocol == "locked" else ""
    competing = competing_methods(result.replicates, control_methods())
    sizes = spec.n_markers if spec.axis == SIZE_AXIS else spec.n_markers[:1]
    grids = [
        Table(f"{k} genes: {title}", header, rows)
        for k in sizes
        for title, header, rows in view_tables(comparison, k, competing, Best)
    ]
    text = [
        "Means ± standard deviations over n random splits, the same cells for every method; the "
        "best of those that compete is bold. Controls (random genes, all genes, ...) bound the "
        "others and do not compete."
    ]
    if spec.protocol == "locked":
        text.insert(
            0,
            "20 % of the cells were locked away before the search and are the test cells of every "
            "replicate; what differs between replicates is the split of the others into training "
            "and validation cells, and the seed.",
        )
    sections = [Section(place, text, [*grids, *_tests(comparison)])]
    figure = published_figure(comparison.table)
    if figure is not None:
        caption = (
            "Each method and metric: the mean measured here over the number in the paper "
            "(Gregory et al. 2024), whose random splits were other ones."
        )
        sections.append(
            Section(
                "Against the published numbers",
                [],
                [],
                [PageFigure(f"{stem}published", caption, figure)],
            )
        )
    if len(spec.settings) > 1:
        curves = curve_figures(spec, result.summary)
        pictures = [
            PageFigure(
                f"{stem}{name}",
                "Means over the replicates; bands are one standard deviation.",
                figure,
            )
            for name, figure in curves.items()
        ]
        tables = [
            Table(title, header, rows)
            for title, header, rows in curve_tables(spec, result.summary, result.robustness, Best)
        ]
        sections.append(Section("Curves", [], tables, pictures))
    sections.append(_confusions(result, cells, best, stem))
    return sections


def _tests(comparison: ComparisonTables) -> list[Table]:
    if comparison.tests.empty:
        return []
    rows = []
    tests = comparison.tests[comparison.tests["metric"] == _HEADLINE]
    for row in tests.to_dict(orient="records"):
        numbers = [row["t_p"], row["t_p_holm"], row["wilcoxon_p"]]
        rows.append(
            [
                str(row["method"]),
                str(row["reference"]),
                str(row["n"]),
                f"{row['mean_difference']:+.4f}",
                *("" if np.isnan(p) else f"{p:.3g}" for p in numbers),
            ]
        )
    header = ["method", "against", "n", "difference", "p (t-test)", "p (Holm)", "p (Wilcoxon)"]
    title = (
        "Is the difference in kNN accuracy real? Paired tests against the best method: corrected "
        "resampled t-test, the same with Holm's correction, Wilcoxon's signed-rank test"
    )
    return [Table(title, header, rows, n_texts=2)]


def _confusions(result: ComparisonResult, cells: Cells, best: str, stem: str) -> Section:
    key, first = f"{CONFUSION}knn", result.study.spec.settings[0].name
    rows = result.replicates[result.replicates["setting"] == first]
    means = rows.groupby("method")[_HEADLINE].mean().sort_values(ascending=False)
    shown = [best, *(m for m in means.index if m != best)][:_CONFUSIONS]
    matrices = {
        str(method): sum_matrices(rows.loc[rows["method"] == method, key]) for method in shown
    }
    title = f"{cells.name}, {first}: k-nearest neighbours on test cells"
    figure = figures.confusion_matrices(matrices, cells.classes, title)
    caption = "Test cells of all replicates by true and predicted type; colour: share of the row."
    return Section(
        "Which types are mistaken for which" + (", locked cells" if stem else ""),
        [],
        [],
        [PageFigure(f"{stem}confusion", caption, figure)],
    )


def result_tables(
    result: ComparisonResult, comparison: ComparisonTables
) -> dict[str, pd.DataFrame]:
    """Tidy tables by the name of their files."""
    stem = f"{result.study.spec.protocol}_" if result.study.spec.protocol == "locked" else ""
    tables = {"comparison": comparison.table, "paired_tests": comparison.tests}
    tables |= {"replicates": result.replicates, "robustness": result.robustness}
    if len(result.study.spec.settings) > 1:
        tables["curves"] = result.summary
    return {stem + name: table for name, table in tables.items() if len(table)}


def result_limits(result: ComparisonResult) -> list[str]:
    """What must not be read into a comparison."""
    spec = result.study.spec
    points = []
    if result.summary["n"].min() < _FEW:
        points.append(
            f"Some methods have fewer than {_FEW} replicates: their spread and their tests say "
            "little."
        )
    if result.replicates.groupby("method").size().nunique() > 1:
        points.append(
            "Methods have different numbers of replicates: their means are over different splits, "
            "and only the paired tests compare them on the same ones."
        )
    if spec.protocol == "paper":
        points.append(
            "The best method was found on the same replicates that it is judged on, which favours "
            "it a little."
        )
    else:
        points.append(
            "Only the locked cells are unseen: the search has seen most cells of the paper's "
            "protocol. Every further promotion looks at the same locked cells again."
        )
    return points


def comparison_tables(result: ComparisonResult) -> ComparisonTables:
    """Tables and tests; of curves over anything but the panel size, at the first setting."""
    first = result.study.spec.settings[0].name
    rows, summary = (
        t[t["setting"] == first] if result.study.spec.axis != SIZE_AXIS else t
        for t in (result.replicates, result.summary)
    )
    return compare_methods(rows, summary, control_methods(), result.study.spec.protocol)


def trial_entries(result: ComparisonResult) -> list[TrialEntry]:
    """What the manifest says of a comparison's trials."""
    return entries(result.replicates, {trial.digest: trial.spec for trial in result.grid})
