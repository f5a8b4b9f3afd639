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

from mmlab.config import TrialSpec
from mmlab.datasets import load_cells
from mmlab.datasets.base import Cells
from mmlab.errors import UserError
from mmlab.evaluate import Evaluation, evaluate_panel, score
from mmlab.fitting import gene_list_problems, gene_lists, make_selector, training_data
from mmlab.memory import PeakMemory
from mmlab.packs import Fit, run_fits
from mmlab.preprocess import prepare
from mmlab.results import (
    Replicate,
    TrialResult,
    consensus_panel,
    panel_table,
    replicate_row,
    summarise,
)
from mmlab.selectors import SELECTORS, get_selector, resolve_params
from mmlab.selectors.base import Selector
from mmlab.selectors.controls import AllGenes, ShuffledLabels
from mmlab.split import (
    Split,
    Stream,
    mislabel,
    paper_split,
    random_stream,
    search_split,
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
        panel, scores = consensus_panel(done, len(self.cells.genes), self.spec.n_markers)
        rows = [replicate_row(r) for r in done]
        confusion = {
            name: np.sum([r.evaluation.confusion[name] for r in done], axis=0)
            for name in done[0].evaluation.confusion
        }
        return TrialResult(
            spec=self.spec,
            digest=self.digest,
            fingerprint=self.cells.fingerprint,
            panel=panel_table(panel, scores, self.cells.genes),
            replicates=pd.DataFrame(rows),
            metrics=summarise(done),
            confusion=confusion,
            classes=self.cells.classes,
            history=pd.DataFrame(self.history),
            seconds=time.perf_counter() - self._started,
            peak_memory=self._memory.read(),
        )

    def _prepare(self, index: int) -> _Prepared:
        """A replicate before its method is fitted."""
        started, spec, cells = time.perf_counter(), self.spec, self.cells
        y = cells.y
        split = _split(spec, cells, index)
        noise = random_stream(spec.seed, index, Stream.NOISE)
        noisy = mislabel(y, split.train_validation, spec.noise.level, len(cells.classes), noise)
        layers = prepare(cells.adata, cells.normalization, spec.recipe, split.train).layers
        selector = make_selector(spec, cells, index)
        if isinstance(selector, ShuffledLabels):
            noisy = selector.shuffle(noisy, split.train_validation)
        lists, in_search = gene_lists(spec, cells), spec.protocol == "search"
        data = training_data(selector, layers, noisy, split, lists, in_search=in_search)
        seen_by_classifier = y if spec.noise.clean_classifier else noisy
        seconds = time.perf_counter() - started
        fit = Fit(selector, data)
        return _Prepared(index, split, layers["zscore"], seen_by_classifier, fit, seconds)

    def _finish(self, replicate: _Prepared) -> Replicate:
        """A replicate whose method has been fitted, evaluated."""
        started, fit, index = time.perf_counter(), replicate.fit, replicate.index
        selector = fit.selector
        evaluation = _evaluate(
            selector, replicate.zscore, replicate.y_fit, replicate.split, self, index
        )
        seconds = replicate.seconds + fit.seconds + time.perf_counter() - started
        n_epochs = fit.epochs[-1].epoch if fit.epochs else 0
        return Replicate(
            index, selector.panel_, selector.scores_, evaluation, n_epochs, fit.seconds, seconds
        )


def run_trials(trials: Sequence[Trial]) -> Iterator[list[dict[str, float] | None]]:
    """Run trials side by side; an item is an epoch of each, None for one that had ended.

    What can be trained as one is, across the trials (:func:`mmlab.packs.run_fits`).
    """
    members = [(trial, index) for trial in trials for index in trial._indices()]
    # Replicates without epochs need not be in memory at the same time.
    together = all(get_selector(trial.spec.selector).trains_in_epochs for trial in trials)
    for group in [members] if together else [[member] for member in members]:
        prepared = [(trial, trial._prepare(index)) for trial, index in group]
        for number in run_fits([replicate.fit for _, replicate in prepared]):
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
    zscore: NDArray[np.float32]
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
    try:
        params = resolve_params(spec.selector, spec.params)
        selector = make_selector(spec.model_copy(update={"params": params}), cells, 0)
        selector.check_params()
        params |= selector.settled_params(len(cells.genes))
        full = spec.model_copy(update={"params": params})
    except UserError as error:
        problems.append(str(error))
    problems += gene_list_problems(spec, cells)
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
            _split(spec, cells, 0)
        except UserError as error:
            problems.append(str(error))
    if problems:
        listed = "; ".join(problem.rstrip(".") for problem in problems)
        raise UserError(f"{spec.selector} on {cells.name}: {listed}.")
    return full


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


def _split(spec: TrialSpec, cells: Cells, replicate: int) -> Split:
    rng = random_stream(spec.seed, replicate, Stream.SPLIT)
    if spec.protocol == "search":
        return search_split(cells.y, cells.fingerprint, rng)
    return paper_split(cells.y, rng)


def _evaluate(
    selector: Selector,
    zscore: NDArray[np.float32],
    y_fit: NDArray[np.int64],
    split: Split,
    trial: Trial,
    replicate: int,
) -> Evaluation:
    """On the test cells, or, in a search, on the validation cells with ``validation/`` names."""
    search = trial.spec.protocol == "search"
    fit_on = split.train if search else split.train_validation
    judge_on = split.validation if search else split.test
    truth = y_fit if search else trial.cells.y
    rng = random_stream(trial.spec.seed, replicate, Stream.EVALUATION)
    evaluation = evaluate_panel(
        selector.panel_,
        zscore[fit_on],
        y_fit[fit_on],
        zscore[judge_on],
        truth[judge_on],
        len(trial.cells.classes),
        int(rng.integers(2**31)),
    )
    metrics = evaluation.metrics
    rebuilt = selector.reconstruct(zscore[judge_on])
    if rebuilt is not None:
        metrics |= score("decoder", "reconstruction", zscore[judge_on], rebuilt)
    if search:
        metrics = {f"validation/{name}": value for name, value in metrics.items()}
    return replace(evaluation, metrics=metrics)


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
