"""COSG: genes whose expression points in the direction of one class alone."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.errors import UserError
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.class_rankings import merge_rankings
from mmlab.selectors.direct import DirectSelector
from mmlab.selectors.scanpy_tests import one_against_rest

#: Cells that COSG sums at a time; by default it depends on the memory of the machine.
_CELLS_AT_ONCE = 4096


class Cosg(DirectSelector):
    """Cosine similarity of each gene with each class, less what it shares with the others.

    The panel takes the best gene of every class, then the second best, ...
    (:func:`mmlab.selectors.class_rankings.merge_rankings`, ties by score). The score of a gene is its
    largest COSG score over the classes; on log1p values it is in [0, 1].

    Parameters
    ----------
    n_markers
        Size of the panel.
    mu
        Weight of the penalty for expression in other classes, not negative, without unit.
    faithful
        As the published benchmark: on z-scores, whose negative values COSG is not made for,
        instead of on log1p values.
    seed
        Not used: the method is deterministic.

    References
    ----------
    Dai et al., "Accurate and fast cell marker gene identification with COSG", Briefings in
    Bioinformatics 2022, methods; Gregory et al. 2024, its use as a baseline.
    """

    layer: ClassVar[Layer] = "log1p"
    summary: ClassVar[str] = "cosine similarity with each type (COSG)"
    reference: ClassVar[str] = "Dai et al., Briefings in Bioinformatics 2022"

    def __init__(
        self, n_markers: int = 50, *, mu: float = 1.0, faithful: bool = False, seed: int = 0
    ) -> None:
        self.n_markers = n_markers
        self.mu = mu
        self.faithful = faithful
        self.seed = seed

    @property
    def input_layer(self) -> Layer:
        """log1p values; z-scores where the published benchmark is followed."""
        return "zscore" if self.faithful else "log1p"

    def check_params(self) -> None:
        """Raise one error with every parameter that is out of its range."""
        if not 0 <= self.mu < math.inf:
            raise UserError(f"mu is {self.mu}, but must be finite and not negative.")

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        scores = cosg_scores(X, np.asarray(y), self.mu)
        ranked = np.argsort(-scores, axis=0, kind="stable")
        strength = np.take_along_axis(scores, ranked, axis=0)
        return merge_rankings(ranked, strength, self.n_markers), scores.max(axis=1)


def cosg_scores(X: Any, y: NDArray[np.int64], mu: float) -> NDArray[np.float64]:
    """COSG scores of all genes, shape (n_genes, n_classes), a column for each class in ``y``.

    Parameters
    ----------
    X
        Cells, shape (n_cells, n_genes), dense or CSR.
    y
        Class of each cell.
    mu
        Weight of the penalty for expression in other classes.
    """
    import cosg

    cells, _ = one_against_rest(X if hasattr(X, "tocsr") else np.ascontiguousarray(X), y)
    cosg.cosg(
        cells,
        groupby="y",
        mu=mu,
        remove_lowly_expressed=False,
        n_genes_user=X.shape[1],
        use_raw=False,
        return_by_group=False,
        cpu_chunk_size=_CELLS_AT_ONCE,
    )
    names, values = (cells.uns["cosg"][key] for key in ("names", "scores"))
    scores = np.empty((X.shape[1], len(names.dtype.names)))
    for column, group in enumerate(names.dtype.names):
        scores[names[group].astype(np.int64), column] = values[group]
    return scores
