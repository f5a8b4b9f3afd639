"""Label noise: transition matrices, and the noisy labels of a replicate."""

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
    """Return the probability of each new label, given the true class.

    Parameters
    ----------
    noise
        Kind of the label noise and, for ``class_dependent``, its matrix.
    classes
        Class names by class index.
    x, y
        z-scores (n_cells, n_genes) and true class indices (n_cells,) of the training cells. Only
        ``pairwise`` uses them: its new label is the class with the nearest mean, by Euclidean
        distance.

    Returns
    -------
    float64 of shape (n_classes, n_classes), one row per true class; each row sums to 1.
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
        for new, probability in row.items():
            matrix[index[true], index[new]] = probability
    return matrix


def nearest_classes(x: ZScores, y: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Return for each class the other class with the nearest mean expression.

    Distances are Euclidean; the result has shape (n_classes,).
    """
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
    """Return a message for each class of the noise matrix that the data do not have."""
    listed = {*noise.matrix, *(new for row in noise.matrix.values() for new in row)}
    return [
        f"class {name!r} of the noise matrix is not in the data; classes: {', '.join(classes)}"
        for name in sorted(listed - set(classes))
    ]


def draw_label_noise(
    y: NDArray[np.int64],
    cells: Indices,
    level: float,
    matrix: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return labels of which a fraction is replaced by randomly drawn labels.

    ``floor(level * len(cells))`` randomly chosen cells of ``cells`` get a label drawn with the
    probabilities of their true class, so the expected confusion of the labels of ``cells`` is
    (1 - level) I + level * matrix. The noise is nested: with generators of the same state, every
    label drawn at a lower level is also drawn, with the same value, at a higher level.

    Parameters
    ----------
    y
        True class indices of all cells, shape (n_cells,).
    cells
        Indices of the cells that may get a noisy label; their order does not matter.
    level
        Noise level, in [0, 1].
    matrix
        Transition probabilities from :func:`transition_matrix`.

    Returns
    -------
    A new array of the shape of ``y``; cells outside ``cells`` keep their label.
    """
    order = rng.permutation(np.sort(cells))
    uniform = rng.random(len(cells))
    relabelled = order[: int(level * len(cells))]
    # Inverse transform sampling. Dividing by the last sum ensures that a last class of
    # probability 0 is never drawn.
    cumulative = np.cumsum(matrix, axis=1)
    cumulative /= cumulative[:, -1:]
    noisy = y.copy()
    exceeded = uniform[: len(relabelled), None] >= cumulative[y[relabelled], :-1]
    noisy[relabelled] = exceeded.sum(axis=1)
    return noisy


def replicate_labels(
    spec: TrialSpec, cells: Cells, split: Split, zscore: ZScores, index: int
) -> NDArray[np.int64]:
    """Return the class indices of all cells with the label noise of a replicate."""
    if spec.noise.level == 0:
        return cells.y
    matrix = transition_matrix(spec.noise, cells.classes, zscore[split.train], cells.y[split.train])
    stream = random_stream(spec.seed, index, Stream.NOISE)
    return draw_label_noise(cells.y, split.train_validation, spec.noise.level, matrix, stream)
