"""Result of a trial: its replicates, mean metrics, and one panel for all replicates."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.constraints.measure import PanelConstraints
from mmlab.constraints.solver import solve_panel
from mmlab.spec.trial import TrialSpec
from mmlab.trial.decoded_cells import DecodedCells
from mmlab.trial.evaluate import Evaluation

#: Prefix of columns with confusion matrices: one nested list per replicate.
CONFUSION_PREFIX = "confusion/"
#: Prefixes of columns with one value per class: one list per replicate.
PER_CLASS_F1, PER_CLASS_RECONSTRUCTION = "per_class_f1/", "per_class_reconstruction/"
#: Prefix of columns with one value per evaluated cell: one list per replicate. Protocol ``locked``.
PER_CELL = "per_cell/"
#: Prefixes of all columns whose values are lists.
NESTED_COLUMNS = (CONFUSION_PREFIX, PER_CLASS_F1, PER_CLASS_RECONSTRUCTION, PER_CELL)
_TABLES = ("panel", "replicates", "history", "variances", "components")


@dataclass(frozen=True)
class ReplicateResult:
    """Result of one replicate.

    Attributes
    ----------
    index
        Number of the replicate, from 0.
    panel
        Gene indices, best first, shape (n_markers,).
    scores
        Score of each gene, shape (n_genes,); higher is better.
    evaluation
        Metrics of the panel.
    epochs
        Number of epochs; 0 for a method without epochs.
    fit_seconds
        Wall time of the selection, with the validation scores that early stopping needs; without
        loading, preparation and evaluation.
    seconds
        Wall time of the whole replicate: preparation, selection and evaluation.
    device
        Device of the selection: ``cpu``, or the model name of the GPU.
    decoded
        Comparison of cells with their reconstruction, only of the replicate with index 0 and only
        if the method has a decoder.
    marked
        Index of the type that each gene of the panel marks, -1 for none; None unless the
        constraints have ``min_per_type``.
    """

    index: int
    panel: NDArray[np.int64]
    scores: NDArray[np.float64]
    evaluation: Evaluation
    epochs: int
    fit_seconds: float
    seconds: float
    device: str
    decoded: DecodedCells | None = None
    marked: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class TrialResult:
    """Result of a finished trial.

    Attributes
    ----------
    spec
        Specification with all defaults.
    digest, fingerprint
        Identity of the trial and of its data.
    panel
        As of :func:`panel_table`: the panel of the only replicate, or the consensus of all
        (:func:`consensus_panel`).
    replicates
        One row per replicate. Columns: replicate, epochs, fit_seconds, seconds, device (``cpu``, or
        the model of the GPU), panel (gene indices, best first), marked (only with
        ``min_per_type``: index of the type that each gene of the panel marks, -1 for none), every
        metric, ``confusion/<classifier>`` (nested list),
        ``per_class_f1/<classifier>`` and ``per_class_reconstruction/<source>/<measure>``. Under
        the protocol ``locked`` also ``per_cell/<metric>``: the metric's value of each test cell.
    metrics
        Mean of every metric over the replicates and, for two or more replicates, the sample
        standard deviation as ``..._std``. Under the search protocol the names begin with
        ``validation/``: no test cell was used.
    history
        One row per epoch: epoch, temperature, train/loss, validation/loss, validation/score,
        means over the replicates; empty for a method without epochs.
    seconds
        Wall time of the trial.
    peak_memory
        ``peak_memory_mb`` of the process and, if a GPU was used, ``peak_gpu_memory_mb``.
    variances, components
        From :class:`~mmlab.trial.decoded_cells.DecodedCells`, of the replicate with index 0; empty
        for a method without decoder.
    """

    spec: TrialSpec
    digest: str
    fingerprint: str
    panel: pd.DataFrame
    replicates: pd.DataFrame
    metrics: dict[str, float]
    classes: list[str]
    history: pd.DataFrame
    seconds: float
    peak_memory: dict[str, float]
    variances: pd.DataFrame
    components: pd.DataFrame

    @property
    def confusion(self) -> dict[str, NDArray[np.int64]]:
        """Confusion matrix by classifier, summed over replicates; rows are true classes."""
        return {
            name.removeprefix(CONFUSION_PREFIX): sum_matrices(self.replicates[name])
            for name in map(str, self.replicates)
            if name.startswith(CONFUSION_PREFIX)
        }

    def to_json(self) -> str:
        """Return the result as one JSON document; floats round-trip exactly."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content |= {name: content[name].to_dict(orient="list") for name in _TABLES}
        return json.dumps(content | {"spec": self.spec.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> TrialResult:
        """Return the result that :meth:`to_json` wrote."""
        content = json.loads(text)
        for name in _TABLES:
            content[name] = pd.DataFrame(content[name])
        return cls(**content | {"spec": TrialSpec.model_validate(content["spec"])})


def sum_matrices(matrices: Iterable[Any]) -> NDArray[np.int64]:
    """Return the elementwise sum of count matrices that are stored as nested lists."""
    return np.asarray(np.sum([np.asarray(matrix) for matrix in matrices], axis=0))


def replicate_row(replicate: ReplicateResult) -> dict[str, Any]:
    """Return a replicate as a row of ``TrialResult.replicates``: plain numbers and lists."""
    evaluation = replicate.evaluation
    return {
        "replicate": replicate.index,
        "epochs": replicate.epochs,
        "fit_seconds": replicate.fit_seconds,
        "seconds": replicate.seconds,
        "device": replicate.device,
        "panel": replicate.panel.tolist(),
        **({} if replicate.marked is None else {"marked": replicate.marked.tolist()}),
        **evaluation.metrics,
        **{
            CONFUSION_PREFIX + name: counts.tolist()
            for name, counts in evaluation.confusion.items()
        },
        **{PER_CLASS_F1 + name: f1.tolist() for name, f1 in evaluation.per_class_f1.items()},
        **{
            PER_CLASS_RECONSTRUCTION + name: values.tolist()
            for name, values in evaluation.per_class_reconstruction.items()
        },
        **{PER_CELL + name: values.tolist() for name, values in evaluation.per_cell.items()},
    }


def consensus_panel(
    replicates: list[ReplicateResult],
    n_genes: int,
    k: int,
    panel_constraints: PanelConstraints | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return one panel for all replicates, and one score per gene.

    A single replicate keeps its own panel and scores. For several, genes are ranked by their Borda
    count: a gene gets (k - rank) / k from every replicate that chose it (rank from 0). Its score
    is the mean over all replicates, in [0, 1]. Ties go to the lower gene index.
    """
    if len(replicates) == 1:
        return replicates[0].panel, replicates[0].scores
    return borda_panel([replicate.panel for replicate in replicates], n_genes, k, panel_constraints)


def borda_panel(
    panels: list[NDArray[np.int64]],
    n_genes: int,
    k: int,
    panel_constraints: PanelConstraints | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k genes with the highest Borda count over panels of k ranked genes, and counts.

    If ``panel_constraints`` (from :func:`mmlab.constraints.measure.consensus_constraints`) have
    rules, the panel satisfies them with the smallest possible sum of ranks.
    """
    scores = np.zeros(n_genes)
    for panel in panels:
        scores[panel] += (k - np.arange(k)) / k
    scores /= len(panels)
    order = np.argsort(-scores, kind="stable").astype(np.int64)
    if panel_constraints is None or panel_constraints.rules is None:
        return order[:k], scores
    include = np.array(panel_constraints.include, dtype=np.int64)
    free = order[(scores[order] > 0) & ~np.isin(order, include)]
    chosen = solve_panel(panel_constraints.rules, free, k - len(include), include)
    assert chosen is not None  # the panel of each replicate satisfies the rules
    return np.concatenate([include, chosen]), scores


def panel_table(
    panel: NDArray[np.int64],
    scores: NDArray[np.float64],
    genes: NDArray[np.str_],
    gene_ids: NDArray[np.str_] | None = None,
) -> pd.DataFrame:
    """Return columns rank (from 1), gene, gene_index, score; one row per marker, best first.

    A last column gene_id has the original names ``gene_ids`` if genes are named otherwise.
    """
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(panel) + 1),
            "gene": genes[panel],
            "gene_index": panel,
            "score": scores[panel],
            **({} if gene_ids is None else {"gene_id": gene_ids[panel]}),
        }
    )


def summarise_metrics(replicates: list[ReplicateResult]) -> dict[str, float]:
    """Return the mean of every metric and, for two or more replicates, its ``_std``.

    ``_std`` is the sample standard deviation (n - 1) over the replicates that have the metric.
    """
    table = pd.DataFrame([r.evaluation.metrics for r in replicates])
    summary = {str(name): float(value) for name, value in table.mean().items()}
    return summary | {f"{name}_std": float(v) for name, v in table.std(ddof=1).dropna().items()}
