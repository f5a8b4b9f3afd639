"""What the driver does as results come in: close runs, and tell the user."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ray.tune import Callback
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mmlab.datasets.base import Cells
from mmlab.pipeline import resolve
from mmlab.schedule.actor import SCORE, open_trial
from mmlab.tracking import Outcome, StudyRun, close_trial, short

_BEST_SHOWN = 5


@dataclass
class Row:
    """A trial as the table shows it."""

    digest: str
    selector: str
    outcome: Outcome
    epoch: int
    score: float
    params: dict[str, Any]


@dataclass
class Progress:
    """Trials so far; a live table on a terminal, a line for each ended trial elsewhere."""

    console: Console
    title: str
    searched: list[str]
    total: int
    ended: int = 0
    rows: dict[str, Row] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    ended_here: int = 0
    live: Live | None = None

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.live = Live(self.render(), console=self.console, refresh_per_second=4)
            self.live.__enter__()
        else:
            self.console.print(
                f"{self.title}: {self.ended} of {self.total} trials are done",
                highlight=False,
                soft_wrap=True,
            )
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live is not None:
            self.live.update(self.render())
            self.live.__exit__(*error)

    def update(self, key: str, row: Row) -> None:
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
            self.console.print(
                f"[{self.ended}/{self.total}] {row.selector} {row.digest} {outcome} after "
                f"{row.epoch} epochs: score {row.score:.4f}, best {self.best:.4f}, "
                f"{self.time_left()}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    @property
    def best(self) -> float:
        """Highest score of a trial that ran to its end, else of any."""
        complete = [r.score for r in self.rows.values() if r.outcome == Outcome.COMPLETE]
        return max(complete or [r.score for r in self.rows.values()], default=float("nan"))

    def time_left(self) -> str:
        """Rough time left, from the trials that ended in this session."""
        if self.ended_here == 0:
            return "time left unknown"
        pace = (time.monotonic() - self.started) / self.ended_here
        seconds = max(pace * (self.total - self.ended), 0.0)
        return (
            "about " + (f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min") + " left"
        )

    def render(self) -> RenderableType:
        """Progress bar, and the best trials with their parameters."""
        best = sorted(self.rows.values(), key=lambda r: -r.score)[:_BEST_SHOWN]
        running = sum(r.outcome == Outcome.RUNNING for r in self.rows.values())
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=self.total, completed=self.ended, width=40),
            f"{self.ended} of {self.total} trials, {running} running, {self.time_left()}",
        )
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("trial", "method", "score", "epoch", "state", *self.searched):
            numeric = column not in ("trial", "method", "state")
            table.add_column(column, justify="right" if numeric else "left")
        for row in best:
            values = [short(row.params.get(name, "")) for name in self.searched]
            score = f"{row.score:.4f}"
            table.add_row(
                row.digest, row.selector, score, str(row.epoch), str(row.outcome), *values
            )
        return Group(Text(self.title), bar, table)


class Recorder(Callback):
    """Tune's view of the trials, passed on to the tracking store and to the user.

    The final status of a run is set here and nowhere else while the study runs.
    """

    def __init__(self, study: StudyRun, cells: Cells, progress: Progress) -> None:
        self.study = study
        self.cells = cells
        self.progress = progress

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to disk, and mmlab never reads them back."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        """Show the latest epoch."""
        if result["repeated"]:
            return
        self.progress.update(
            trial.trial_id,
            Row(
                digest=result["digest"][:8],
                selector=trial.config["selector"],
                outcome=Outcome(result["outcome"]),
                epoch=result["epoch"],
                score=result[SCORE],
                params=trial.config["params"],
            ),
        )

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the run: complete, failed, or stopped because others were ahead."""
        result = trial.last_result
        if result.get("repeated") or "run_id" not in result:
            return
        outcome, reason = Outcome(result["outcome"]), result["reason"]
        if outcome == Outcome.RUNNING:
            outcome = Outcome.STOPPED
            reason = (
                f"Stopped after epoch {result['epoch']} with validation score "
                f"{result[SCORE]:.4f}: other trials were ahead at that point."
            )
        close_trial(self.study.store, result["run_id"], outcome, reason)
        self.progress.end(trial.trial_id, outcome)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Close the run of a trial that failed for good, with the error."""
        config = trial.config
        spec = resolve(self.study.spec.trial(config["selector"], config["params"]), self.cells)
        digest = spec.digest(self.cells.fingerprint)
        # The trial may have failed before it had a run: then it gets one, to be seen at all.
        run = open_trial(self.study, spec, digest, self.cells)
        reason = str(trial.get_error() or "the worker process died")
        close_trial(self.study.store, run.run_id, Outcome.FAILED, reason)
        self.progress.end(trial.trial_id, Outcome.FAILED)
