"""Independent random generators for each replicate, derived from one seed."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The independent random streams of one replicate."""

    SPLIT = 0
    NOISE = 1
    SELECTOR = 2
    EVALUATION = 3


def random_stream(seed: int, replicate: int, stream: Stream) -> np.random.Generator:
    """Return the generator of a stream; it depends only on the three arguments."""
    sequence = np.random.SeedSequence(seed, spawn_key=(replicate, int(stream)))
    return np.random.default_rng(sequence)
