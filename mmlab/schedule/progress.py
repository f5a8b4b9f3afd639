"""Progress display of a running study: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from mmlab.schedule.metrics_file import MetricsFile
from mmlab.system.words import count
from mmlab.tracking import format_value
from mmlab.trial.outcome import ENDED, Outcome

#: Number of trials in the table of a search.
_N_BEST = 5


@dataclass
class TrialProgress:
    """Latest state of a trial.

    ``digest`` is its first eight characters. ``score`` is the validation score while the trial
    runs and in a search, the kNN accuracy of a complete trial of a comparison. ``seconds`` is the
    time that the trial has taken so far.
    """

    digest: str
    method: str
    outcome: Outcome
    epoch: int
    score: float
    params: dict[str, Any]
    seconds: float = 0.0


@dataclass
class Progress:
    """Progress of a study: a live table on a terminal, one line per ended trial elsewhere.

    ``total`` counts all trials of the study, ``ended`` those that have ended, ``ended_now`` those
    of them that ended since this process started; ``unsent()`` those that the store lacks.
    """

    console: Console
    title: str
    total: int
    ended: int = 0
    trials: dict[str, TrialProgress] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    ended_now: int = 0
    live: Live | None = None
    unsent: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self._metrics = MetricsFile.of_environment(self.title)

    def __enter__(self) -> Progress:
        self._write_metrics()
        if self.console.is_terminal:
            self.live = Live(self.render(), console=self.console, refresh_per_second=4)
            self.live.__enter__()
        else:
            self._print(
                f"{self.title}: {self.total - self.ended} of {count(self.total, 'trial')} to do"
            )
        return self

    def __exit__(self, *error: Any) -> None:
        self._write_metrics(running=False)
        if self.live is not None:
            self.live.update(self.render())
            self.live.__exit__(*error)

    def update(self, key: str, trial: TrialProgress) -> None:
        """Set the latest state of a trial."""
        self.trials[key] = trial
        self._write_metrics(now=False)
        if self.live is not None:
            self.live.update(self.render())

    def end(self, key: str, outcome: Outcome) -> None:
        """Count a trial as ended."""
        self.ended += 1
        self.ended_now += 1
        trial = self.trials.get(key)
        if trial is None:
            return
        trial.outcome = outcome
        self._write_metrics(now=False)
        if self.live is not None:
            self.live.update(self.render())
        else:
            self._print(f"[{self.ended}/{self.total}] {self.line(trial)}, {self.time_left()}")

    def _write_metrics(self, *, now: bool = True, running: bool = True) -> None:
        """Write the metrics, now or if it is time; unless ``running``, no trial runs any more."""
        if self._metrics is not None:
            trials = [t for t in self.trials.values() if running or t.outcome in ENDED]
            self._metrics.write(trials, self.total, self.ended_now, self.unsent, now=now)

    @abstractmethod
    def line(self, trial: TrialProgress) -> str:
        """Describe an ended trial in a few words."""

    @abstractmethod
    def table(self) -> Table:
        """Build the table of the trials so far."""

    def seconds_left(self) -> float | None:
        """Estimate the time left from the trials that ended since this process started.

        None before the first of them has ended.
        """
        if self.ended_now == 0:
            return None
        pace = (time.monotonic() - self.started) / self.ended_now
        return max(pace * (self.total - self.ended), 0.0)

    def time_left(self) -> str:
        """Return the time left in words."""
        seconds = self.seconds_left()
        return "time left unknown" if seconds is None else f"{format_duration(seconds)} left"

    def render(self) -> RenderableType:
        """Build the progress bar and the table."""
        running = sum(t.outcome == Outcome.RUNNING for t in self.trials.values())
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=self.total, completed=self.ended, width=40),
            f"{self.ended} of {count(self.total, 'trial')} done, {running} running, "
            f"{self.time_left()}",
        )
        return Group(self.title, bar, self.table())

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def format_duration(seconds: float) -> str:
    """Return a rounded duration, such as "about 12 min"."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


