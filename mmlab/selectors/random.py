"""The control that every method has to beat: a random panel."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.selectors.base import DirectSelector, Layer


class RandomSelector(DirectSelector):
    """The first ``n_markers`` genes of a uniform permutation.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Of the permutation.
    """

    layer: ClassVar[Layer] = "counts"
    supervised: ClassVar[bool] = False
    summary: ClassVar[str] = "uniformly random genes: the control that bounds every method"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        order = np.random.default_rng(self.seed).permutation(X.shape[1])
        scores = np.empty(len(order))
        scores[order] = np.linspace(1, 0, len(order))
        return order[: self.n_markers], scores
