"""One replicate of a trial: its cells and labels, what its panel holds, what the panel is worth."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmlab.constraints.measure import PanelConstraints, needs_labels
from mmlab.datasets.cells import Cells
from mmlab.preprocessing.expression import ZScores, to_dense
from mmlab.preprocessing.label_noise import replicate_labels
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.recipes import replicate_layers
from mmlab.preprocessing.splits import Split, replicate_split, subsample
from mmlab.selectors.controls import ShuffledLabels
from mmlab.spec.protocol import MAX_EVALUATION_CELLS, MAX_FIT_CELLS
from mmlab.spec.trial import TrialSpec
from mmlab.trial.batched import Fit
from mmlab.trial.evaluate import Evaluation, compute_metrics, evaluate_panel, metrics_by_type
from mmlab.trial.fit import make_selector, training_data
from mmlab.trial.result import DecodedCells, Replicate, decode_cells


@dataclass(frozen=True)
class PreparedReplicate:
    """A replicate whose method is to be fitted, and what it will be judged on.

    ``y_fit`` are the labels that the classifiers see; ``seconds`` went into preparing it.
    """

    spec: TrialSpec
    cells: Cells
    panel_constraints: PanelConstraints
    index: int
    split: Split
    zscore: ZScores
    y_fit: NDArray[np.int64]
    fit: Fit
    seconds: float

    @classmethod
    def of(
        cls, spec: TrialSpec, cells: Cells, panel_constraints: PanelConstraints, index: int
    ) -> PreparedReplicate:
        """Replicate number ``index`` of a resolved trial."""
        started = time.perf_counter()
        split = replicate_split(spec, cells, index)
        layers = replicate_layers(spec, cells, split)
        zscore = layers["zscore"]
        y = replicate_labels(spec, cells, split, zscore, index)
        selector = make_selector(spec, cells, index)
        if isinstance(selector, ShuffledLabels):
            y = selector.shuffle(y, split.train_validation)
        in_search = spec.protocol == "search"
        data = training_data(selector, layers, y, split, panel_constraints, in_search=in_search)
        fit, seconds = Fit(selector, data), time.perf_counter() - started
        return cls(spec, cells, panel_constraints, index, split, zscore, y, fit, seconds)

    def like(self, spec: TrialSpec) -> PreparedReplicate:
        """The same replicate of a trial with other wrong labels, which the method ignores."""
        y = replicate_labels(spec, self.cells, self.split, self.zscore, self.index)
        return replace(self, spec=spec, y_fit=y)

    def finished(self) -> Replicate:
        """The outcome, once the method has been fitted."""
        started, fit = time.perf_counter(), self.fit
        evaluation, seen = self._evaluate()
        rules, panel = self.panel_constraints.rules, fit.selector.panel_
        asked = needs_labels(self.spec.constraints)
        return Replicate(
            index=self.index,
            panel=panel,
            scores=fit.selector.scores_,
            evaluation=evaluation,
            epochs=fit.epochs[-1].epoch if fit.epochs else 0,
            fit_seconds=fit.seconds,
            seconds=self.seconds + fit.seconds + time.perf_counter() - started,
            decoded=seen,
            marked=rules.marked_types(panel) if rules is not None and asked else None,
        )

    def _evaluate(self) -> tuple[Evaluation, DecodedCells | None]:
        """On the test cells, or, in a search, on the validation cells with ``validation/`` names.

        With it goes what the decoder of a method makes of the first replicate's cells.
        """
        spec, cells, split, z, y = self.spec, self.cells, self.split, self.zscore, self.y_fit
        selector, n_classes = self.fit.selector, len(cells.classes)
        search = spec.protocol == "search"
        fit_on = split.train if search else split.train_validation
        fit_on = fit_on[subsample(len(fit_on), MAX_FIT_CELLS)]
        judge_on = split.validation if search else split.test
        judge_on = judge_on[subsample(len(judge_on), MAX_EVALUATION_CELLS)]
        judged = to_dense(z[judge_on])
        truth = (y if search else cells.y)[judge_on]
        rng = random_stream(spec.seed, self.index, Stream.EVALUATION)
        evaluation = evaluate_panel(
            selector.panel_,
            z[fit_on],
            y[fit_on],
            judged,
            truth,
            n_classes,
            int(rng.integers(2**31)),
            clean_labels=cells.y[fit_on] if spec.noise.level > 0 and not search else None,
        )
        metrics, per_class, seen = evaluation.metrics, evaluation.per_class_reconstruction, None
        rebuilt = selector.reconstruct(judged)
        if rebuilt is not None:
            metrics |= compute_metrics("decoder", "reconstruction", judged, rebuilt)
            per_class |= metrics_by_type("decoder", judged, rebuilt, truth, n_classes)
            if self.index == 0:
                names = np.asarray(cells.classes)[truth]
                seen = decode_cells(judged, rebuilt, cells.genes, names)
        if search:
            metrics = {f"validation/{name}": value for name, value in metrics.items()}
        return replace(evaluation, metrics=metrics), seen
