"""One trial from data to result: prepare, split, mislabel, select, evaluate; R times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mmlab.constraints.measure import (
    PanelConstraints,
    consensus_constraints,
    measure_constraints,
    needs_labels,
)
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.selectors import get_selector
from mmlab.spec.trial import LabelNoise, TrialSpec
from mmlab.system.memory import PeakMemory
from mmlab.system.threads import limit_threads
from mmlab.trial.batched import Fit, run_fits
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.replicate import PreparedReplicate
from mmlab.trial.result import (
    DecodedCells,
    Replicate,
    TrialResult,
    consensus_panel,
    panel_table,
    replicate_row,
    summarise,
)

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch

#: What a search maximises: the score of the hard panel on the validation cells.
OBJECTIVE = "validation/score"


def final_objective(selector: str) -> str:
    """The metric that :data:`OBJECTIVE` equals at the end of a search trial."""
    supervised = get_selector(selector).supervised
    return "validation/knn/accuracy" if supervised else "validation/linear/explained_variance"


class Trial:
    """A trial under way: its replicates run side by side, one epoch at a time."""

    def __init__(self, spec: TrialSpec, cells: Cells) -> None:
        self.spec = resolve_spec(spec, cells)
        self.cells = cells
        self.digest = self.spec.digest(cells.fingerprint)
        self.history: list[dict[str, float]] = []
        self.panel_constraints: dict[int, PanelConstraints] = {}
        self._finished: list[Replicate] = []
        self._started = time.perf_counter()
        self._memory = PeakMemory()

    def epochs(self) -> Iterator[dict[str, float]]:
        """Run the trial; each item is an epoch's metrics, means over the replicates.

        The keys are those of ``TrialResult.history``. A replicate that has stopped early
        counts with its last values.
        """
        for (epoch,) in run_trials([self]):
            assert epoch is not None
            yield epoch

    def check_constraints(self) -> None:
        """Find what the panel of each replicate has to hold, before any is trained.

        Raises
        ------
        UserError
            The training cells of a replicate do not allow it.
        """
        problems: dict[str, list[int]] = {}
        for index in self._indices():
            try:
                self.panel_constraints[index] = measure_constraints(self.spec, self.cells, index)
            except UserError as error:
                problems.setdefault(str(error).rstrip("."), []).append(index)
        if problems:
            several = len(self._indices()) > 1
            listed = [
                text + (f" (replicate {', '.join(map(str, those))})" if several else "")
                for text, those in problems.items()
            ]
            name = f"{self.spec.selector} on {self.cells.name}"
            raise UserError(f"{name}: {'; '.join(listed)}.")

    def _indices(self) -> list[int]:
        first = self.spec.first_replicate
        return list(range(first, first + self.spec.replicates))

    def _record_epoch(self, number: int, fits: list[Fit]) -> dict[str, float] | None:
        """Metrics of an epoch of the replicates; None once all of them have ended."""
        if number > max(len(fit.epochs) for fit in fits):
            return None
        epochs = [epoch for fit in fits if (epoch := fit.at(number)) is not None]
        self.history.append(_mean_epoch(epochs))
        return self.history[-1]

    def result(self) -> TrialResult:
        """Result, once :meth:`epochs` is exhausted."""
        done = sorted(self._finished, key=lambda replicate: replicate.index)
        panels, marked = [r.panel for r in done], [r.marked for r in done]
        panel_constraints = consensus_constraints(self.spec, self.cells, panels, marked)
        panel, scores = consensus_panel(
            done, len(self.cells.genes), self.spec.n_markers, panel_constraints
        )
        rows = [replicate_row(r) for r in done]
        shown = done[0].decoded or DecodedCells(pd.DataFrame(), pd.DataFrame())
        return TrialResult(
            spec=self.spec,
            digest=self.digest,
            fingerprint=self.cells.fingerprint,
            panel=panel_table(panel, scores, self.cells.genes),
            replicates=pd.DataFrame(rows),
            metrics=summarise(done),
            classes=self.cells.classes,
            history=pd.DataFrame(self.history),
            seconds=time.perf_counter() - self._started,
            peak_memory=self._memory.read(),
            variances=shown.variances,
            components=shown.components,
        )

    def _fit_identity(self, index: int) -> str:
        """Equal for replicates whose methods see and do the same."""
        spec = self.spec.model_copy(update={"first_replicate": index, "replicates": 1})
        if not get_selector(spec.selector).supervised and not needs_labels(spec.constraints):
            spec = spec.model_copy(update={"noise": LabelNoise()})
        return spec.digest(self.cells.fingerprint)


def run_trials(trials: Sequence[Trial]) -> Iterator[list[dict[str, float] | None]]:
    """Run trials side by side; an item is an epoch of each, None for one that had ended.

    What can be trained as one is, across the trials (:func:`mmlab.trial.batched.run_fits`); what differs
    in wrong labels that a method ignores is fitted once. Constraints that the training cells do not
    allow are a ``UserError``, before anything is trained.
    """
    for trial in trials:
        trial.check_constraints()
    members = [(trial, index) for trial in trials for index in trial._indices()]
    # Replicates without epochs need not be in memory at the same time.
    together = all(get_selector(trial.spec.selector).trains_in_epochs for trial in trials)
    groups: dict[str, list[tuple[Trial, int]]] = {}
    for trial, index in members:
        groups.setdefault("" if together else trial._fit_identity(index), []).append((trial, index))
    for group in groups.values():
        fitted: dict[str, PreparedReplicate] = {}
        prepared = []
        for trial, index in group:
            identity = trial._fit_identity(index)
            if identity in fitted:
                prepared.append((trial, fitted[identity].like(trial.spec)))
            else:
                panel_constraints = trial.panel_constraints[index]
                fitted[identity] = PreparedReplicate.of(
                    trial.spec, trial.cells, panel_constraints, index
                )
                prepared.append((trial, fitted[identity]))
        for number in run_fits([replicate.fit for replicate in fitted.values()]):
            yield [
                trial._record_epoch(number, [own.fit for whose, own in prepared if whose is trial])
                for trial in trials
            ]
        for trial, replicate in prepared:
            trial._finished.append(replicate.finished())


def run_trial(
    spec: TrialSpec,
    cells: Cells | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    threads: int = 1,
) -> TrialResult:
    """Run a trial to its end: the same specification gives the same result, wherever.

    Parameters
    ----------
    spec
        What to run; defaults are filled in.
    cells
        The data that ``spec.data`` names, if they are loaded already.
    on_epoch
        Called with the metrics of every epoch.
    threads
        CPU threads; results are equal to the last bit only for an equal number.

    Raises
    ------
    UserError
        Anything in ``spec`` that cannot be run, before any work is done.
    """
    trial = Trial(spec, load_cells(spec.data) if cells is None else cells)
    with limit_threads(threads):
        for epoch in trial.epochs():
            if on_epoch is not None:
                on_epoch(epoch)
        return trial.result()


def _mean_epoch(epochs: list[Epoch]) -> dict[str, float]:
    def mean(values: list[float | None]) -> float:
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known else math.nan

    return {
        "epoch": max(e.epoch for e in epochs),
        "temperature": max(epochs, key=lambda e: e.epoch).temperature,
        "train/loss": mean([e.train_loss for e in epochs]),
        "validation/loss": mean([e.validation_loss for e in epochs]),
        OBJECTIVE: mean([e.validation_score for e in epochs]),
    }
