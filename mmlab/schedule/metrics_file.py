"""Metrics of a running study as a text file of Prometheus, for its node_exporter.

The format is Prometheus' text format 0.0.4; the file belongs in the folder of node_exporter's
textfile collector, which reads all files named ``*.prom`` there.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mmlab.system.files import atomic_write
from mmlab.trial.outcome import ENDED, Outcome

if TYPE_CHECKING:
    from mmlab.schedule.progress import TrialProgress

#: Environment variable with the path of the file; without it, no file is written.
METRICS_VARIABLE = "MMLAB_METRICS"

#: Type and description of each metric.
METRICS = {
    "mmlab_trials_planned": ("gauge", "Trials of the study."),
    "mmlab_trials_running": ("gauge", "Trials that are running."),
    "mmlab_trials_finished_total": ("counter", "Trials that ended since the driver started."),
    "mmlab_trials_failed_total": ("counter", "Trials that failed since the driver started."),
    "mmlab_trial_seconds_total": ("counter", "Seconds that the ended trials took."),
    "mmlab_unsent_trials": ("gauge", "Ended trials that the tracking store does not have yet."),
}

#: Shortest pause in seconds between writes that are not forced.
_INTERVAL = 5.0

_log = logging.getLogger(__name__)


class MetricsFile:
    """The metrics file of this process; it is replaced as a whole at every write."""

    def __init__(self, path: Path, study: str) -> None:
        self._path = path
        self._study = study.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        self._failed = False
        self._written_at = -math.inf

    @classmethod
    def of_environment(cls, study: str) -> MetricsFile | None:
        """Return the file that ``MMLAB_METRICS`` names; None if it is not set."""
        path = os.environ.get(METRICS_VARIABLE)
        return cls(Path(path), study) if path else None

    def write(
        self,
        trials: Collection[TrialProgress],
        planned: int,
        finished: int,
        unsent: Callable[[], int],
        *,
        now: bool,
    ) -> None:
        """Write the metrics; unless ``now``, only if the file is some seconds old.

        Parameters
        ----------
        trials
            Those that this process has seen.
        planned, finished
            Trials of the study, and those that ended since this process started.
        unsent
            Returns the number of ended trials that the tracking store does not have yet.
        """
        if not now and time.monotonic() - self._written_at < _INTERVAL:
            return
        self._written_at = time.monotonic()
        values = {
            "mmlab_trials_planned": planned,
            "mmlab_trials_running": sum(t.outcome == Outcome.RUNNING for t in trials),
            "mmlab_trials_finished_total": finished,
            "mmlab_trials_failed_total": sum(t.outcome == Outcome.FAILED for t in trials),
            "mmlab_trial_seconds_total": sum(t.seconds for t in trials if t.outcome in ENDED),
            "mmlab_unsent_trials": unsent(),
        }
        self._write(values)

    def _write(self, values: dict[str, float]) -> None:
        lines = [
            f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
            f'{name}{{study="{self._study}"}} {float(values[name])}\n'
            for name, (kind, text) in METRICS.items()
        ]
        try:
            with atomic_write(self._path) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
                # node_exporter is another user.
                temporary.chmod(0o644)
        except OSError as error:
            if not self._failed:
                _log.warning("metrics cannot be written to %s: %s", self._path, error.strerror)
            self._failed = True
