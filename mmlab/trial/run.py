"""Run a trial, from its specification to its result.

The steps, in the order of the code below:

1. Resolve the specification (:func:`run_trial`) and the panel constraints of every replicate
   (:func:`run_trials`).
2. Prepare each replicate (:func:`prepare_replicate`): split the cells, compute the layers, draw
   label noise, build the selector and its training data.
3. Fit the selectors, all replicates side by side, one epoch at a time.
4. Evaluate the panel of each replicate.
5. Summarise the replicates: mean metrics and one consensus panel (:meth:`Trial.result`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from mmlab.constraints.measure import PanelConstraints, consensus_constraints, needs_labels
from mmlab.datasets import load_cells
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.label_noise import replicate_labels
from mmlab.preprocessing.recipes import replicate_layers
from mmlab.preprocessing.splits import replicate_split
from mmlab.selectors import get_selector
from mmlab.selectors.controls import ShuffledLabels
from mmlab.spec.trial import LabelNoise, TrialSpec
from mmlab.system.memory import PeakMemory
from mmlab.system.threads import limit_threads
from mmlab.trial.batched_fit import Fit, run_fits
from mmlab.trial.decoded_cells import DecodedCells
from mmlab.trial.defaults import resolve_spec
from mmlab.trial.fit_inputs import make_selector, training_data
from mmlab.trial.objective import OBJECTIVE, final_objective, mean_epoch
from mmlab.trial.replicate import PreparedReplicate, replicate_constraints
from mmlab.trial.result import (
    ReplicateResult,
    TrialResult,
    consensus_panel,
    panel_table,
    replicate_row,
    summarise_metrics,
)

__all__ = ["OBJECTIVE", "Trial", "final_objective", "prepare_replicate", "run_trial", "run_trials"]


def run_trial(
    spec: TrialSpec,
    cells: Cells | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    threads: int = 1,
) -> TrialResult:
    """Run a trial and return its result; the same specification gives the same result.

    Parameters
    ----------
    spec
        The trial; defaults are filled in.
    cells
        The data that ``spec.data`` names, if they are loaded already.
    on_epoch
        Called with the metrics of every epoch.
    threads
        CPU threads. Results are bitwise equal only for the same number of threads.

    Raises
    ------
    UserError
        The trial cannot run; raised before any training.
    """
    trial = Trial(spec, load_cells(spec.data) if cells is None else cells)
    with limit_threads(threads):
        for epoch in trial.epochs():
            if on_epoch is not None:
                on_epoch(epoch)
        return trial.result()


def run_trials(trials: Sequence[Trial]) -> Iterator[list[dict[str, float] | None]]:
    """Run trials side by side; yield the metrics of each epoch, one item per trial.

    The item of a trial that has ended is None. Selectors are trained as one batch across trials
    where possible (:func:`mmlab.trial.batched_fit.run_fits`). Replicates that differ only in label
    noise that their method ignores share one fit.

    Raises
    ------
    UserError
        The training cells of a replicate do not allow the panel constraints; raised before any
        training.
    """
    for trial in trials:
        trial.check_constraints()
    for group in _group_replicates(trials):
        yield from _run_group(trials, group)


def _run_group(
    trials: Sequence[Trial], group: list[tuple[Trial, int]]
) -> Iterator[list[dict[str, float] | None]]:
    """Prepare, fit and evaluate a group of replicates, each given by its trial and its index."""
    replicates = _prepare_group(group)
    fits = {id(replicate.fit): replicate.fit for _, replicate in replicates}
    for number in run_fits(list(fits.values())):
        yield [
            trial._record_epoch(number, [r.fit for owner, r in replicates if owner is trial])
            for trial in trials
        ]
    for trial, replicate in replicates:
        trial._finished.append(replicate.evaluate())


def prepare_replicate(
    spec: TrialSpec, cells: Cells, constraints: PanelConstraints, index: int
) -> PreparedReplicate:
    """Prepare replicate ``index`` of a resolved trial: split, layers, label noise, selector."""
    started = time.perf_counter()
    split = replicate_split(spec, cells, index)
    layers = replicate_layers(spec, cells, split)
    zscore = layers["zscore"]
    labels = replicate_labels(spec, cells, split, zscore, index)
    selector = make_selector(spec, cells, index)
    if isinstance(selector, ShuffledLabels):
        labels = selector.shuffle(labels, split.train_validation)
    in_search = spec.protocol == "search"
    data = training_data(selector, layers, labels, split, constraints, in_search=in_search)
    fit, seconds = Fit(selector, data), time.perf_counter() - started
    return PreparedReplicate(spec, cells, constraints, index, split, zscore, labels, fit, seconds)


class Trial:
    """A trial in progress: its replicates run side by side, one epoch at a time.

    Attributes
    ----------
    spec, digest
        The specification with all defaults, and the identity of the trial.
    history
        Metrics of the finished epochs, means over the replicates.
    panel_constraints
        Constraints of the panel by index of the replicate, once they are checked.
    """

    def __init__(self, spec: TrialSpec, cells: Cells) -> None:
        self.spec = resolve_spec(spec, cells)
        self.cells = cells
        self.digest = self.spec.digest(cells.fingerprint)
        self.history: list[dict[str, float]] = []
        self.panel_constraints: dict[int, PanelConstraints] = {}
        self._finished: list[ReplicateResult] = []
        self._started = time.perf_counter()
        self._memory = PeakMemory()

    def epochs(self) -> Iterator[dict[str, float]]:
        """Run the trial; yield the metrics of each epoch, means over the replicates.

        The keys are the columns of ``TrialResult.history``. A replicate that has stopped early
        counts with its last values.
        """
        for (epoch,) in run_trials([self]):
            assert epoch is not None
            yield epoch

    def result(self) -> TrialResult:
        """Return the result; call it after :meth:`epochs` is exhausted."""
        done = sorted(self._finished, key=lambda replicate: replicate.index)
        panels, marked = [r.panel for r in done], [r.marked for r in done]
        constraints = consensus_constraints(self.spec, self.cells, panels, marked)
        panel, scores = consensus_panel(
            done, len(self.cells.genes), self.spec.n_markers, constraints
        )
        decoded = done[0].decoded or DecodedCells.empty()
        return TrialResult(
            spec=self.spec,
            digest=self.digest,
            fingerprint=self.cells.fingerprint,
            panel=panel_table(panel, scores, self.cells.genes, self.cells.gene_ids),
            replicates=pd.DataFrame([replicate_row(r) for r in done]),
            metrics=summarise_metrics(done),
            classes=self.cells.classes,
            history=pd.DataFrame(self.history),
            seconds=time.perf_counter() - self._started,
            peak_memory=self._memory.read(),
            variances=decoded.variances,
            components=decoded.components,
        )

    def check_constraints(self) -> None:
        """Resolve the panel constraints of every replicate on its training cells.

        Raises
        ------
        UserError
            The training cells of a replicate do not allow the constraints.
        """
        self.panel_constraints = replicate_constraints(self.spec, self.cells, self._indices())

    def _indices(self) -> list[int]:
        first = self.spec.first_replicate
        return list(range(first, first + self.spec.replicates))

    def _record_epoch(self, number: int, fits: list[Fit]) -> dict[str, float] | None:
        """Append epoch ``number`` to the history and return it; None if all fits ended before."""
        if number > max(len(fit.epochs) for fit in fits):
            return None
        epochs = [epoch for fit in fits if (epoch := fit.epoch_at(number)) is not None]
        self.history.append(mean_epoch(epochs))
        return self.history[-1]

    def _fit_identity(self, index: int) -> str:
        """Return a digest that is equal for replicates whose fits are identical."""
        spec = self.spec.model_copy(update={"first_replicate": index, "replicates": 1})
        if not get_selector(spec.selector).supervised and not needs_labels(spec.constraints):
            spec = spec.model_copy(update={"noise": LabelNoise()})
        return spec.digest(self.cells.fingerprint)


def _prepare_group(group: list[tuple[Trial, int]]) -> list[tuple[Trial, PreparedReplicate]]:
    """Prepare the replicates of a group; identical fits are prepared once and shared."""
    prepared: dict[str, PreparedReplicate] = {}
    replicates: list[tuple[Trial, PreparedReplicate]] = []
    for trial, index in group:
        identity = trial._fit_identity(index)
        if identity in prepared:
            replicate = prepared[identity].with_labels_of(trial.spec)
        else:
            panel_constraints = trial.panel_constraints[index]
            replicate = prepare_replicate(trial.spec, trial.cells, panel_constraints, index)
            prepared[identity] = replicate
        replicates.append((trial, replicate))
    return replicates


def _group_replicates(trials: Sequence[Trial]) -> list[list[tuple[Trial, int]]]:
    """Return groups of replicates that are prepared and fitted at the same time.

    If all methods train in epochs, there is one group, so that selectors can be trained as one
    batch. Otherwise only replicates that share a fit form a group: this saves memory.
    """
    together = all(get_selector(trial.spec.selector).trains_in_epochs for trial in trials)
    groups: dict[str, list[tuple[Trial, int]]] = {}
    for trial in trials:
        for index in trial._indices():
            key = "" if together else trial._fit_identity(index)
            groups.setdefault(key, []).append((trial, index))
    return list(groups.values())
