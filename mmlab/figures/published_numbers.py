"""Plot of mmlab's numbers against the published ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmlab.figures.style import figure_text

#: Number of methods that are labelled: those furthest from the published numbers.
_N_LABELLED = 4


def published_figure(table: pd.DataFrame) -> Figure | None:
    """Draw mmlab's means over the published numbers, one point per published number.

    Error bars are one sample standard deviation.

    Parameters
    ----------
    table
        Columns method, metric, mean, std, published and difference; see
        :class:`mmlab.comparison.tables.ComparisonTables`.

    Returns
    -------
    None if no row has a published number.
    """
    known = table.dropna(subset=["published"])
    if known.empty:
        return None
    panels = [
        ("accuracy and weighted F1", ("knn/", "random_forest/")),
        ("linear reconstruction error", ("linear/",)),
    ]
    groups = [(title, known[known["metric"].str.startswith(p)]) for title, p in panels]
    groups = [(title, part) for title, part in groups if not part.empty]
    figure = Figure(figsize=(6.4 * len(groups), 5.4), dpi=120, layout="constrained")
    for axes, (title, part) in zip(
        np.atleast_1d(figure.subplots(1, len(groups))), groups, strict=True
    ):
        low = min((part["mean"] - part["std"].fillna(0)).min(), part["published"].min())
        high = max((part["mean"] + part["std"].fillna(0)).max(), part["published"].max())
        margin = 0.05 * (high - low) + 1e-3
        ends = [low - margin, high + margin]
        axes.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
        for index, (metric, points) in enumerate(part.groupby("metric")):
            axes.errorbar(
                points["published"],
                points["mean"],
                yerr=points["std"],
                fmt="os^D"[index % 4],
                markersize=5,
                linewidth=1,
                alpha=0.8,
                label=str(metric),
            )
        far = part.loc[part["difference"].abs().sort_values(ascending=False).index]
        for row in far.drop_duplicates("method").head(_N_LABELLED).itertuples():
            left = row.published > (low + high) / 2
            axes.annotate(
                figure_text(str(row.method)),
                (row.published, row.mean),
                xytext=(-6 if left else 6, -3),
                ha="right" if left else "left",
                textcoords="offset points",
                fontsize=7,
            )
        ylabel = "mmlab, mean ± sample std"
        axes.set(xlim=ends, ylim=ends, xlabel="published value", ylabel=ylabel, title=title)
        axes.set_aspect("equal")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    return figure
