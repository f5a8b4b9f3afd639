"""Selectors without epochs: one call ranks the genes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmlab.selectors.base import Selector
from mmlab.selectors.training_data import (
    TrainingData,
)

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch


class DirectSelector(Selector):
    """A selector without epochs: one call ranks the genes.

    Excluded genes are taken out before the method sees the cells. Genes to include stay in:
    they head the panel, and the method's own ranking fills it, within the rules.
    """

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Set the panel; see :meth:`mmlab.selectors.base.Selector.run`."""
        if not len(data.exclude):
            ranking, scores = self._select(data.x, data.y)
        else:
            allowed = data.allowed
            chosen, own = self._select(data.x[:, allowed], data.y)
            ranking = allowed[np.asarray(chosen)]
            scores = np.full(data.x.shape[1], np.min(own), dtype=np.float64)
            scores[allowed] = own
        self._set_panel(ranking, scores, data)
        yield from ()

    @abstractmethod
    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        """Return at least ``n_markers`` distinct genes, best first, and a score a gene."""
