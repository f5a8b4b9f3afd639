"""Controls: panels that bound every metric from below and from above."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.errors import UserError
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.base import Selector
from mmlab.selectors.direct import DirectSelector
from mmlab.selectors.scanpy_tests import ScanpyTTest
from mmlab.selectors.training_data import TrainingData

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch


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
    #: Of the cells nothing but their number of genes is asked.
    reads_from_disk: ClassVar[bool] = True
    is_control: ClassVar[bool] = True
    summary: ClassVar[str] = "uniformly random genes: what every method has to beat"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        order = np.random.default_rng(self.seed).permutation(X.shape[1])
        scores = np.empty(len(order))
        scores[order] = np.linspace(1, 0, len(order))
        return order, scores


class Oracle(Selector):
    """The true markers, where they are known; random genes fill the panel.

    Parameters
    ----------
    n_markers
        Size of the panel; of more true markers a random part is taken.
    markers
        Indices of the true markers.
    seed
        Of the order of the true markers and of what fills the panel.
    """

    layer: ClassVar[Layer] = "counts"
    supervised: ClassVar[bool] = False
    #: Of the cells nothing but their number of genes is asked.
    reads_from_disk: ClassVar[bool] = True
    is_control: ClassVar[bool] = True
    summary: ClassVar[str] = "the true markers of simulated data: about the best there is"

    def __init__(self, n_markers: int = 50, *, markers: Sequence[int] = (), seed: int = 0) -> None:
        self.n_markers = n_markers
        self.markers = markers
        self.seed = seed

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Set the panel; see :meth:`mmlab.selectors.base.Selector.run`."""
        n_genes = data.x.shape[1]
        if not len(self.markers) or not 0 <= min(self.markers) <= max(self.markers) < n_genes:
            raise UserError(
                f"the oracle needs the true markers, indices from 0 to {n_genes - 1}; it got "
                f"{list(self.markers)[:5]}."
            )
        true = np.zeros(n_genes, dtype=bool)
        true[np.asarray(self.markers)] = True
        order = np.random.default_rng(self.seed).permutation(data.allowed)
        ranking = np.concatenate([order[true[order]], order[~true[order]]])
        self._set_panel(ranking, true, data)
        yield from ()


class AllGenes(DirectSelector):
    """Every gene: what is lost by measuring a panel at all.

    Parameters
    ----------
    n_markers
        The number of genes of the data; a trial sets it by itself.
    seed
        Not used.
    """

    layer: ClassVar[Layer] = "counts"
    supervised: ClassVar[bool] = False
    #: Of the cells nothing but their number of genes is asked.
    reads_from_disk: ClassVar[bool] = True
    is_control: ClassVar[bool] = True
    takes_all_genes: ClassVar[bool] = True
    summary: ClassVar[str] = "all genes instead of a panel"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _select(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        return np.arange(X.shape[1]), np.ones(X.shape[1])


class ShuffledLabels(ScanpyTTest):
    """Scanpy's t-test and classifiers on labels that were shuffled among the cells: chance.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Of the shuffling.
    """

    is_control: ClassVar[bool] = True
    summary: ClassVar[str] = "t-test and classifiers on shuffled labels: what chance gives"
    reference: ClassVar[str] = ""

    def shuffle(self, y: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels ``y`` with those of ``cells`` permuted; the pipeline fits all on these."""
        shuffled = y.copy()
        shuffled[cells] = np.random.default_rng(self.seed).permutation(y[cells])
        return shuffled
