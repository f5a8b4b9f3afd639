"""The protocols: which cells train, validate and test, and how many of each class."""

from __future__ import annotations

from typing import Literal

#: Raised whenever a change of the code changes results: it is part of every digest.
PROTOCOL_NUMBER = 1


Recipe = Literal["train_only", "paper"]


#: ``paper``: random 70/10/20 splits of all cells. ``search``: 20 % of the cells are locked, the
#: same ones for every search; methods are judged on validation cells. ``locked``: as in a search,
#: but judged on the locked cells.
Protocol = Literal["paper", "search", "locked"]


TRAIN_SHARE = 0.7


VALIDATION_SHARE = 0.1


#: Cells of every class that train, validation and test get at least.
MIN_CELLS_PER_PART = (2, 1, 1)


MIN_CELLS_PER_CLASS = sum(MIN_CELLS_PER_PART)


#: Of larger splits so many cells are what classifiers and regressions are fitted and judged on.
MAX_FIT_CELLS, MAX_EVALUATION_CELLS = 50_000, 10_000
