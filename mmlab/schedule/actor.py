"""Base class of the Ray actors that run trials."""

from __future__ import annotations

from typing import Any

import torch
from ray import tune
from threadpoolctl import threadpool_limits

from mmlab.datasets.cells import Cells


class Actor(tune.Trainable):
    """A Ray actor that Tune reuses for one configuration after another.

    A subclass starts the work on a configuration in ``_start``, which must replace all state left
    by the previous one.
    """

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        """Limit the CPU threads and start the first configuration.

        ``shared`` is what ``tune.with_parameters`` passes to every actor: ``cells`` (from Ray's
        object store), ``threads`` (number of CPU threads), and whatever the subclass needs.
        """
        self.cells: Cells = shared["cells"]
        torch.set_num_threads(shared["threads"])
        self._limits = threadpool_limits(limits=shared["threads"])
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next configuration."""
        self._start(new_config)
        return True

    def _start(self, config: dict[str, Any]) -> None:
        raise NotImplementedError
