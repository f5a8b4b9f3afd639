"""What the user sees of a study while it runs."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mmlab.tracking import Outcome, format_value

_BEST_SHOWN = 5


@dataclass
class TrialProgress:
    """A trial as the tables show it."""

    digest: str
    method: str
    outcome: Outcome
    epoch: int
    score: float
    params: dict[str, Any]
    seconds: float = 0.0


@dataclass
class Progress:
    """Trials so far; a live table on a terminal, a line for each ended trial elsewhere."""

    console: Console
    title: str
    total: int
    ended: int = 0
    rows: dict[str, TrialProgress] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    ended_here: int = 0
    live: Live | None = None

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live = Live(self.render(), console=self.console, refresh_per_second=4)
            self.live.__enter__()
        else:
            self._say(f"{self.title}: {self.total - self.ended} of {self.total} trials to do")
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self.live.update(self.render())
            self.live.__exit__(*error)

    def update(self, key: str, row: TrialProgress) -> None:
        """Take up a trial's latest result."""
        self.rows[key] = row
        if self.live is not None:
            self.live.update(self.render())

    def end(self, key: str, outcome: Outcome) -> None:
        """Count a trial as ended."""
        self.ended += 1
        self.ended_here += 1
        row = self.rows.get(key)
        if row is None:
            return
        row.outcome = outcome
        if self.live is not None:
            self.live.update(self.render())
        else:
            self._say(f"[{self.ended}/{self.total}] {self.line(row)}, {self.time_left()}")

    @abstractmethod
    def line(self, row: TrialProgress) -> str:
        """An ended trial in a few words."""

    @abstractmethod
    def table(self) -> Table:
        """What is known so far."""

    def seconds_left(self) -> float | None:
        """Rough time left, from the trials that this process has ended; None before the first."""
        if self.ended_here == 0:
            return None
        pace = (time.monotonic() - self.started) / self.ended_here
        return max(pace * (self.total - self.ended), 0.0)

    def time_left(self) -> str:
        """The time left in words."""
        seconds = self.seconds_left()
        return "time left unknown" if seconds is None else f"{format_duration(seconds)} left"

    def render(self) -> RenderableType:
        """Progress bar and table."""
        running = sum(r.outcome == Outcome.RUNNING for r in self.rows.values())
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=self.total, completed=self.ended, width=40),
            f"{self.ended} of {self.total} trials, {running} running, {self.time_left()}",
        )
        return Group(Text(self.title), bar, self.table())

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def format_duration(seconds: float) -> str:
    """A rough time."""
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"


@dataclass
class SearchProgress(Progress):
    """The best trials of a search, with the parameters that are searched."""

    searched: list[str] = field(default_factory=list)

    @property
    def best(self) -> float | None:
        """Highest score of a trial that ran to its end; None before the first."""
        complete = [r.score for r in self.rows.values() if r.outcome == Outcome.COMPLETE]
        return max(complete, default=None)

    def line(self, row: TrialProgress) -> str:
        """Score of an ended trial, and the best one."""
        best = self.best
        return (
            f"{row.method} {row.digest} {row.outcome} after {row.epoch} epochs: "
            f"score {row.score:.4f}" + ("" if best is None else f", best {best:.4f}")
        )

    def table(self) -> Table:
        """The best trials with their parameters."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("trial", "method", "score", "epoch", "state", *self.searched):
            numeric = column not in ("trial", "method", "state")
            table.add_column(column, justify="right" if numeric else "left")
        for row in sorted(self.rows.values(), key=lambda r: -r.score)[:_BEST_SHOWN]:
            values = [format_value(row.params.get(name, "")) for name in self.searched]
            table.add_row(
                row.digest,
                row.method,
                f"{row.score:.4f}",
                str(row.epoch),
                str(row.outcome),
                *values,
            )
        return table


@dataclass
class ComparisonProgress(Progress):
    """The methods of a comparison: replicates done, score so far, seconds a replicate.

    ``waiting`` counts the replicates of each method that were missing at the start, ``slots``
    the trials at a time.
    """

    waiting: dict[str, int] = field(default_factory=dict)
    slots: int = 1

    def line(self, row: TrialProgress) -> str:
        """Score of an ended replicate."""
        if row.outcome != Outcome.COMPLETE:
            return f"{row.method} {row.digest} {row.outcome}"
        return f"{row.method} {row.digest}: kNN accuracy {row.score:.4f} in {row.seconds:.0f} s"

    def seconds_left(self) -> float | None:
        """Missing replicates, each with the mean seconds of its method so far."""
        done = self._done()
        if not done:
            return None
        pace = {method: float(np.mean([r.seconds for r in rows])) for method, rows in done.items()}
        typical = float(np.mean(list(pace.values())))
        missing = {m: n - len(done.get(m, [])) for m, n in self.waiting.items()}
        return sum(n * pace.get(m, typical) for m, n in missing.items() if n > 0) / self.slots

    def table(self) -> Table:
        """A line a method."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("method", "replicates", "kNN accuracy", "seconds"):
            table.add_column(column, justify="left" if column == "method" else "right")
        done = self._done()
        for method, n in self.waiting.items():
            rows = done.get(method, [])
            score = f"{np.mean([r.score for r in rows]):.4f}" if rows else ""
            seconds = f"{np.mean([r.seconds for r in rows]):.0f}" if rows else ""
            table.add_row(method, f"{len(rows)} of {n}", score, seconds)
        return table

    def _done(self) -> dict[str, list[TrialProgress]]:
        done = defaultdict(list)
        for row in self.rows.values():
            if row.outcome == Outcome.COMPLETE:
                done[row.method].append(row)
        return done
