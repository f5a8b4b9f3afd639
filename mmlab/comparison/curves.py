"""Curves of a comparison: one line per method over label noise, panel size or a parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlab import figures
from mmlab.comparison.robustness import LOSS_SHARE
from mmlab.comparison.shown_table import ShownTable
from mmlab.figures.style import save_figure
from mmlab.metrics.descriptions import SOURCES, legend
from mmlab.spec.comparison import NOISE_AXIS, SIZE_AXIS, ComparisonSpec
from mmlab.trial.evaluate import CLASSIFIERS, CLEAN_PREFIX

#: Smallest number of noise levels at which the level of a loss can be read from a curve.
_LEVELS_OF_LOSS = 4
#: What has label noise, by the prefix of the classifier's metrics.
_NOISY_PARTS = {"": "selection and classifier", CLEAN_PREFIX: "selection only"}


@dataclass(frozen=True)
class CurveView:
    """A metric that is drawn as curves.

    Attributes
    ----------
    metric
        Name of the metric.
    title
        Title of the panel of the figure, and of the table.
    ylabel
        Label of the y-axis.
    figure
        Stem of the file name; views with the same stem are drawn side by side.
    """

    metric: str
    title: str
    ylabel: str
    figure: str


def curve_views(spec: ComparisonSpec) -> list[CurveView]:
    """Return the metrics of a comparison that are drawn as curves."""
    if spec.axis != NOISE_AXIS:
        accuracy = [
            CurveView(f"{name}/accuracy", SOURCES[name], "accuracy on test cells", "curves")
            for name in CLASSIFIERS
        ]
        error = "mean squared error (z-scores)"
        return [*accuracy, CurveView("linear/l2", SOURCES["linear"], error, "curves")]
    return [
        CurveView(
            f"{prefix}{name}/accuracy",
            f"{SOURCES[name]}: label noise in {noisy}",
            "accuracy on test cells",
            f"curves_{name}",
        )
        for name in CLASSIFIERS
        for prefix, noisy in _NOISY_PARTS.items()
    ]


def axis_label(spec: ComparisonSpec) -> str:
    """Return the label of the x-axis, with its unit."""
    if spec.axis == NOISE_AXIS:
        return f"label noise: training labels redrawn, % ({spec.noise})"
    return "genes in the panel" if spec.axis == SIZE_AXIS else spec.axis


def curve_figures(spec: ComparisonSpec, summary: pd.DataFrame) -> dict[str, Figure]:
    """Draw the curves of a comparison; bands are one sample standard deviation.

    Parameters
    ----------
    spec
        The comparison.
    summary
        From :func:`mmlab.comparison.result_table.summarise_rows`.

    Returns
    -------
    Figures by the stem of their file names.
    """
    values = [setting.value for setting in spec.settings]
    if spec.axis == NOISE_AXIS:
        values = [100 * float(value) for value in values]
    x_values = {s.name: value for s, value in zip(spec.settings, values, strict=True)}
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    ylabels: dict[str, str] = {}
    for view in curve_views(spec):
        part = summary[summary["metric"] == view.metric]
        if len(part):
            part = part.assign(x=part["setting"].map(x_values))
            tables.setdefault(view.figure, {})[view.title] = part
            ylabels[view.title] = view.ylabel
    heading = f"{spec.data.title}, {spec.study}"
    if spec.axis != SIZE_AXIS:
        heading += f", {spec.n_markers[0]} markers"
    return {
        name: figures.curves(
            panels, values, axis_label(spec), {title: ylabels[title] for title in panels}, heading
        )
        for name, panels in tables.items()
    }


def curve_tables(
    spec: ComparisonSpec,
    summary: pd.DataFrame,
    robustness: pd.DataFrame,
    bold: Callable[[str], str],
) -> list[ShownTable]:
    """Return the table of every metric: one row per method, one column per setting.

    Parameters
    ----------
    spec
        The comparison.
    summary
        From :func:`mmlab.comparison.significance.add_significance`.
    robustness
        From :func:`mmlab.comparison.robustness.robustness_table`; empty unless the axis is noise.
    bold
        Marks a text as bold, see :func:`mmlab.comparison.significance.bold_note`.
    """
    tables = []
    for view in curve_views(spec):
        part = summary[summary["metric"] == view.metric]
        if part.empty:
            continue
        means = part.pivot(index="method", columns="setting", values="mean")
        means = means.reindex([m.title for m in spec.methods if m.title in means.index])
        is_bold = part.set_index(["method", "setting"])["bold"]
        n = part.groupby("method")["n"].min()
        settings = [s.name for s in spec.settings if s.name in means.columns]
        by_method = pd.DataFrame()
        if len(robustness):
            by_method = robustness[robustness["metric"] == view.metric].set_index("method")
        header = ["method", "n", *settings]
        header += robustness_columns(len(settings)) if len(by_method) else []
        body = []
        for method in means.index:
            line = [str(method), str(int(n[method]))]
            for setting in settings:
                mean = means.loc[method, setting]
                text = "" if np.isnan(mean) else f"{mean:.3f}"
                line.append(bold(text) if is_bold.get((method, setting), False) else text)
            if len(by_method):
                known = method in by_method.index
                line += _format_robustness(by_method.loc[method]) if known else ["", ""]
            body.append(line[: len(header)])
        values = f"Mean over n replicates. {legend({view.metric: view.metric.rpartition('/')[2]})}"
        tables.append(ShownTable(view.title, header, body, values))
    return tables


def robustness_columns(n_levels: int) -> list[str]:
    """Return the columns that summarise curves over ``n_levels`` noise levels."""
    columns = ["area under curve", f"noise at {_percent(LOSS_SHARE)} loss"]
    return columns if n_levels >= _LEVELS_OF_LOSS else columns[:1]


def robustness_note(spec: ComparisonSpec) -> str:
    """Return what :func:`robustness_columns` are."""
    note = (
        "Area under curve: divided by the range of the noise levels, that is, the mean accuracy "
        "over the levels."
    )
    if len(robustness_columns(len(spec.settings))) > 1:
        loss = _percent(LOSS_SHARE)
        note += (
            f" Noise at {loss} loss: the noise level, interpolated between those of the table, at "
            f"which accuracy has dropped by {loss} of its value without noise."
        )
    return f"{note} In parentheses: 95 % confidence intervals."


def _format_robustness(row: pd.Series) -> list[str]:
    """Format area under the curve and noise level at 5 % loss, each with its interval."""
    area = f"{row['auc']:.3f}"
    if np.isfinite(row["auc_low"]):
        area += f" ({row['auc_low']:.3f} to {row['auc_high']:.3f})"
    level = _percent(row["loss_level"])
    if np.isfinite(row["loss_level_low"]):
        level += f" ({_percent(row['loss_level_low'])} to {_percent(row['loss_level_high'])})"
    return [area, level]


def _percent(level: float) -> str:
    return "not reached" if np.isinf(level) else f"{100 * level:.0f} %"


def write_curves(
    spec: ComparisonSpec,
    rows: pd.DataFrame,
    summary: pd.DataFrame,
    robustness: pd.DataFrame,
    tests: pd.DataFrame,
    folder: Path,
) -> None:
    """Write the tables as Parquet and CSV, and the figures as PNG, into ``folder``.

    The column ``step`` of ``curves`` is the x-value of a setting in charts of MLflow.
    """
    steps = {setting.name: setting.step for setting in spec.settings}
    summary = summary.assign(step=summary["setting"].map(steps))
    tables = {"curves": summary, "paired_tests": tests, "robustness": robustness}
    for name, table in tables.items():
        if len(table):
            table.to_parquet(folder / f"{name}.parquet", index=False)
            table.to_csv(folder / f"{name}.csv", index=False)
    rows.to_parquet(folder / "replicates.parquet", index=False)
    for name, figure in curve_figures(spec, summary).items():
        save_figure(figure, folder / f"{name}.png")
