"""Number of trials of a round that run at the same time, as nodes join and leave the cluster."""

from __future__ import annotations

import time
from typing import Any

from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter, Searcher

from mmlab.schedule.driver_callback import DriverCallback
from mmlab.schedule.ray_cluster import RayCluster

#: Seconds after which the nodes are counted again.
_INTERVAL = 5.0


class ElasticLimit(DriverCallback):
    """Tune callback that lets as many trials run as fit on the nodes that there are.

    Attributes
    ----------
    search_algorithm
        What Tune is to take its trials from.
    """

    search_algorithm: BasicVariantGenerator | ConcurrencyLimiter

    def __init__(self, cluster: RayCluster, searcher: Searcher | None = None) -> None:
        """Limit a searcher or, without one, the variants of Tune's parameter space."""
        self._cluster = cluster
        if searcher is None:
            self.search_algorithm = BasicVariantGenerator(max_concurrent=cluster.max_slots)
        else:
            self.search_algorithm = ConcurrencyLimiter(searcher, cluster.max_slots)
        self._counted_at = time.monotonic()

    def on_step_begin(self, iteration: int, trials: Any, **_: Any) -> None:
        """Count the nodes again, from time to time."""
        if time.monotonic() - self._counted_at >= _INTERVAL:
            self.search_algorithm.max_concurrent = self._cluster.max_slots
            self._counted_at = time.monotonic()
