"""Wrong labels: which cells get one, and which."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmlab.datasets.cells import Cells
from mmlab.preprocessing.expression import ZScores, dense_blocks
from mmlab.preprocessing.random_streams import Stream, random_stream
from mmlab.preprocessing.splits import Indices, Split
from mmlab.spec.trial import LabelNoise, TrialSpec


def transition_matrix(
    noise: LabelNoise, classes: list[str], x: ZScores, y: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probability of every class in the place of a true one.

    Parameters
    ----------
    noise
        Its kind and, for ``class_dependent``, its matrix.
    classes
        Names by class index.
    x, y
        z-scores (n_cells, n_genes) and true class indices of the training cells: for
        ``pairwise`` the nearest class is the one whose mean is nearest, by Euclidean distance.

    Returns
    -------
    Shape (n_classes, n_classes), a true class a row; rows add up to 1.
    """
    n = len(classes)
    if noise.kind == "uniform":
        return np.full((n, n), 1 / n)
    if noise.kind == "uniform_other":
        return (1 - np.eye(n)) / (n - 1)
    if noise.kind == "pairwise":
        return np.eye(n)[nearest_classes(x, y, n)]
    index = {name: i for i, name in enumerate(classes)}
    matrix = np.eye(n)
    for true, row in noise.matrix.items():
        matrix[index[true]] = 0
        for given, probability in row.items():
            matrix[index[true], index[given]] = probability
    return matrix


def nearest_classes(x: ZScores, y: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """For each class the other one whose mean expression is nearest; shape (n_classes,)."""
    sums, start = np.zeros((n_classes, x.shape[1])), 0
    for block in dense_blocks(x):
        own = y[start : start + len(block)]
        for c in np.unique(own):
            sums[c] += block[own == c].sum(axis=0, dtype=np.float64)
        start += len(block)
    means = sums / np.bincount(y, minlength=n_classes)[:, None]
    squares = (means**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * means @ means.T
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances.argmin(axis=1))


def label_noise_problems(noise: LabelNoise, classes: list[str]) -> list[str]:
    """Classes that a matrix names and the data do not have, a sentence each."""
    named = {*noise.matrix, *(given for row in noise.matrix.values() for given in row)}
    return [
        f"the noise matrix names the class {name!r}, which is none of {', '.join(classes)}"
        for name in sorted(named - set(classes))
    ]


def draw_label_noise(
    y: NDArray[np.int64],
    cells: Indices,
    level: float,
    matrix: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Labels of which a share is drawn anew.

    ``floor(level * len(cells))`` of ``cells`` get a class drawn with the probabilities of their
    true class, so of all labels a share of (1 - level) I + level * matrix is given. With the same
    generator, the cells and wrong labels at a higher level contain those at a lower one.

    Parameters
    ----------
    y
        True class indices of all cells.
    cells
        Indices of those whose labels may be wrong.
    level
        In [0, 1].
    matrix
        From :func:`transition_matrix`.

    Returns
    -------
    A new array of the shape of ``y``; cells outside ``cells`` keep their label.
    """
    order = rng.permutation(np.sort(cells))
    heights = rng.random(len(cells))
    drawn_anew = order[: int(level * len(cells))]
    # Divided by the last, so that a class of probability 0 at the end is never drawn.
    ends = np.cumsum(matrix, axis=1)
    ends /= ends[:, -1:]
    noisy = y.copy()
    above = heights[: len(drawn_anew), None] >= ends[y[drawn_anew], :-1]
    noisy[drawn_anew] = above.sum(axis=1)
    return noisy


def replicate_labels(
    spec: TrialSpec, cells: Cells, split: Split, zscore: ZScores, index: int
) -> NDArray[np.int64]:
    """Class indices of all cells with the wrong labels of a replicate."""
    if spec.noise.level == 0:
        return cells.y
    matrix = transition_matrix(spec.noise, cells.classes, zscore[split.train], cells.y[split.train])
    stream = random_stream(spec.seed, index, Stream.NOISE)
    return draw_label_noise(cells.y, split.train_validation, spec.noise.level, matrix, stream)
