"""What a comparison along an axis shows: a line a method over noise, panel size or a parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlab import figures
from mmlab.comparison.tables import metric_direction
from mmlab.spec.comparison import NOISE_AXIS, SIZE_AXIS, ComparisonSpec
from mmlab.trial.evaluate import CLEAN_PREFIX

_CLASSIFIERS = {"knn": "k-nearest neighbours", "random_forest": "random forest"}


@dataclass(frozen=True)
class CurveView:
    """A metric as curves: title, label of the axis, and the figure that it is a panel of."""

    metric: str
    title: str
    label: str
    figure: str


def curve_views(spec: ComparisonSpec) -> list[CurveView]:
    """What is drawn of a study."""
    if spec.axis != NOISE_AXIS:
        accuracy = [
            CurveView(f"{name}/accuracy", title, "accuracy on test cells", "curves")
            for name, title in _CLASSIFIERS.items()
        ]
        error = "mean squared error, z-scores"
        return [*accuracy, CurveView("linear/l2", "linear reconstruction", error, "curves")]
    return [
        CurveView(
            f"{kind}{name}/accuracy",
            f"{title}: wrong labels for {seen}",
            "accuracy on test cells",
            f"curves_{name}",
        )
        for name, title in _CLASSIFIERS.items()
        for kind, seen in (("", "selection and classifier"), (CLEAN_PREFIX, "selection alone"))
    ]


def axis_label(spec: ComparisonSpec) -> str:
    """Name of the axis, with its unit."""
    if spec.axis == NOISE_AXIS:
        return f"training cells with a redrawn label, % ({spec.noise})"
    return "genes in the panel" if spec.axis == SIZE_AXIS else spec.axis


def curve_figures(spec: ComparisonSpec, summary: pd.DataFrame) -> dict[str, Figure]:
    """The curves of a study by the names of their files; bands are one standard deviation."""
    values = [setting.value for setting in spec.settings]
    if spec.axis == NOISE_AXIS:
        values = [100 * float(value) for value in values]
    places = {s.name: value for s, value in zip(spec.settings, values, strict=True)}
    found: dict[str, dict[str, pd.DataFrame]] = {}
    labels: dict[str, str] = {}
    for view in curve_views(spec):
        part = summary[summary["metric"] == view.metric]
        if len(part):
            part = part.assign(x=part["setting"].map(places))
            found.setdefault(view.figure, {})[view.title] = part
            labels[view.title] = view.label
    heading = f"{spec.data.title}, {spec.study}"
    if spec.axis != SIZE_AXIS:
        heading += f", {spec.n_markers[0]} markers"
    return {
        name: figures.curves(
            panels, values, axis_label(spec), {title: labels[title] for title in panels}, heading
        )
        for name, panels in found.items()
    }


def curve_tables(
    spec: ComparisonSpec,
    summary: pd.DataFrame,
    robustness: pd.DataFrame,
    bold: Callable[[str], str],
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of every metric: a column a setting, the best through ``bold``."""
    shown = []
    for view in curve_views(spec):
        part = summary[summary["metric"] == view.metric]
        if part.empty:
            continue
        means = part.pivot(index="method", columns="setting", values="mean")
        means = means.reindex([m.title for m in spec.methods if m.title in means.index])
        n = part.groupby("method")["n"].min()
        settings = [s.name for s in spec.settings if s.name in means.columns]
        best = means.max() if metric_direction(view.metric) == "max" else means.min()
        costs = pd.DataFrame()
        if len(robustness):
            costs = robustness[robustness["metric"] == view.metric].set_index("method")
        header = ["method", "n", *settings]
        header += ["area", "loses 5 % at"] if len(costs) else []
        body = []
        for method in means.index:
            line = [str(method), str(int(n[method]))]
            for setting in settings:
                mean = means.loc[method, setting]
                text = "" if np.isnan(mean) else f"{mean:.3f}"
                line.append(bold(text) if mean == best[setting] else text)
            if len(costs):
                line += _costs(costs.loc[method]) if method in costs.index else ["", ""]
            body.append(line)
        shown.append((view.title, header, body))
    return shown


def _costs(row: pd.Series) -> list[str]:
    """Area under the curve, and the noise that costs 5 %, each with its interval."""
    area = f"{row['auc']:.3f}"
    if np.isfinite(row["auc_low"]):
        area += f" ({row['auc_low']:.3f} to {row['auc_high']:.3f})"
    level = _percent(row["loss_level"])
    if np.isfinite(row["loss_level_low"]):
        level += f" ({_percent(row['loss_level_low'])} to {_percent(row['loss_level_high'])})"
    return [area, level]


def _percent(level: float) -> str:
    return "never" if np.isinf(level) else f"{100 * level:.0f} %"


def curves_markdown(spec: ComparisonSpec, summary: pd.DataFrame, robustness: pd.DataFrame) -> str:
    """All tables as Markdown."""
    lines = []
    for title, header, body in curve_tables(spec, summary, robustness, "**{}**".format):
        lines += [f"### {title[0].upper()}{title[1:]}", ""]
        lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        lines += ["| " + " | ".join(row) + " |" for row in body]
        lines.append("")
    return "\n".join(lines)


def write_curves(
    spec: ComparisonSpec,
    rows: pd.DataFrame,
    summary: pd.DataFrame,
    robustness: pd.DataFrame,
    folder: Path,
) -> None:
    """Write tables as Parquet and CSV, and the figures, into ``folder``.

    In ``curves``, ``step`` is the place of a setting on the axis as MLflow draws it.
    """
    steps = {setting.name: setting.step for setting in spec.settings}
    summary = summary.assign(step=summary["setting"].map(steps))
    summary.to_parquet(folder / "curves.parquet", index=False)
    summary.to_csv(folder / "curves.csv", index=False)
    if len(robustness):
        robustness.to_parquet(folder / "robustness.parquet", index=False)
        robustness.to_csv(folder / "robustness.csv", index=False)
    rows.to_parquet(folder / "replicates.parquet", index=False)
    for name, figure in curve_figures(spec, summary).items():
        figure.savefig(folder / f"{name}.png")
