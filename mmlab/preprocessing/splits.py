"""Which cells train, validate and test."""

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
    TRAIN_SHARE,
    VALIDATION_SHARE,
)
from mmlab.spec.trial import TrialSpec

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Disjoint cell indices, int64.

    Raises
    ------
    UserError
        A cell is in two of the parts.
    """

    train: Indices
    validation: Indices
    test: Indices

    def __post_init__(self) -> None:
        dealt = np.concatenate([self.train, self.validation, self.test])
        if len(np.unique(dealt)) == len(dealt):
            return
        names = ("train", "validation", "test")
        for one, other in combinations(names, 2):
            shared = np.intersect1d(getattr(self, one), getattr(self, other))
            if len(shared):
                raise UserError(
                    f"{len(shared)} cells are in {one} and in {other}, first cell {shared[0]}: "
                    "what is measured on them would say nothing."
                )
        raise UserError("a cell is twice in one part of the split.")

    @property
    def train_validation(self) -> Indices:
        """Train cells, then validation cells."""
        return np.concatenate([self.train, self.validation])


def partition(
    y: NDArray[np.int64],
    cells: Indices,
    sizes: Sequence[int],
    minimum: Sequence[int],
    rng: np.random.Generator,
) -> list[Indices]:
    """Deal ``cells`` into parts of given sizes that each hold some cells of every class.

    As in the code of Gregory et al. 2024: for each part, for each class, ``minimum`` cells
    are reserved; the rest is shuffled once and fills the parts in order. Beyond the minimum
    the parts are not stratified.

    Parameters
    ----------
    y
        Class index of all cells, shape (n_cells,).
    cells
        The cells to deal out.
    sizes
        Cells of each part; they add up to ``len(cells)``.
    minimum
        Cells of every class that each part gets at least.

    Raises
    ------
    UserError
        A class has too few cells, or a part is too small for its minimum of every class.
    """
    classes = np.unique(y[cells])
    for size, least in zip(sizes, minimum, strict=True):
        if size < least * len(classes):
            raise UserError(
                f"a part of {size} cells cannot hold {least} cells of each of {len(classes)} "
                f"classes: {len(cells)} cells are too few for a 70/10/20 split."
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
    for size, kept in zip(sizes, reserved, strict=True):
        own = np.concatenate(kept)
        end = start + size - len(own)
        parts.append(np.concatenate([rest[start:end], own]))
        start = end
    return parts


def subsample(n: int, most: int) -> Indices:
    """Positions of all of ``n`` cells of a part of a split or, of more than ``most``, of so many.

    The order within a part is random, but for the cells that are reserved for each class, which
    come last: the first half and the last half are a random sample with every class.
    """
    if n <= most:
        return np.arange(n)
    return np.concatenate([np.arange(most // 2), np.arange(n - (most - most // 2), n)])


def sampling_note(n_cells: int) -> str:
    """What is judged on a sample of so many cells, in a sentence; empty where nothing is."""
    n_fitted = int(TRAIN_SHARE * n_cells) + int(VALIDATION_SHARE * n_cells)
    if n_fitted <= MAX_FIT_CELLS and n_cells - n_fitted <= MAX_EVALUATION_CELLS:
        return ""
    return (
        f"Methods see all cells of a split; classifiers and regressions are fitted on at most "
        f"{MAX_FIT_CELLS:,} of them and judged on at most {MAX_EVALUATION_CELLS:,}, the same random ones for "
        "every method."
    )


def split_problems(y: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    """Everything that keeps labelled cells from being split, a sentence each."""
    return [
        f"class {name!r} has {size} cells, fewer than the {MIN_CELLS_PER_CLASS} that the split "
        "needs"
        for name, size in zip(classes, np.bincount(y, minlength=len(classes)), strict=True)
        if size < MIN_CELLS_PER_CLASS
    ]


def paper_split(y: NDArray[np.int64], rng: np.random.Generator) -> Split:
    """Random 70/10/20 split of all cells, at least 2/1/1 cells of every class."""
    n = len(y)
    n_train, n_validation = int(TRAIN_SHARE * n), int(VALIDATION_SHARE * n)
    sizes = (n_train, n_validation, n - n_train - n_validation)
    return Split(*partition(y, np.arange(n), sizes, MIN_CELLS_PER_PART, rng))


def search_split(y: NDArray[np.int64], fingerprint: str, rng: np.random.Generator) -> Split:
    """Random train and validation cells beside a test set that the data alone fix.

    The test set (20 % of the cells) depends on ``fingerprint`` and nothing else: it is the
    same for every trial of every search, and none of them may look at it.
    """
    n = len(y)
    n_train, n_validation = int(TRAIN_SHARE * n), int(VALIDATION_SHARE * n)
    locked = np.random.default_rng(int(fingerprint, 16))
    n_open = n_train + n_validation
    seen, test = partition(
        y, np.arange(n), (n_open, n - n_open), (sum(MIN_CELLS_PER_PART[:2]), 1), locked
    )
    train, validation = partition(y, seen, (n_train, n_validation), MIN_CELLS_PER_PART[:2], rng)
    return Split(train, validation, test)


def replicate_split(spec: TrialSpec, cells: Cells, replicate: int) -> Split:
    """The cells of a replicate, by the protocol of its trial."""
    rng = random_stream(spec.seed, replicate, Stream.SPLIT)
    if spec.protocol == "paper":
        return paper_split(cells.y, rng)
    return search_split(cells.y, cells.fingerprint, rng)
