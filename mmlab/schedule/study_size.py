"""Size of a comparison before it starts: number of trials, time, disk space."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmlab.comparison.result_table import ResultRow
from mmlab.constraints.measure import needs_labels
from mmlab.errors import UserError
from mmlab.schedule.progress import format_duration
from mmlab.selectors import get_selector
from mmlab.system.files import existing_folder
from mmlab.system.words import count
from mmlab.tracking import TrackingStore

if TYPE_CHECKING:
    from mmlab.schedule.comparison_plan import PlannedTrial

#: Maximum number of trials of a study; with more, the MLflow UI and the driver become too slow.
MAX_TRIALS = 20_000
#: Upper bound of the disk space of a trial in MB: database, artifacts, and a copy in the outbox.
_MB_PER_TRIAL = 0.2


def check_size(n_trials: int, store: TrackingStore) -> None:
    """Check that a study is not too large, before anything is written.

    Raises
    ------
    UserError
        There are more than :data:`MAX_TRIALS` trials, or too little free disk space for them.
    """
    if n_trials > MAX_TRIALS:
        raise UserError(
            f"the study has {n_trials} trials, but mmlab runs at most {MAX_TRIALS} in one study. "
            "Reduce the methods, settings or replicates, or split it into several studies."
        )
    needed = n_trials * _MB_PER_TRIAL
    for folder in {store.folder, store.state_folder}:
        free = free_mb(folder)
        if free < needed:
            raise UserError(
                f"the {n_trials} trials of the study need about {needed:.0f} MB in {folder}, but "
                f"only {free:.0f} MB are free. Free some space, or use another folder: "
                "--tracking-uri sets that of the results, XDG_STATE_HOME that of unsent results."
            )


def free_mb(folder: Path) -> float:
    """Return the free disk space in MB at a folder, which need not exist yet."""
    return shutil.disk_usage(existing_folder(folder)).free / 1e6


def describe_size(
    groups: Sequence[Sequence[PlannedTrial]], finished: Sequence[tuple[str, ResultRow]], slots: int
) -> str:
    """Describe the trials to compute, their disk space and, if possible, their time.

    The time is estimated from the finished replicates of the same method: the same selector with
    other parameters, such as those of a quick training, is another method.

    Parameters
    ----------
    groups
        Groups of trials; the trials of a group are fitted once, or trained as one batch.
    finished
        Title of the method and row of each finished replicate.
    slots
        Number of groups that run at the same time.
    """
    n_trials = sum(map(len, groups))
    text = f"{count(n_trials, 'trial')} to compute, {slots} at a time"
    if finished:
        text += f" ({len(finished)} already finished)"
    text += f", about {n_trials * _MB_PER_TRIAL:.0f} MB of disk space"
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for title, row in finished:
        spent[title].append((row["fit_seconds"], row["seconds"] - row["fit_seconds"]))
    seconds, unknown = 0.0, dict[str, None]()
    for group in groups:
        title = group[0].method.title
        if title not in spent:
            unknown.setdefault(title)
            continue
        fit, rest = np.mean(spent[title], axis=0)
        seconds += float(fit) * _n_fits(group) + float(rest) * len(group)
    if seconds:
        text += f"; estimated time {format_duration(seconds / slots)}"
        text += f", not counting {', '.join(unknown)}" if unknown else ""
    elif unknown:
        text += "; the time is estimated once trials have finished"
    return text + "."


def _n_fits(group: Sequence[PlannedTrial]) -> int:
    """Return how often the method is fitted for a group; noise levels it ignores share a fit."""
    first = group[0].spec
    if get_selector(first.selector).supervised or needs_labels(first.constraints):
        return len(group)
    return len({trial.spec.first_replicate for trial in group})
