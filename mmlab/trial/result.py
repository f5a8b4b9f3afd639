"""What a trial leaves behind: its replicates, their means, and one panel for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from mmlab.constraints.measure import PanelConstraints
from mmlab.constraints.solver import solve_panel
from mmlab.spec.trial import TrialSpec
from mmlab.trial.evaluate import Evaluation

#: Begins the names of columns with confusion matrices, a nested list a replicate.
CONFUSION = "confusion/"
#: Begins the names of columns with a list of numbers, one a class, a replicate.
PER_CLASS_F1, PER_CLASS_RECONSTRUCTION = "per_class_f1/", "per_class_reconstruction/"
#: Columns of lists, by the beginning of their names.
NESTED_COLUMNS = (CONFUSION, PER_CLASS_F1, PER_CLASS_RECONSTRUCTION)
_TABLES = ("panel", "replicates", "history", "variances", "components")


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
    decoded: DecodedCells | None = None
    #: The type that each gene of the panel marks, -1 for none; None where nobody asks.
    marked: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class DecodedCells:
    """Cells to judge on beside what the method's decoder makes of their panel (figure 3 C).

    Attributes
    ----------
    variances
        Columns gene, original, reconstructed: population variance of the z-scores.
    components
        Columns cell_type, pc1, pc2, reconstructed_pc1, reconstructed_pc2: principal components
        of the original cells, and their reconstructions in the same plane.
    """

    variances: pd.DataFrame
    components: pd.DataFrame


def decode_cells(
    x: NDArray[np.float32],
    rebuilt: NDArray[np.float32],
    genes: NDArray[np.str_],
    cell_types: NDArray[np.str_],
) -> DecodedCells:
    """Compare cells (n_cells, n_genes), z-scores, with their reconstruction."""
    plane = PCA(2, svd_solver="randomized", random_state=0).fit(x)
    columns = {"pc1": plane.transform(x)[:, 0], "pc2": plane.transform(x)[:, 1]}
    shown = plane.transform(rebuilt)
    columns |= {"reconstructed_pc1": shown[:, 0], "reconstructed_pc2": shown[:, 1]}
    variances = {
        "gene": genes,
        "original": x.var(axis=0, dtype=np.float64),
        "reconstructed": rebuilt.var(axis=0, dtype=np.float64),
    }
    components = pd.DataFrame({"cell_type": cell_types} | columns)
    return DecodedCells(pd.DataFrame(variances), components)


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
        first), with ``min_per_type`` marked (the index of the type that each of them marks, -1 for
        none), every metric, by classifier ``confusion/...`` (nested list) and
        ``per_class_f1/...``, and ``per_class_reconstruction/...`` (what reconstructs, measure).
    metrics
        Mean of every metric over the replicates and, for two or more, the population standard
        deviation as ``..._std``. Under the search protocol the names begin with
        ``validation/``: no test cell was seen.
    history
        A row an epoch: epoch, temperature, train/loss, validation/loss, validation/score,
        means over the replicates; empty for a method without epochs.
    seconds
        Wall time of the trial.
    peak_memory
        ``peak_memory_mb`` of the process and, where one was used, ``peak_gpu_memory_mb``.
    variances, components
        From :class:`DecodedCells`, of the replicate with index 0; empty for a method without decoder.
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
        """By classifier, cells by true (row) and predicted (column) class, over all replicates."""
        return {
            name.removeprefix(CONFUSION): sum_matrices(self.replicates[name])
            for name in map(str, self.replicates)
            if name.startswith(CONFUSION)
        }

    def to_json(self) -> str:
        """All of it as one JSON document; numbers come back to the last bit."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content |= {name: content[name].to_dict(orient="list") for name in _TABLES}
        return json.dumps(content | {"spec": self.spec.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> TrialResult:
        """What :meth:`to_json` wrote."""
        content = json.loads(text)
        for name in _TABLES:
            content[name] = pd.DataFrame(content[name])
        return cls(**content | {"spec": TrialSpec.model_validate(content["spec"])})


def sum_matrices(matrices: Iterable[Any]) -> NDArray[np.int64]:
    """Sum of matrices of counts that a table holds as nested lists."""
    return np.asarray(np.sum([np.asarray(matrix) for matrix in matrices], axis=0))


def replicate_row(replicate: Replicate) -> dict[str, Any]:
    """A replicate as a row of ``TrialResult.replicates``: plain numbers and lists."""
    evaluation = replicate.evaluation
    return {
        "replicate": replicate.index,
        "epochs": replicate.epochs,
        "fit_seconds": replicate.fit_seconds,
        "seconds": replicate.seconds,
        "panel": replicate.panel.tolist(),
        **({} if replicate.marked is None else {"marked": replicate.marked.tolist()}),
        **evaluation.metrics,
        **{CONFUSION + name: counts.tolist() for name, counts in evaluation.confusion.items()},
        **{PER_CLASS_F1 + name: f1.tolist() for name, f1 in evaluation.per_class_f1.items()},
        **{
            PER_CLASS_RECONSTRUCTION + name: values.tolist()
            for name, values in evaluation.per_class_reconstruction.items()
        },
    }


def consensus_panel(
    replicates: list[Replicate],
    n_genes: int,
    k: int,
    panel_constraints: PanelConstraints | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One panel for all replicates, with a score a gene.

    For one replicate its own panel and scores. For several, genes are ranked by their Borda
    count: a gene gets (k - rank) / k from every replicate that chose it (rank from 0), and the
    mean over the replicates, in [0, 1], is its score; ties go to the lower gene index.
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
    """The k genes with the largest Borda count over panels of k ranked genes, and the counts.

    With rules, from :func:`mmlab.constraints.measure.consensus_constraints`, those that hold them with the least sum of
    ranks.
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
    assert chosen is not None  # the panel of each replicate holds them
    return np.concatenate([include, chosen]), scores


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
