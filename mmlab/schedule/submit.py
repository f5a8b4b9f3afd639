"""Submission of trials to Ray, for a comparison or on their own without a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from mmlab.datasets.cells import Cells
from mmlab.schedule.actor import ComparisonActor
from mmlab.schedule.cluster import cluster
from mmlab.schedule.comparison_recorder import ComparisonRecorder, OnEnd
from mmlab.schedule.progress import ComparisonProgress, Progress
from mmlab.schedule.ray_cluster import RayCluster
from mmlab.schedule.ray_tune_run import TuneRun
from mmlab.schedule.shared_cells import share_cells
from mmlab.spec.resources import Resources
from mmlab.spec.trial import TrialSpec
from mmlab.system.interruption import interruptible
from mmlab.tracking import EndedTrial


def submit_trials(
    name: str,
    groups: list[dict[str, Any]],
    cells: Cells,
    progress: Progress,
    on_end: OnEnd,
    cluster: RayCluster,
) -> None:
    """Run groups of trials on Ray, and return when all have ended.

    Parameters
    ----------
    name
        Name of the study.
    groups
        See :class:`mmlab.schedule.actor.ComparisonActor`.
    on_end
        Called with each ended trial.
    """
    recorder = ComparisonRecorder(progress, on_end, cells.fingerprint)
    shared = {"cells": share_cells(cells, cluster.resources.address)}
    tune_run = TuneRun(name, ComparisonActor, shared, recorder, cluster)
    tune_run.run_each("group", groups)


def compute_trials(
    name: str,
    trials: Sequence[tuple[str, TrialSpec]],
    cells: Cells,
    resources: Resources,
    console: Console,
) -> dict[str, EndedTrial]:
    """Compute trials one by one, without logging them to the tracking store.

    Parameters
    ----------
    name
        Heading of the progress display.
    trials
        Pairs of a method's title and the specification of the trial.

    Returns
    -------
    The ended trials, complete or failed, by digest.
    """
    ended: dict[str, EndedTrial] = {}
    groups = [
        {"trials": [spec.model_dump(mode="json")], "method": title, "parent": ""}
        for title, spec in trials
    ]
    n_missing = dict(Counter(title for title, _ in trials))

    def record(trial: EndedTrial) -> None:
        ended[trial.digest] = trial

    with interruptible() as interruption, cluster(resources, interruption, console) as ray_cluster:
        progress = ComparisonProgress(
            console, name, len(trials), n_missing=n_missing, slots=ray_cluster.slots
        )
        with progress:
            submit_trials(name, groups, cells, progress, record, ray_cluster)
    return ended
