"""How much a comparison is, before it starts: trials, time, disk."""

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
from mmlab.tracking import TrackingStore

if TYPE_CHECKING:
    from mmlab.schedule.comparison_plan import PlannedTrial

#: More than this MLflow's pages, and the driver, do not bear in one study.
MOST_TRIALS = 20_000
#: MB that a trial takes, at most: in the database, as files, and once more on its way there.
_MB_A_TRIAL = 0.2


def check_size(n_trials: int, store: TrackingStore) -> None:
    """Refuse a study that cannot be run, before anything is written.

    Raises
    ------
    UserError
        More than :data:`MOST_TRIALS` trials, or less free disk than they need.
    """
    if n_trials > MOST_TRIALS:
        raise UserError(
            f"this study would have {n_trials} trials, more than the {MOST_TRIALS} that mmlab "
            "runs as one: give fewer methods, settings or replicates, or make it several studies."
        )
    needed = n_trials * _MB_A_TRIAL
    for folder in {store.folder, store.state_folder}:
        free = free_mb(folder)
        if free < needed:
            raise UserError(
                f"this study needs about {needed:.0f} MB in {folder} for {n_trials} trials, but "
                f"{free:.0f} MB are free there: free some, or keep it elsewhere."
            )


def free_mb(folder: Path) -> float:
    """Free MB where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e6


def describe_size(
    parts: Sequence[Sequence[PlannedTrial]], known: Sequence[ResultRow], slots: int
) -> str:
    """What is to be done, in a sentence; the time as far as finished replicates tell it.

    Parameters
    ----------
    parts
        What is computed at a time; a part is fitted once, or as one.
    known
        Finished replicates.
    slots
        Parts at a time.
    """
    n_trials = sum(map(len, parts))
    text = f"{n_trials} trials to compute, {slots} at a time"
    if known:
        text += f" ({len(known)} are finished already)"
    text += f", about {n_trials * _MB_A_TRIAL:.0f} MB of disk"
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in known:
        spent[row["selector"]].append((row["fit_seconds"], row["seconds"] - row["fit_seconds"]))
    seconds, unknown = 0.0, dict[str, None]()
    for part in parts:
        selector = part[0].spec.selector
        if selector not in spent:
            unknown.setdefault(selector)
            continue
        fit, rest = np.mean(spent[selector], axis=0)
        seconds += float(fit) * _n_fits(part) + float(rest) * len(part)
    if seconds:
        text += f"; {format_duration(seconds / slots)}"
        text += f" without {', '.join(unknown)}" if unknown else ""
    elif unknown:
        text += "; how long it takes is said once each method has finished a trial"
    return text + "."


def _n_fits(part: Sequence[PlannedTrial]) -> int:
    """How often a method is fitted for a part: levels of noise that it ignores share a fit."""
    first = part[0].spec
    if get_selector(first.selector).supervised or needs_labels(first.constraints):
        return len(part)
    return len({trial.spec.first_replicate for trial in part})
