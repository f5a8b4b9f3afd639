"""Train, validation and test splits of the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mmlab.datasets.cells import Cells
from mmlab.errors import UserError
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.spec.protocol import (
    MAX_EVALUATION_CELLS,
    MAX_FIT_CELLS,
    MIN_CELLS_PER_CLASS,
    MIN_CELLS_PER_PART,
    TRAIN_FRACTION,
    VALIDATION_FRACTION,
)
from mmlab.spec.trial import TrialSpec

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Disjoint train, validation and test sets: int64 cell indices.

    Raises
    ------
    UserError
        A cell occurs more than once.
    """

    train: Indices
    validation: Indices
    test: Indices

    def __post_init__(self) -> None:
        cells = np.concatenate([self.train, self.validation, self.test])
        if len(np.unique(cells)) == len(cells):
            return
        names = ("train", "validation", "test")
        for one, other in combinations(names, 2):
            shared = np.intersect1d(getattr(self, one), getattr(self, other))
            if len(shared):
                raise UserError(
                    f"{len(shared)} cells are in both {one} and {other}, the first is cell "
                    f"{shared[0]}; the sets of a split must be disjoint."
                )
        raise UserError("a cell occurs twice in the same set of the split.")

    @property
    def train_validation(self) -> Indices:
        """Indices of the train cells followed by the validation cells."""
        return np.concatenate([self.train, self.validation])


def partition(
    y: NDArray[np.int64],
    cells: Indices,
    sizes: Sequence[int],
    minimum: Sequence[int],
    rng: np.random.Generator,
) -> list[Indices]:
    """Partition ``cells`` randomly into parts of given sizes with a minimum of every class.

    As in the code of Gregory et al. 2024: ``minimum`` cells of each class are reserved for each
    part; the remaining cells are shuffled once and fill the parts in order. Beyond the minimum
    the parts are not stratified.

    Parameters
    ----------
    y
        Class index of all cells, shape (n_cells,).
    cells
        Indices of the cells to partition.
    sizes
        Number of cells of each part; their sum is ``len(cells)``.
    minimum
        Minimum number of cells of each class in each part.

    Returns
    -------
    Cell indices of each part. The reserved cells come last, after the shuffled ones.

    Raises
    ------
    UserError
        A class has too few cells, or a part is too small for its minimum of every class.
    """
    classes = np.unique(y[cells])
    for size, least in zip(sizes, minimum, strict=True):
        if size < least * len(classes):
            raise UserError(
                f"a part of {size} cells is too small for {len(classes)} classes with at least "
                f"{least} cells each: {len(cells)} cells are too few for a 70/10/20 split."
            )
    pools = {c: rng.permutation(cells[y[cells] == c]) for c in classes}
    reserved: list[list[Indices]] = [[] for _ in sizes]
    for part, least in zip(reserved, minimum, strict=True):
        for c in classes:
            if len(pools[c]) < least:
                raise UserError(
                    f"class {c} has {int((y[cells] == c).sum())} cells, fewer than the "
                    f"{sum(minimum)} that the split needs."
                )
            part.append(pools[c][:least])
            pools[c] = pools[c][least:]
    rest = rng.permutation(np.concatenate(list(pools.values())))
    parts, start = [], 0
    for size, by_class in zip(sizes, reserved, strict=True):
        own = np.concatenate(by_class)
        end = start + size - len(own)
        parts.append(np.concatenate([rest[start:end], own]))
        start = end
    return parts


def subsample(n: int, maximum: int) -> Indices:
    """Return the positions of at most ``maximum`` of the ``n`` cells of a part of a split.

    These are the first and the last ``maximum / 2`` cells. A part is in random order, except
    that the cells reserved for each class come last (see :func:`partition`). The positions are
    therefore a random sample that includes every class.
    """
    if n <= maximum:
        return np.arange(n)
    return np.concatenate([np.arange(maximum // 2), np.arange(n - (maximum - maximum // 2), n)])


def sampling_note(n_cells: int) -> str:
    """Return a note for reports if splits of ``n_cells`` cells are subsampled, otherwise ""."""
    n_fitted = int(TRAIN_FRACTION * n_cells) + int(VALIDATION_FRACTION * n_cells)
    if n_fitted <= MAX_FIT_CELLS and n_cells - n_fitted <= MAX_EVALUATION_CELLS:
        return ""
    return (
        f"Methods use all cells of a split. Classifiers and regressions are fitted on at most "
        f"{MAX_FIT_CELLS:,} cells and evaluated on at most {MAX_EVALUATION_CELLS:,}; these "
        "random cells are the same for every method."
    )


def split_problems(y: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    """Return a message for each class with too few cells for a split."""
    return [
        f"class {name!r} has {size} cells, fewer than the {MIN_CELLS_PER_CLASS} that the split "
        "needs"
        for name, size in zip(classes, np.bincount(y, minlength=len(classes)), strict=True)
        if size < MIN_CELLS_PER_CLASS
    ]


def n_training_cells(n_cells: int) -> int:
    """Return the number of training cells of every split of ``n_cells`` cells."""
    return int(TRAIN_FRACTION * n_cells)


def paper_split(y: NDArray[np.int64], rng: np.random.Generator) -> Split:
    """Return a random 70/10/20 split of all cells with at least 2/1/1 cells of every class."""
    n = len(y)
    n_train, n_validation = n_training_cells(n), int(VALIDATION_FRACTION * n)
    sizes = (n_train, n_validation, n - n_train - n_validation)
    return Split(*partition(y, np.arange(n), sizes, MIN_CELLS_PER_PART, rng))


def search_split(y: NDArray[np.int64], fingerprint: str, rng: np.random.Generator) -> Split:
    """Return a split with random train and validation sets and a fixed held-out test set.

    The test set (20 % of the cells) depends only on the data (``y`` and ``fingerprint``): it is
    the same for every trial of every search, and no search uses it.
    """
    n = len(y)
    n_train, n_validation = n_training_cells(n), int(VALIDATION_FRACTION * n)
    test_rng = np.random.default_rng(int(fingerprint, 16))
    n_search = n_train + n_validation
    search, test = partition(
        y, np.arange(n), (n_search, n - n_search), (sum(MIN_CELLS_PER_PART[:2]), 1), test_rng
    )
    train, validation = partition(y, search, (n_train, n_validation), MIN_CELLS_PER_PART[:2], rng)
    return Split(train, validation, test)


def replicate_split(spec: TrialSpec, cells: Cells, replicate: int) -> Split:
    """Return the split of a replicate, by the protocol of its trial."""
    rng = random_stream(spec.seed, replicate, Stream.SPLIT)
    if spec.protocol == "paper":
        return paper_split(cells.y, rng)
    return search_split(cells.y, cells.fingerprint, rng)