@dataclass
class SearchProgress(Progress):
    """Progress of a search: its best trials and their values of the searched parameters.

    ``method`` is the searched method, ``best`` the highest validation score of its complete trials,
    those of earlier processes included: None before the first. Baselines do not count.
    """

    method: str = ""
    searched: list[str] = field(default_factory=list)
    best: float | None = None

    def end(self, key: str, outcome: Outcome) -> None:
        """Count a trial as ended, and its score if it is a complete trial of the method."""
        trial = self.trials.get(key)
        if trial is not None and trial.method == self.method and outcome == Outcome.COMPLETE:
            self.best = trial.score if self.best is None else max(self.best, trial.score)
        super().end(key, outcome)

    def line(self, trial: TrialProgress) -> str:
        """Describe an ended trial: method, digest, outcome, epochs, its score and the best one.

        A method without epochs has epoch 0.
        """
        name = f"{trial.method} {trial.digest} {trial.outcome}"
        if trial.outcome == Outcome.FAILED:
            return name
        after = f" after {count(trial.epoch, 'epoch')}" if trial.epoch else ""
        text = f"{name}{after}: validation score {trial.score:.4f}"
        return text if self.best is None else f"{text}, best {self.best:.4f}"

    def table(self) -> Table:
        """Build the table of the best trials and their parameters."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("trial", "method", "validation score", "epoch", "status", *self.searched):
            numeric = column not in ("trial", "method", "status")
            table.add_column(column, justify="right" if numeric else "left")
        for trial in sorted(self.trials.values(), key=lambda t: -t.score)[:_N_BEST]:
            values = [format_value(trial.params.get(name, "")) for name in self.searched]
            table.add_row(
                trial.digest,
                trial.method,
                f"{trial.score:.4f}",
                str(trial.epoch),
                str(trial.outcome),
                *values,
            )
        return table


@dataclass
class ComparisonProgress(Progress):
    """Progress of a comparison per method: replicates done, mean kNN accuracy, mean time.

    ``n_missing`` is the number of replicates of each method that were missing at the start,
    ``slots`` the number of groups of trials that run at the same time.
    """

    n_missing: dict[str, int] = field(default_factory=dict)
    slots: int = 1

    def line(self, trial: TrialProgress) -> str:
        """Describe an ended replicate: method, digest, kNN accuracy and seconds, or its outcome."""
        name = f"{trial.method} {trial.digest}"
        if trial.outcome != Outcome.COMPLETE:
            return f"{name} {trial.outcome}"
        return f"{name}: kNN accuracy {trial.score:.4f} in {trial.seconds:.0f} s"

    def seconds_left(self) -> float | None:
        """Estimate the time left: the missing replicates times the mean seconds of their method.

        None while a method with missing replicates has none that is complete: methods differ by
        orders of magnitude.
        """
        seconds = 0.0
        for method, n in self.n_missing.items():
            ended = [t for t in self.trials.values() if t.method == method and t.outcome in ENDED]
            complete = [t.seconds for t in ended if t.outcome == Outcome.COMPLETE]
            missing = n - len(ended)
            if missing > 0 and not complete:
                return None
            if missing > 0:
                seconds += missing * float(np.mean(complete))
        return seconds / self.slots

    def table(self) -> Table:
        """Build the table with one row per method."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("method", "replicates", "kNN accuracy", "s per replicate"):
            table.add_column(column, justify="left" if column == "method" else "right")
        done = self._done()
        for method, n in self.n_missing.items():
            trials = done.get(method, [])
            score = f"{np.mean([t.score for t in trials]):.4f}" if trials else ""
            seconds = f"{np.mean([t.seconds for t in trials]):.0f}" if trials else ""
            table.add_row(method, f"{len(trials)} of {n}", score, seconds)
        return table

    def _done(self) -> dict[str, list[TrialProgress]]:
        """Complete trials by method."""
        done = defaultdict(list)
        for trial in self.trials.values():
            if trial.outcome == Outcome.COMPLETE:
                done[trial.method].append(trial)
        return done
