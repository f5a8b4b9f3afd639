"""COSG: genes whose expression is similar to the indicator of one class (cosine similarity)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.errors import UserError
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.class_rankings import merge_rankings
from mmlab.selectors.ranking_selector import RankingSelector
from mmlab.selectors.scanpy_tests import to_anndata

#: Cells per chunk of COSG. Its own default depends on the free memory of the machine.
_CELLS_AT_ONCE = 4096


class Cosg(RankingSelector):
    """Genes with a high cosine similarity to one class and a low one to the others.

    COSG compares the expression of each gene over the cells with the indicator vector of each
    class, and penalises similarity to the other classes. The panel is the best gene of every
    class, then the second best of every class, and so on; within a rank, genes with a higher
    score come first. The score of a gene is its largest COSG score over the classes; on log1p
    values it is in [0, 1].

    Parameters
    ----------
    n_markers
        Size of the panel.
    mu
        Weight of the penalty for expression in other classes, finite, not negative.
    faithful
        Use z-scores instead of log1p values, as the published benchmark did. COSG is not
        designed for their negative values.
    seed
        Not used: the method is deterministic.

    References
    ----------
    Dai et al., "Accurate and fast cell marker gene identification with COSG", Briefings in
    Bioinformatics 2022, methods; Gregory et al. 2024, its use as a baseline.
    """

    layer: ClassVar[Layer] = "log1p"
    libraries: ClassVar[tuple[str, ...]] = ("cosg",)
    summary: ClassVar[str] = (
        "cosine similarity of a gene to one cell type, not to the others (COSG)"
    )
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
        """log1p values; z-scores with ``faithful``."""
        return "zscore" if self.faithful else "log1p"

    def check_params(self) -> None:
        """Raise one ``UserError`` that lists all parameters out of range."""
        if not 0 <= self.mu < math.inf:
            raise UserError(f"mu is {self.mu}, but must be finite and not negative.")

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        scores = cosg_scores(X, np.asarray(y), self.mu)
        ranked = np.argsort(-scores, axis=0, kind="stable")
        strength = np.take_along_axis(scores, ranked, axis=0)
        return merge_rankings(ranked, strength, self.n_markers), scores.max(axis=1)


def cosg_scores(X: Any, y: NDArray[np.int64], mu: float) -> NDArray[np.float64]:
    """Return the COSG scores of all genes, shape (n_genes, n_classes).

    The columns are the classes in ``y``, ascending.

    Parameters
    ----------
    X
        Cells, shape (n_cells, n_genes), dense or CSR.
    y
        Class index of each cell.
    mu
        Weight of the penalty for expression in other classes.
    """
    import cosg

    cells, _ = to_anndata(X if hasattr(X, "tocsr") else np.ascontiguousarray(X), y)
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
