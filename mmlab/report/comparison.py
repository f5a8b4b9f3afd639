"""Sections and tables of a comparison: results, published numbers, curves, confusion matrices."""

from __future__ import annotations

import math

import pandas as pd

from mmlab import figures
from mmlab.comparison.curves import curve_figures, curve_tables, robustness_note
from mmlab.comparison.significance import TESTED_METRICS, add_significance, bold_note
from mmlab.comparison.tables import (
    ComparisonTables,
    compare_methods,
    describe_spread,
    view_tables,
)
from mmlab.datasets.cells import Cells
from mmlab.figures.published_numbers import published_figure
from mmlab.report.comparison_text import HEADLINE_METRIC
from mmlab.report.manifest import TrialEntry, replicate_entries
from mmlab.report.page import BestValue, PageFigure, Section, Table
from mmlab.schedule.comparison_plan import ComparisonResult
from mmlab.selectors import control_methods
from mmlab.spec.comparison import NOISE_AXIS, SIZE_AXIS
from mmlab.trial.evaluate import CLEAN_PREFIX
from mmlab.trial.result import CONFUSION_PREFIX, sum_matrices

#: Number of methods whose confusion matrices are drawn.
_CONFUSION_MATRICES = 3
#: Section titles by protocol.
_RESULTS_TITLES = {
    "locked": "Results on the held-out test set",
    "paper": "Results on random splits",
}
_CONFUSION_TITLES = {
    "locked": "Confusion between cell types (held-out test set)",
    "paper": "Confusion between cell types (random splits)",
}
#: What a replicate is, by protocol.
_SPLITS = {
    "locked": "The held-out test set contains 20 % of the cells and was not used by the search. It "
    "is the test set of every replicate; replicates differ in the seed and in the split of the "
    "other cells into training and validation cells.",
    "paper": "A replicate is a random split of all cells into training (70 %), validation (10 %) "
    "and test cells (20 %).",
}

#: What is particular to the tests, by protocol.
_TESTS = {
    "locked": " The tests are over the test cells, not over replicates, which share them: the "
    "values of a cell are averaged over the n replicates. Intervals and p-values are from a "
    "bootstrap over cells; for n = 1, the p-values of accuracies are from McNemar's exact test.",
    "paper": "",
}


def result_sections(
    result: ComparisonResult, comparison: ComparisonTables, cells: Cells, best: str
) -> list[Section]:
    """Return the sections with the results of a comparison.

    They contain the tables of metrics, the paired tests, the published numbers if there are any,
    the curves if there are several settings, and the confusion matrices.

    Parameters
    ----------
    comparison
        From :func:`comparison_tables`.
    best
        The method whose confusion matrix is drawn first.
    """
    sections = [_metrics_section(result, comparison)]
    published = published_figure(comparison.table)
    if published is not None:
        caption = (
            "Mean of each method and metric, computed by mmlab, against the published value "
            "(Gregory et al. 2024). Error bars: one sample standard deviation. The random splits "
            "of the publication differ from those of this report."
        )
        figure = PageFigure(_file_prefix(result) + "published", caption, published)
        sections.append(Section("Comparison with published numbers", [], [], [figure]))
    if len(result.study.spec.settings) > 1:
        sections.append(_curves_section(result, comparison))
    sections.append(_confusion_section(result, cells, best))
    return sections


def _file_prefix(result: ComparisonResult) -> str:
    """Return the prefix of file names that separates the two comparisons of a promotion."""
    return "locked_" if result.study.spec.protocol == "locked" else ""


def _metrics_section(result: ComparisonResult, comparison: ComparisonTables) -> Section:
    """Return the section with means, sample standard deviations and paired tests."""
    spec = result.study.spec
    sizes = spec.n_markers if spec.axis == SIZE_AXIS else spec.n_markers[:1]
    tables = [
        Table(f"{k} genes: {table.title}", table.header, table.rows, legend=table.legend)
        for k in sizes
        for table in view_tables(comparison, k, BestValue, spec.protocol)
    ]
    text = [
        _SPLITS[spec.protocol],
        "Replicates with the same number have the same split for every method. "
        f"{bold_note(comparison.tests)} Controls (random genes, all genes, ...) are reference "
        "points for the other methods.",
    ]
    if spec.axis != SIZE_AXIS:
        text.append(f"The tables show the first setting, {spec.settings[0].name}.")
    if not comparison.tests.empty and comparison.tests["p"].notna().any():
        text.append(
            "Paired tests compare each method with the best of those that have all replicates, on "
            "the n replicates that both have. Difference: mean of the method minus that of the "
            "best method, with its 95 % confidence interval. p (Holm): with Holm's correction for "
            "the number of methods." + _TESTS[spec.protocol]
        )
        # Without label noise, the clean classifiers are the same as the others.
        clean = comparison.tests["metric"].str.startswith(CLEAN_PREFIX)
        shown = comparison.tests["setting"].isin(comparison.table["setting"]) & ~clean
        tables += _paired_tests_tables(comparison.tests[shown], len(sizes) > 1)
    return Section(_RESULTS_TITLES[spec.protocol], text, tables)


