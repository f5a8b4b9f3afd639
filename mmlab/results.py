"""What a trial leaves behind: its replicates, their means, and one panel for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmlab.config import TrialSpec
from mmlab.evaluate import Evaluation


@dataclass(frozen=True)
class Replicate:
    """Outcome of one replicate; ``fit_seconds`` went into the panel, ``seconds`` into all."""

    index: int
    panel: NDArray[np.int64]
    scores: NDArray[np.float64]
    evaluation: Evaluation
    epochs: int
    fit_seconds: float
    seconds: float


@dataclass(frozen=True)
class TrialResult:
    """Outcome of a finished trial.

    Attributes
    ----------
    spec
        With every default filled in.
    digest, fingerprint
        Identity of the trial and of its data.
    panel
        Columns rank (from 1), gene, gene_index, score: the panel of the only replicate, or
        the consensus of all (:func:`consensus_panel`).
    replicates
        A row a replicate: replicate, epochs, fit_seconds, seconds, panel (gene indices, best
        first), every metric, and by classifier ``confusion/...`` (nested list) and
        ``per_class_f1/...``.
    metrics
        Mean of every metric over the replicates and, for two or more, the population standard
        deviation as ``..._std``. Under the search protocol the names begin with
        ``validation/``: no test cell was seen.
    confusion
        By classifier, cells by true (row) and predicted (column) class, summed over replicates.
    history
        A row an epoch: epoch, temperature, train/loss, validation/loss, validation/score,
        means over the replicates; empty for a method without epochs.
    seconds
        Wall time of the trial.
    peak_memory
        ``peak_memory_mb`` of the process and, where one was used, ``peak_gpu_memory_mb``.
    """

    spec: TrialSpec
    digest: str
    fingerprint: str
    panel: pd.DataFrame
    replicates: pd.DataFrame
    metrics: dict[str, float]
    confusion: dict[str, NDArray[np.int64]]
    classes: list[str]
    history: pd.DataFrame
    seconds: float
    peak_memory: dict[str, float]


def replicate_row(replicate: Replicate) -> dict[str, Any]:
    """A replicate as a row of ``TrialResult.replicates``: plain numbers and lists."""
    evaluation = replicate.evaluation
    return {
        "replicate": replicate.index,
        "epochs": replicate.epochs,
        "fit_seconds": replicate.fit_seconds,
        "seconds": replicate.seconds,
        "panel": replicate.panel.tolist(),
        **evaluation.metrics,
        **{f"confusion/{name}": counts.tolist() for name, counts in evaluation.confusion.items()},
        **{f"per_class_f1/{name}": f1.tolist() for name, f1 in evaluation.per_class_f1.items()},
    }


def consensus_panel(
    replicates: list[Replicate], n_genes: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One panel for all replicates, with a score a gene.

    For one replicate its own panel and scores. For several, genes are ranked by their Borda
    count: a gene gets (k - rank) / k from every replicate that chose it (rank from 0), and the
    mean over the replicates, in [0, 1], is its score; ties go to the lower gene index.
    """
    if len(replicates) == 1:
        return replicates[0].panel, replicates[0].scores
    return borda_panel([replicate.panel for replicate in replicates], n_genes, k)


def borda_panel(
    panels: list[NDArray[np.int64]], n_genes: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k genes with the largest Borda count over panels of k ranked genes, and the counts."""
    scores = np.zeros(n_genes)
    for panel in panels:
        scores[panel] += (k - np.arange(k)) / k
    scores /= len(panels)
    return np.argsort(-scores, kind="stable")[:k].astype(np.int64), scores


def panel_table(
    panel: NDArray[np.int64], scores: NDArray[np.float64], genes: NDArray[np.str_]
) -> pd.DataFrame:
    """Columns rank (from 1), gene, gene_index, score; a row a marker, best first."""
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(panel) + 1),
            "gene": genes[panel],
            "gene_index": panel,
            "score": scores[panel],
        }
    )


def summarise(replicates: list[Replicate]) -> dict[str, float]:
    """Mean and, for two or more, population standard deviation (``_std``) of every metric."""
    table = pd.DataFrame([r.evaluation.metrics for r in replicates])
    summary = {str(name): float(value) for name, value in table.mean().items()}
    if len(replicates) > 1:
        summary |= {f"{name}_std": float(v) for name, v in table.std(ddof=0).items()}
    return summary
