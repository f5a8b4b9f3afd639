"""Line plots of a metric over label noise, panel size or a parameter."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmlab.figures.style import DPI, MARKERS, MAX_AXES, MAX_TITLE, figure_labels, figure_text

_LINE_STYLES = ("-", "--", ":", "-.")
#: Ratio of the largest to the smallest tick from which the x-axis is logarithmic.
_LOG_RATIO = 10


def curves(
    panels: dict[str, pd.DataFrame],
    ticks: Sequence[float | int | str],
    xlabel: str,
    ylabels: dict[str, str],
    title: str,
) -> Figure:
    """Draw one panel per table side by side, with one line and band per method.

    A method has the same colour, line style and marker in all panels.

    Parameters
    ----------
    panels
        Tables by the title of their panel, with the columns method, x, mean and std. The band is
        mean ± std, the sample standard deviation; NaN std gives no band.
    ticks
        Ticks of the x-axis: numbers or texts. The axis is logarithmic if all numbers are positive
        and the largest is at least ten times the smallest.
    xlabel
        Label of the x-axis of all panels.
    ylabels
        Label of the y-axis by the title of the panel. If all are equal, the panels share their
        y-axis.
    title
        Title of the figure.
    """
    figure = Figure(figsize=(5.2 * len(panels) + 2.4, 4.6), dpi=DPI, layout="constrained")
    numbers = [t for t in ticks if isinstance(t, int | float) and not isinstance(t, bool)]
    numeric = len(numbers) == len(ticks)
    methods = list(dict.fromkeys(m for table in panels.values() for m in table["method"]))
    labelled = list(zip(methods, figure_labels(methods), strict=True))
    share_y = len(set(ylabels.values())) == 1
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=share_y)
    for axes, (name, table) in zip(grid.flat, panels.items(), strict=True):
        for index, (method, label) in enumerate(labelled):
            part = table[table["method"] == method]
            x = part["x"] if numeric else part["x"].map(list(ticks).index)
            style = {
                "color": f"C{index % 10}",
                "linestyle": _LINE_STYLES[index // 10 % len(_LINE_STYLES)],
            }
            axes.plot(x, part["mean"], marker=MARKERS[index % len(MARKERS)], label=label, **style)
            spread = part["std"].fillna(0)
            low, high = part["mean"] - spread, part["mean"] + spread
            axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
        if not numeric:
            axes.set_xticks(range(len(ticks)), figure_labels(map(str, ticks)))
        elif min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_RATIO:
            axes.set_xscale("log")
            axes.set_xticks(numbers, [f"{tick:g}" for tick in numbers])
            axes.minorticks_off()
        elif all(float(number).is_integer() for number in numbers):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_title(figure_text(name, MAX_AXES), fontsize=10)
        axes.set_xlabel(figure_text(xlabel, MAX_AXES))
        axes.set_ylabel(ylabels[name])
        axes.grid(alpha=0.3)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8)
    figure.suptitle(figure_text(title, MAX_TITLE), fontsize=11)
    return figure
