"""Evaluation protocols: train, validation and test sets, and their minimum cells per class."""

from __future__ import annotations

from typing import Literal

#: Part of every digest. Increase it when a change of the code changes results.
PROTOCOL_NUMBER = 2

#: Cells from which gene statistics (mean, standard deviation) are computed: ``train_only`` uses
#: the training cells, ``paper`` all cells.
Recipe = Literal["train_only", "paper"]

#: ``paper``: random 70/10/20 splits of all cells, evaluated on the test cells. ``search``: 20 % of
#: the cells are a held-out test set, the same for every search; methods are evaluated on the
#: validation cells. ``locked``: splits as in ``search``, evaluated on the held-out test set.
Protocol = Literal["paper", "search", "locked"]

#: Fractions of the cells; the remaining cells are the test set.
TRAIN_FRACTION = 0.7
VALIDATION_FRACTION = 0.1

#: Minimum number of cells of each class in the train, validation and test sets.
MIN_CELLS_PER_PART = (2, 1, 1)

MIN_CELLS_PER_CLASS = sum(MIN_CELLS_PER_PART)

#: Maximum number of cells that classifiers and regressions are fitted on and evaluated on.
#: Larger splits are subsampled.
MAX_FIT_CELLS, MAX_EVALUATION_CELLS = 50_000, 10_000
