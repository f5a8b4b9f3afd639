"""Control methods, which bound the metrics of the others from below and from above."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mmlab.errors import UserError
from mmlab.preprocessing.normalization import Layer
from mmlab.selectors.base import Selector
from mmlab.selectors.ranking_selector import RankingSelector
from mmlab.selectors.scanpy_tests import ScanpyTTest
from mmlab.selectors.training_data import TrainingData

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch


class RandomSelector(RankingSelector):
    """Uniformly random genes: the first ``n_markers`` of a random permutation.

    The scores fall evenly from 1 for the first gene of the permutation to 0 for the last.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Seed of the permutation. With the same seed, smaller panels are part of larger ones.
    """

    layer: ClassVar[Layer] = "counts"
    supervised: ClassVar[bool] = False
    #: Only the number of genes is read from the cells.
    reads_from_disk: ClassVar[bool] = True
    is_control: ClassVar[bool] = True
    summary: ClassVar[str] = "control: uniformly random genes"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        order = np.random.default_rng(self.seed).permutation(X.shape[1])
        scores = np.empty(len(order))
        scores[order] = np.linspace(1, 0, len(order))
        return order, scores


class Oracle(Selector):
    """The true markers of simulated data, about the best panel possible.

    If there are fewer true markers than ``n_markers``, random other genes follow; if there are
    more, a random subset of them is the panel. The score is 1 for a true marker and 0 for
    another gene.

    Parameters
    ----------
    n_markers
        Size of the panel.
    markers
        Gene indices of the true markers. A trial reads them from the data, which must be
        simulated.
    seed
        Seed of the order of the true markers and of the random other genes.
    """

    layer: ClassVar[Layer] = "counts"
    supervised: ClassVar[bool] = False
    #: Only the number of genes is read from the cells.
    reads_from_disk: ClassVar[bool] = True
    is_control: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "control: the true markers of simulated data, about the best possible panel"
    )

    def __init__(self, n_markers: int = 50, *, markers: Sequence[int] = (), seed: int = 0) -> None:
        self.n_markers = n_markers
        self.markers = markers
        self.seed = seed

    def run(self, data: TrainingData) -> Iterator[Epoch]:
        """Choose the panel; see :meth:`mmlab.selectors.base.Selector.run`."""
        n_genes = data.x.shape[1]
        if not len(self.markers) or not 0 <= min(self.markers) <= max(self.markers) < n_genes:
            raise UserError(
                f"the oracle needs the true markers, indices from 0 to {n_genes - 1}, but markers "
                f"begins with {list(self.markers)[:5]}."
            )
        true = np.zeros(n_genes, dtype=bool)
        true[np.asarray(self.markers)] = True
        order = np.random.default_rng(self.seed).permutation(data.allowed)
        ranking = np.concatenate([order[true[order]], order[~true[order]]])
        self._set_panel(ranking, true, data)
        yield from ()


class AllGenes(RankingSelector):
    """All genes instead of a panel: shows how much any panel loses.

    All scores are 1.

    Parameters
    ----------
    n_markers
        The number of genes of the data; a trial sets it automatically.
    seed
        Not used: the method is deterministic.
    """

    layer: ClassVar[Layer] = "counts"
    supervised: ClassVar[bool] = False
    #: Only the number of genes is read from the cells.
    reads_from_disk: ClassVar[bool] = True
    is_control: ClassVar[bool] = True
    takes_all_genes: ClassVar[bool] = True
    summary: ClassVar[str] = "control: all genes instead of a panel"

    def __init__(self, n_markers: int = 50, *, seed: int = 0) -> None:
        self.n_markers = n_markers
        self.seed = seed

    def _rank_genes(self, X: Any, y: NDArray[np.int64] | None) -> tuple[Any, Any]:
        return np.arange(X.shape[1]), np.ones(X.shape[1])


class ShuffledLabels(ScanpyTTest):
    """Welch's t-test and classifiers on labels shuffled among the cells: the chance level.

    Both the panel (as ``scanpy_t_test`` chooses it) and the classifiers that evaluate it are
    fitted on the shuffled labels. The score of a gene is its largest t statistic over the
    classes.

    Parameters
    ----------
    n_markers
        Size of the panel.
    seed
        Seed of the permutation of the labels.
    """

    is_control: ClassVar[bool] = True
    summary: ClassVar[str] = "control: t-test and classifiers on shuffled labels, the chance level"
    reference: ClassVar[str] = ""

    def shuffle(self, y: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a copy of the labels ``y`` with those of the cell indices ``cells`` permuted."""
        shuffled = y.copy()
        shuffled[cells] = np.random.default_rng(self.seed).permutation(y[cells])
        return shuffled
