"""Plots of a hyperparameter search: scores by trial and by parameter, parameter importances."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmlab.figures.style import DPI, figure_text

_SCORE = "validation score"
_STOPPED = "stopped early (last score)"
#: Least number of ticks of a logarithmic axis.
_MIN_TICKS = 3
#: Ratio of the largest to the smallest value above which a logarithmic axis has a tick a decade.
_MANY_DECADES = 300


def search_history(trials: pd.DataFrame, baselines: Mapping[str, float]) -> Figure:
    """Draw the score of each trial in the order of the search, and the best score so far.

    Parameters
    ----------
    trials
        One row per trial in the order of the search, with the columns score and stopped (whether
        the trial was stopped early). Stopped trials do not count as best.
    baselines
        Score of each baseline, drawn as a horizontal line.
    """
    figure = Figure(figsize=(9, 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    number = np.arange(1, len(trials) + 1)
    _scatter(axes, number, trials, "C0")
    best = trials["score"].where(~trials["stopped"]).cummax().ffill()
    axes.step(number, best, where="post", color="C1", label="best complete trial so far")
    for index, (name, score) in enumerate(baselines.items()):
        label = f"baseline {figure_text(name)}"
        axes.axhline(score, color=f"C{index % 8 + 2}", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="trial", ylabel=_SCORE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def parameter_scores(trials: pd.DataFrame, log: Collection[str]) -> Figure:
    """Draw the score of each trial against each parameter, three parameters per row.

    Parameters
    ----------
    trials
        One row per trial, with the columns score, stopped and one column per parameter: numbers,
        or a pandas categorical of texts.
    log
        Parameters whose axis is logarithmic.
    """
    names = [str(name) for name in trials.columns if name not in ("score", "stopped")]
    n_columns = min(len(names), 3)
    n_rows = -(-len(names) // n_columns)
    figure = Figure(figsize=(3.2 * n_columns, 2.8 * n_rows + 0.4), dpi=DPI, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        values = trials[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            choices = [figure_text(text) for text in values.cat.categories]
            _scatter(axes, values.cat.codes, trials, "C0")
            axes.set_xticks(range(len(choices)), choices)
            axes.set_xlim(-0.5, len(choices) - 0.5)
        else:
            _scatter(axes, values, trials, "C0")
            if name in log:
                _use_log_scale(axes, values.min(), values.max())
        axes.tick_params(labelsize=8)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    for axes in grid[:, 0]:
        axes.set_ylabel(_SCORE)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=8)
    return figure


def parameter_importances(importances: Mapping[str, float]) -> Figure:
    """Draw the importance of each parameter as a bar, the most important first.

    ``importances`` sum to 1.
    """
    names = sorted(importances, key=lambda name: importances[name])
    figure = Figure(figsize=(9, 0.4 * len(names) + 1), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, [importances[name] for name in names], color="C0", height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
    axes.set_xlabel("importance for the validation score")
    axes.margins(x=0.1)
    axes.grid(axis="x", alpha=0.3)
    return figure


def _use_log_scale(axes: Axes, low: float, high: float) -> None:
    """Make the x-axis logarithmic, with few ticks in plain notation."""
    axes.set_xscale("log")
    left, right = low / 1.15, high * 1.15
    ticks = _log_ticks(left, right)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(left, right)


def _log_ticks(left: float, right: float) -> list[float]:
    """Return the ticks of a logarithmic axis: round numbers, at least three."""
    decades = range(math.floor(math.log10(left)), math.ceil(math.log10(right)) + 1)
    few = (1,) if right / left > _MANY_DECADES else (1, 2, 5)
    for steps in (few, range(1, 10)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        if len(seen := [tick for tick in ticks if left <= tick <= right]) >= _MIN_TICKS:
            return seen
    linear = MaxNLocator(4, min_n_ticks=_MIN_TICKS).tick_values(left, right)
    return [float(tick) for tick in linear if left <= tick <= right]


def _scatter(axes: Axes, x: Any, trials: pd.DataFrame, color: str) -> None:
    """Draw complete trials as filled points, and stopped trials as circles."""
    stopped = trials["stopped"].to_numpy(dtype=bool)
    x, score = np.asarray(x), trials["score"].to_numpy()
    axes.scatter(x[~stopped], score[~stopped], s=28, color=color, label="complete", zorder=3)
    if stopped.any():
        axes.scatter(
            x[stopped],
            score[stopped],
            s=28,
            facecolors="none",
            edgecolors=color,
            label=_STOPPED,
            zorder=3,
        )
