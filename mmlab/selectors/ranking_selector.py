"""Base class of the methods that rank all genes in one call, without epochs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmlab.selectors.base import Selector
from mmlab.selectors.training_data import TrainingData

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch


class RankingSelector(Selector):
    """Base class of the methods that rank all genes in one call, without epochs.

    A subclass implements ``_rank_genes``. Excluded genes are removed from the cells before the
    call. Included genes stay in the cells; they come first in the panel, and the ranking fills
    the rest of it, as far as the rules allow.
    """

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Set ``panel_`` and ``scores_`` from the ranking; yield no epoch."""
        if not len(data.exclude):
            ranking, scores = self._rank_genes(data.x, data.y)
        else:
            allowed = data.allowed
            ranked, allowed_scores = self._rank_genes(data.x[:, allowed], data.y)
            ranking = allowed[np.asarray(ranked)]
            scores = np.full(data.x.shape[1], np.min(allowed_scores), dtype=np.float64)
            scores[allowed] = allowed_scores
        self._set_panel(ranking, scores, data)
        yield from ()

    @abstractmethod
    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        """Return a ranking of the genes and their scores.

        Parameters
        ----------
        X
            Cells, shape (n_cells, n_genes), float32, dense or CSR.
        y
            Class index of each cell; None without labels.

        Returns
        -------
        ranking
            At least ``n_markers`` distinct column indices of ``X``, best first.
        scores
            One finite score per column, higher is better.
        """
