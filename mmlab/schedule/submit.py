"""Trials handed to Ray without a study: each is computed, and its result given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ray import tune
from rich.console import Console

from mmlab.datasets.cells import Cells
from mmlab.schedule.cluster import cluster
from mmlab.schedule.comparison_actor import ComparisonActor, ComparisonRecorder, OnEnd
from mmlab.schedule.progress import ComparisonProgress, Progress
from mmlab.schedule.tune_run import TuneRun, sigterm_as_interrupt
from mmlab.spec.resources import Resources
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import EndedTrial


def submit_trials(
    name: str,
    parts: list[dict[str, Any]],
    cells: Cells,
    progress: Progress,
    on_end: OnEnd,
    resources: Resources,
    slots: int,
) -> None:
    """Have actors work on ``parts``, see :class:`mmlab.schedule.comparison_actor.ComparisonActor`."""
    recorder = ComparisonRecorder(cells, progress, on_end)
    out = TuneRun(name, ComparisonActor, {"cells": cells}, recorder, resources, slots)
    out.fit({"part": tune.grid_search(parts)})


def compute_trials(
    name: str,
    trials: Sequence[tuple[str, TrialSpec]],
    cells: Cells,
    resources: Resources,
    console: Console,
) -> dict[str, EndedTrial]:
    """Compute trials, each alone, and keep nothing; how they ended, by digest.

    Parameters
    ----------
    name
        What the progress is headed with.
    trials
        Title of the method, and the specification.
    """
    ended: dict[str, EndedTrial] = {}
    parts = [
        {"trials": [spec.model_dump(mode="json")], "method": title, "parent": ""}
        for title, spec in trials
    ]
    with cluster(resources) as slots, sigterm_as_interrupt():
        waiting = dict(Counter(title for title, _ in trials))
        progress = ComparisonProgress(console, name, len(trials), waiting=waiting, slots=slots)
        with progress:

            def keep(trial: EndedTrial) -> None:
                ended[trial.digest] = trial

            submit_trials(name, parts, cells, progress, keep, resources, slots)
    return ended
