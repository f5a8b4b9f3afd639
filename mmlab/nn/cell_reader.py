"""Training cells that memory does not hold: batches are made while the step before is taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.preprocessing.expression import Expression

#: Batches that are made ahead of the training.
_AHEAD = 4


class CellReader:
    """Cells of a pack's models, (n_models, n_cells, n_genes) float32, made from their counts.

    It has what training uses of a tensor. The values are those that a tensor would hold, so a
    training ends with the same panel wherever its cells are.
    """

    is_cuda = False

    def __init__(self, sources: Sequence[Expression], device: str | torch.device) -> None:
        """``sources`` are the cells of each model, as many of each."""
        self._sources = list(sources)
        self.device = torch.device(device)
        self.shape = (len(sources), *sources[0].shape)
        self._coming: deque[tuple[Tensor, Future[Tensor]]] = deque()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, models: slice) -> CellReader:
        return CellReader(self._sources[models], self.device)

    def new_zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Zeros where batches are."""
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    def ahead(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The batches of indices, each once what it names is being made; take them in order."""
        waiting = iter(batches)
        with ThreadPoolExecutor(1) as pool:
            self._coming = deque()
            for _ in range(_AHEAD):
                self._order(pool, waiting)
            while self._coming:
                yield self._coming[0][0]
                self._order(pool, waiting)

    def _order(self, pool: ThreadPoolExecutor, waiting: Iterator[Tensor]) -> None:
        indices = next(waiting, None)
        if indices is not None:
            self._coming.append((indices, pool.submit(self._make, indices.cpu().numpy())))

    def take(self, indices: Tensor) -> Tensor:
        """Cells ``indices`` (n_models, batch) of each model, (n_models, batch, n_genes)."""
        if self._coming and self._coming[0][0] is indices:
            return self._coming.popleft()[1].result().to(self.device)
        return self._make(indices.cpu().numpy()).to(self.device)

    def _make(self, indices: NDArray[np.int64]) -> Tensor:
        cells = [source[own].toarray() for source, own in zip(self._sources, indices, strict=True)]
        return torch.from_numpy(np.stack(cells))

    def split(self, size: int, dim: int) -> Iterator[Tensor]:
        """Consecutive cells of each model, ``size`` at a time; ``dim`` is 1."""
        cells = np.arange(self.shape[1])
        return self._parts(np.split(cells, cells[size::size]))

    def tensor_split(self, n_parts: int, dim: int) -> Iterator[Tensor]:
        """Consecutive cells of each model in parts of about equal size; ``dim`` is 1."""
        return self._parts(np.array_split(np.arange(self.shape[1]), n_parts))

    def _parts(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        ordered = [torch.from_numpy(part).expand(self.shape[0], -1) for part in parts]
        for indices in self.ahead(ordered):
            yield self.take(indices)


#: Training cells, in memory or not.
CellTensor = Tensor | CellReader
