"""One trial from data to result: prepare, split, mislabel, select, evaluate; R times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mmlab.config import Noise, TrialSpec
from mmlab.constraints import constraint_problems
from mmlab.datasets import load_cells
from mmlab.datasets.base import Cells
from mmlab.errors import UserError
from mmlab.evaluate import Evaluation, by_type, evaluate_panel, score
from mmlab.fitting import make_selector, memory_problems, training_data
from mmlab.held import Held, consensus_held, hold, measure, reads_cells, reads_labels
from mmlab.memory import PeakMemory
from mmlab.noise import mislabel, noise_problems, transitions
from mmlab.packs import Fit, run_fits
from mmlab.preprocess import ZScores, prepare
from mmlab.results import (
    Decoded,
    Replicate,
    TrialResult,
    consensus_panel,
    decoded,
    panel_table,
    replicate_row,
    summarise,
)
from mmlab.selectors import SELECTORS, get_selector, resolve_params
from mmlab.selectors.controls import AllGenes, ShuffledLabels
from mmlab.selectors.data import dense
from mmlab.split import (
    MOST_FITTED,
    MOST_JUDGED,
    Split,
    Stream,
    paper_split,
    random_stream,
    search_split,
    some_of,
    split_problems,
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
        self.spec = resolve(spec, cells)
        self.cells = cells
        self.digest = self.spec.digest(cells.fingerprint)
        self.history: list[dict[str, float]] = []
        self.held: dict[int, Held] = {}
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

    def hold(self) -> None:
        """Find what the panel of each replicate has to hold, before any is trained.

        Raises
        ------
        UserError
            The training cells of a replicate do not allow it.
        """
        problems: dict[str, list[int]] = {}
        for index in self._indices():
            try:
                self.held[index] = self._hold(index)
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

    def _hold(self, index: int) -> Held:
        spec, cells = self.spec, self.cells
        if not reads_cells(spec.constraints):
            return hold(spec, cells, None)
        split, y = split_of(spec, cells, index), cells.y
        if reads_labels(spec.constraints) and spec.noise.level > 0:
            layers = prepare(cells.adata, cells.normalization, spec.recipe, split.train)
            y = self._mislabelled(split, layers["zscore"], index)
        train = split.train
        return hold(spec, cells, measure(cells.adata.X, train, y, len(cells.classes)))

    def _indices(self) -> list[int]:
        first = self.spec.first_replicate
        return list(range(first, first + self.spec.replicates))

    def _take_up(self, number: int, fits: list[Fit]) -> dict[str, float] | None:
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
        held = consensus_held(self.spec, self.cells, panels, marked)
        panel, scores = consensus_panel(done, len(self.cells.genes), self.spec.n_markers, held)
        rows = [replicate_row(r) for r in done]
        shown = done[0].decoded or Decoded(pd.DataFrame(), pd.DataFrame())
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

    def _prepare(self, index: int) -> _Prepared:
        """A replicate before its method is fitted."""
        started, spec, cells = time.perf_counter(), self.spec, self.cells
        split = split_of(spec, cells, index)
        layers = prepare(cells.adata, cells.normalization, spec.recipe, split.train)
        noisy = self._mislabelled(split, layers["zscore"], index)
        selector = make_selector(spec, cells, index)
        if isinstance(selector, ShuffledLabels):
            noisy = selector.shuffle(noisy, split.train_validation)
        in_search = spec.protocol == "search"
        data = training_data(selector, layers, noisy, split, self.held[index], in_search=in_search)
        seconds = time.perf_counter() - started
        return _Prepared(index, split, layers["zscore"], noisy, Fit(selector, data), seconds)

    def _prepare_like(self, twin: _Prepared) -> _Prepared:
        """A replicate that differs from its twin in labels alone, which its method ignores."""
        return replace(twin, y_fit=self._mislabelled(twin.split, twin.zscore, twin.index))

    def _fit_identity(self, index: int) -> str:
        """Equal for replicates whose methods see and do the same."""
        spec = self.spec.model_copy(update={"first_replicate": index, "replicates": 1})
        if not get_selector(spec.selector).supervised and not reads_labels(spec.constraints):
            spec = spec.model_copy(update={"noise": Noise()})
        return spec.digest(self.cells.fingerprint)

    def _mislabelled(self, split: Split, zscore: ZScores, index: int) -> NDArray[np.int64]:
        noise, classes, y = self.spec.noise, self.cells.classes, self.cells.y
        matrix = transitions(noise, classes, zscore[split.train], y[split.train])
        stream = random_stream(self.spec.seed, index, Stream.NOISE)
        return mislabel(y, split.train_validation, noise.level, matrix, stream)

    def _finish(self, replicate: _Prepared) -> Replicate:
        """A replicate whose method has been fitted, evaluated."""
        started, fit, index = time.perf_counter(), replicate.fit, replicate.index
        selector = fit.selector
        evaluation, seen = self._evaluate(replicate)
        seconds = replicate.seconds + fit.seconds + time.perf_counter() - started
        n_epochs = fit.epochs[-1].epoch if fit.epochs else 0
        rules, asked = self.held[index].rules, reads_labels(self.spec.constraints)
        return Replicate(
            index,
            selector.panel_,
            selector.scores_,
            evaluation,
            n_epochs,
            fit.seconds,
            seconds,
            seen,
            rules.marked(selector.panel_) if rules is not None and asked else None,
        )

    def _evaluate(self, replicate: _Prepared) -> tuple[Evaluation, Decoded | None]:
        """On the test cells, or, in a search, on the validation cells with ``validation/`` names.

        With it goes what the decoder of a method makes of the first replicate's cells.
        """
        selector, split, z = replicate.fit.selector, replicate.split, replicate.zscore
        y, cells, n_classes = replicate.y_fit, self.cells, len(self.cells.classes)
        search = self.spec.protocol == "search"
        fit_on = split.train if search else split.train_validation
        fit_on = fit_on[some_of(len(fit_on), MOST_FITTED)]
        judge_on = split.validation if search else split.test
        judge_on = judge_on[some_of(len(judge_on), MOST_JUDGED)]
        judged = dense(z[judge_on])
        truth = (y if search else cells.y)[judge_on]
        rng = random_stream(self.spec.seed, replicate.index, Stream.EVALUATION)
        evaluation = evaluate_panel(
            selector.panel_,
            z[fit_on],
            y[fit_on],
            judged,
            truth,
            n_classes,
            int(rng.integers(2**31)),
            clean_labels=cells.y[fit_on] if self.spec.noise.level > 0 and not search else None,
        )
        metrics, per_class, seen = evaluation.metrics, evaluation.per_class_reconstruction, None
        rebuilt = selector.reconstruct(judged)
        if rebuilt is not None:
            metrics |= score("decoder", "reconstruction", judged, rebuilt)
            per_class |= by_type("decoder", judged, rebuilt, truth, n_classes)
            if replicate.index == 0:
                names = np.asarray(cells.classes)[truth]
                seen = decoded(judged, rebuilt, cells.genes, names)
        if search:
            metrics = {f"validation/{name}": value for name, value in metrics.items()}
        return replace(evaluation, metrics=metrics), seen


def run_trials(trials: Sequence[Trial]) -> Iterator[list[dict[str, float] | None]]:
    """Run trials side by side; an item is an epoch of each, None for one that had ended.

    What can be trained as one is, across the trials (:func:`mmlab.packs.run_fits`); what differs
    in wrong labels that a method ignores is fitted once. Constraints that the training cells do not
    allow are a ``UserError``, before anything is trained.
    """
    for trial in trials:
        trial.hold()
    members = [(trial, index) for trial in trials for index in trial._indices()]
    # Replicates without epochs need not be in memory at the same time.
    together = all(get_selector(trial.spec.selector).trains_in_epochs for trial in trials)
    groups: dict[str, list[tuple[Trial, int]]] = {}
    for trial, index in members:
        groups.setdefault("" if together else trial._fit_identity(index), []).append((trial, index))
    for group in groups.values():
        fitted: dict[str, _Prepared] = {}
        prepared = []
        for trial, index in group:
            identity = trial._fit_identity(index)
            if identity in fitted:
                prepared.append((trial, trial._prepare_like(fitted[identity])))
            else:
                fitted[identity] = trial._prepare(index)
                prepared.append((trial, fitted[identity]))
        for number in run_fits([replicate.fit for replicate in fitted.values()]):
            yield [
                trial._take_up(number, [own.fit for whose, own in prepared if whose is trial])
                for trial in trials
            ]
        for trial, replicate in prepared:
            trial._finished.append(trial._finish(replicate))


@dataclass(frozen=True)
class _Prepared:
    """A replicate whose method is to be fitted, and what it will be judged on.

    ``y_fit`` are the labels that the classifiers see; ``seconds`` went into preparing it.
    """

    index: int
    split: Split
    zscore: ZScores
    y_fit: NDArray[np.int64]
    fit: Fit
    seconds: float


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
    with cpu_threads(threads):
        for epoch in trial.epochs():
            if on_epoch is not None:
                on_epoch(epoch)
        return trial.result()


def resolve(spec: TrialSpec, cells: Cells) -> TrialSpec:
    """Check a specification against the registries and its data, and fill in the defaults."""
    problems, full = [], spec
    if SELECTORS.get(spec.selector) is AllGenes:
        spec = full = spec.model_copy(update={"n_markers": len(cells.genes)})
    if spec.noise.level == 0:
        # Whatever its kind, no noise is the same trial.
        spec = full = spec.model_copy(update={"noise": Noise()})
    try:
        params = resolve_params(spec.selector, spec.params)
        selector = make_selector(spec.model_copy(update={"params": params}), cells, 0)
        selector.check_params()
        params |= selector.settled_params(len(cells.genes))
        full = spec.model_copy(update={"params": params})
    except UserError as error:
        problems.append(str(error))
    problems += constraint_problems(spec, cells)
    problems += noise_problems(spec.noise, cells.classes)
    problems += memory_problems(spec.selector, cells)
    n_genes = len(cells.genes)
    if spec.n_markers > n_genes:
        problems.append(
            f"n_markers is {spec.n_markers}, but {cells.name} has {n_genes} genes; give a "
            f"number from 1 to {n_genes}."
        )
    too_small = split_problems(cells.y, cells.classes)
    problems += too_small
    if not too_small:
        try:
            split_of(spec, cells, 0)
        except UserError as error:
            problems.append(str(error))
    if problems:
        listed = "; ".join(problem.rstrip(".") for problem in problems)
        raise UserError(f"{spec.selector} on {cells.name}: {listed}.")
    return full


def first_zscore(spec: TrialSpec, cells: Cells) -> ZScores:
    """z-scores of all cells by the recipe and split of a trial's first replicate."""
    split = split_of(spec, cells, spec.first_replicate)
    layers = prepare(cells.adata, cells.normalization, spec.recipe, split.train)
    found: ZScores = layers["zscore"]
    return found


@contextmanager
def cpu_threads(n: int) -> Iterator[None]:
    """Use ``n`` threads for torch, BLAS and OpenMP while the block runs.

    Two trials with a thread each are far faster than one after the other with two.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(limits=n):
            yield
    finally:
        torch.set_num_threads(before)


def split_of(spec: TrialSpec, cells: Cells, replicate: int) -> Split:
    """The cells of a replicate, by the protocol of its trial."""
    rng = random_stream(spec.seed, replicate, Stream.SPLIT)
    if spec.protocol == "paper":
        return paper_split(cells.y, rng)
    return search_split(cells.y, cells.fingerprint, rng)


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
