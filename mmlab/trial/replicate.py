"""One replicate of a trial: a selector that is ready to be fitted, then evaluated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmlab.constraints.measure import PanelConstraints, measure_constraints, needs_labels
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError, join_problems
from mmlab.preprocessing.expression import ZScores, to_dense
from mmlab.preprocessing.label_noise import replicate_labels
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.splits import Split, subsample
from mmlab.selectors.base import Selector
from mmlab.spec.protocol import MAX_EVALUATION_CELLS, MAX_FIT_CELLS
from mmlab.spec.trial import TrialSpec
from mmlab.system.devices import device_title, resolve_device
from mmlab.trial.batched_fit import Fit
from mmlab.trial.decoded_cells import DecodedCells, compare_reconstruction
from mmlab.trial.evaluate import Evaluation, compute_metrics, evaluate_panel, metrics_by_type
from mmlab.trial.result import ReplicateResult


@dataclass(frozen=True)
class PreparedReplicate:
    """One replicate of a trial, prepared by :func:`mmlab.trial.run.prepare_replicate`.

    Attributes
    ----------
    spec
        Resolved specification of the trial.
    cells
        The dataset.
    panel_constraints
        Constraints that the panel satisfies.
    index
        Number of the replicate, from 0.
    split
        Training, validation and test cells.
    zscore
        z-scores of all cells, shape (n_cells, n_genes).
    labels
        Class index of each cell, with label noise: the selector and the classifiers are fitted
        on these labels.
    fit
        The selector and its training data.
    seconds
        Wall time of the preparation.
    """

    spec: TrialSpec
    cells: Cells
    panel_constraints: PanelConstraints
    index: int
    split: Split
    zscore: ZScores
    labels: NDArray[np.int64]
    fit: Fit
    seconds: float

    def with_labels_of(self, spec: TrialSpec) -> PreparedReplicate:
        """Return the same replicate, with the same fit, for a trial with other label noise.

        Only valid for a method that does not use labels.
        """
        labels = replicate_labels(spec, self.cells, self.split, self.zscore, self.index)
        return replace(self, spec=spec, labels=labels)

    def evaluate(self) -> ReplicateResult:
        """Evaluate the panel of the fitted selector and return the result of the replicate."""
        started, fit = time.perf_counter(), self.fit
        evaluation, decoded = self._evaluate_panel()
        rules, panel = self.panel_constraints.rules, fit.selector.panel_
        needs_markers = needs_labels(self.spec.constraints)
        return ReplicateResult(
            index=self.index,
            panel=panel,
            scores=fit.selector.scores_,
            evaluation=evaluation,
            epochs=fit.epochs[-1].epoch if fit.epochs else 0,
            fit_seconds=fit.seconds,
            seconds=self.seconds + fit.seconds + time.perf_counter() - started,
            device=_device(fit.selector),
            decoded=decoded,
            marked=rules.marked_types(panel) if rules is not None and needs_markers else None,
        )

    def _evaluate_panel(self) -> tuple[Evaluation, DecodedCells | None]:
        """Compute all metrics on the test cells; in a search, on the validation cells.

        In a search the names of the metrics begin with ``validation/``. The second value compares
        cells with their reconstruction, for replicate 0 of a method with a decoder.
        """
        spec, cells, split, zscore = self.spec, self.cells, self.split, self.zscore
        labels, selector, n_classes = self.labels, self.fit.selector, len(cells.classes)
        in_search = spec.protocol == "search"
        fit_on = split.train if in_search else split.train_validation
        fit_on = fit_on[subsample(len(fit_on), MAX_FIT_CELLS)]
        evaluate_on = split.validation if in_search else split.test
        evaluate_on = evaluate_on[subsample(len(evaluate_on), MAX_EVALUATION_CELLS)]
        x = to_dense(zscore[evaluate_on])
        # A search sees only noisy labels.
        y = (labels if in_search else cells.y)[evaluate_on]
        rng = random_stream(spec.seed, self.index, Stream.EVALUATION)
        evaluation = evaluate_panel(
            selector.panel_,
            zscore[fit_on],
            labels[fit_on],
            x,
            y,
            n_classes,
            int(rng.integers(2**31)),
            clean_labels=cells.y[fit_on] if spec.noise.level > 0 and not in_search else None,
            # Only the held-out test set is the same in every replicate: its cells are compared.
            keep_cells=spec.protocol == "locked",
        )
        metrics, per_class = evaluation.metrics, evaluation.per_class_reconstruction
        decoded = None
        reconstructed = selector.reconstruct(x)
        if reconstructed is not None:
            metrics |= compute_metrics("decoder", "reconstruction", x, reconstructed)
            per_class |= metrics_by_type("decoder", x, reconstructed, y, n_classes)
            if self.index == 0:
                cell_types = np.asarray(cells.classes)[y]
                decoded = compare_reconstruction(x, reconstructed, cells.genes, cell_types)
        if in_search:
            metrics = {f"validation/{name}": value for name, value in metrics.items()}
        return replace(evaluation, metrics=metrics), decoded


def _device(selector: Selector) -> str:
    """Return the device on which a selector is fitted; those without a choice use the CPU."""
    name = selector.get_params().get("device")
    return "cpu" if name is None else device_title(resolve_device(name))


def replicate_constraints(
    spec: TrialSpec, cells: Cells, indices: Sequence[int]
) -> dict[int, PanelConstraints]:
    """Resolve the panel constraints of replicates on their training cells, by replicate index.

    Raises
    ------
    UserError
        The training cells of a replicate do not allow the constraints; every replicate is named.
    """
    resolved: dict[int, PanelConstraints] = {}
    problems: dict[str, list[int]] = {}
    for index in indices:
        try:
            resolved[index] = measure_constraints(spec, cells, index)
        except UserError as error:
            problems.setdefault(str(error).rstrip("."), []).append(index)
    if problems:
        listed = [
            text + (f" (replicate {', '.join(map(str, failed))})" if len(indices) > 1 else "")
            for text, failed in problems.items()
        ]
        raise UserError(f"{spec.selector} on {cells.name}: {join_problems(listed)}")
    return resolved