def _paired_tests_tables(tests: pd.DataFrame, show_size: bool) -> list[Table]:
    """Return one table of tests per metric."""
    header = ["method", "best method", *(["genes"] if show_size else []), "n", "difference"]
    header += ["95 % interval", "p", "p (Holm)"]
    tables = []
    for metric in filter(set(tests["metric"]).__contains__, TESTED_METRICS):
        rows = []
        for row in tests[tests["metric"] == metric].to_dict(orient="records"):
            interval = f"{row['low']:+.4f} to {row['high']:+.4f}"
            tested = [interval, f"{row['p']:.3g}", f"{row['p_holm']:.3g}"]
            rows.append(
                [
                    str(row["method"]),
                    str(row["reference"]),
                    *([str(row["n_markers"])] if show_size else []),
                    str(row["n"]),
                    f"{row['mean_difference']:+.4f}",
                    *(["", "", ""] if math.isnan(row["p"]) else tested),
                ]
            )
        title = f"Paired tests of {metric} against the best method"
        tables.append(Table(title, header, rows, n_text_columns=2))
    return tables


def _curves_section(result: ComparisonResult, comparison: ComparisonTables) -> Section:
    """Return the section with metrics over label noise, panel size or a parameter."""
    spec = result.study.spec
    titles = {NOISE_AXIS: "Robustness to label noise", SIZE_AXIS: "Effect of the panel size"}
    text = [f"Each table shows a metric at every setting. {bold_note(comparison.tests)}"]
    if spec.axis == NOISE_AXIS:
        text.append(
            "The noise level is the share of training and validation cells whose label is "
            f"redrawn; kind of noise: {spec.noise}. Either selection and classifier both get the "
            "noisy labels, or only selection does."
        )
    if len(result.robustness):
        text.append(f"The last columns summarise each curve. {robustness_note(spec)}")
    caption = f"Mean over the replicates. Bands: one {describe_spread(spec.protocol)}."
    summary = add_significance(result.summary, comparison.tests)
    curves = curve_figures(spec, summary)
    tables = [
        Table(table.title, table.header, table.rows, legend=table.legend)
        for table in curve_tables(spec, summary, result.robustness, BestValue)
    ]
    return Section(
        titles.get(spec.axis, f"Effect of {spec.axis}"),
        text,
        tables,
        [
            PageFigure(_file_prefix(result) + name, caption, figure)
            for name, figure in curves.items()
        ],
    )


def _confusion_section(result: ComparisonResult, cells: Cells, best: str) -> Section:
    """Return the section with the confusion matrices of the methods with the highest accuracy."""
    spec = result.study.spec
    key, first = f"{CONFUSION_PREFIX}knn", spec.settings[0].name
    rows = result.replicates[result.replicates["setting"] == first]
    means = rows.groupby("method")[HEADLINE_METRIC].mean().sort_values(ascending=False)
    drawn = [best, *(m for m in means.index if m != best)][:_CONFUSION_MATRICES]
    matrices = {
        str(method): sum_matrices(rows.loc[rows["method"] == method, key]) for method in drawn
    }
    title = f"{cells.name}, {first}: k-nearest neighbours on test cells"
    figure = figures.confusion_matrices(matrices, cells.classes, title)
    shown = ""
    if len(drawn) < len(means):
        shown = f", of {best} and the {len(drawn) - 1} others with the highest accuracy"
    caption = (
        "Confusion matrices of the k-nearest neighbours classifier on the test cells of all "
        f"replicates, {first}{shown}. Rows: true type; columns: predicted type. Colour: share of "
        "the cells of the true type; numbers, if shown: cells."
    )
    return Section(
        _CONFUSION_TITLES[spec.protocol],
        [],
        [],
        [PageFigure(_file_prefix(result) + "confusion", caption, figure)],
    )


def result_tables(
    result: ComparisonResult, comparison: ComparisonTables
) -> dict[str, pd.DataFrame]:
    """Return the tidy tables of a comparison by file name, without empty ones."""
    tables = {"comparison": comparison.table, "paired_tests": comparison.tests}
    tables |= {"replicates": result.replicates, "robustness": result.robustness}
    if len(result.study.spec.settings) > 1:
        tables["curves"] = add_significance(result.summary, comparison.tests)
    return {_file_prefix(result) + name: table for name, table in tables.items() if len(table)}


def comparison_tables(result: ComparisonResult) -> ComparisonTables:
    """Return metrics and paired tests of a comparison.

    The tests cover all settings. The metrics cover all panel sizes; along any other axis, they
    cover the first setting only.
    """
    spec, summary = result.study.spec, result.summary
    if spec.axis != SIZE_AXIS:
        summary = summary[summary["setting"] == spec.settings[0].name]
    return compare_methods(result.replicates, summary, control_methods(), spec.protocol)


def trial_entries(result: ComparisonResult) -> list[TrialEntry]:
    """Return the manifest entries of the finished trials of a comparison."""
    specs = {trial.digest: trial.spec for trial in result.trials}
    return replicate_entries(result.replicates, specs)
