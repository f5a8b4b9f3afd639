"""Large cells for the workers of a cluster: each node keeps its own copy of their counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mmlab.datasets.cache.cache_paths import counts_path
from mmlab.datasets.cache.cached_counts import CachedCells, install_counts, open_cells
from mmlab.datasets.cache.records import CacheRecord
from mmlab.datasets.cells import Cells
from mmlab.errors import UserError

#: Bytes that are sent at once.
_BLOCK = 64 * 2**20


class _CountsServer:
    """Reads the file of the counts on the driver's machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, start: int) -> bytes:
        """Return the block at an offset in bytes; empty at the end of the file."""
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(_BLOCK)


@dataclass(frozen=True)
class SharedCells:
    """Cells whose counts a worker copies from the driver, if its node has not got them."""

    record: CacheRecord
    server: Any

    def open(self) -> Cells:
        """Return the cells, with the counts mapped into memory.

        Raises
        ------
        OSError
            The counts cannot be copied to the cache of this node.
        """
        try:
            install_counts(self.record, self._blocks())
            return open_cells(self.record)
        except UserError as error:
            # It is the fault of this machine, not of the trial.
            raise OSError(str(error)) from error

    def _blocks(self) -> Iterator[bytes]:
        start = 0
        while block := ray.get(self.server.read.remote(start)):
            yield block
            start += len(block)


def share_cells(cells: Cells, address: str | None) -> Cells | SharedCells:
    """Return what is sent to the workers of the Ray cluster at ``address`` (None: this machine)."""
    if address is None or not cells.is_reopened or not isinstance(cells.reopen, CachedCells):
        return cells
    record = cells.reopen.record
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    server: Any = ray.remote(_CountsServer)
    placed = server.options(num_cpus=0, scheduling_strategy=here)
    return SharedCells(record, placed.remote(counts_path(record.sha256)))
