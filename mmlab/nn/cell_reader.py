"""Training cells that do not fit in memory: a background thread prefetches the minibatches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlab.preprocessing.expression import Expression

#: Number of minibatches that are loaded in advance.
_N_PREFETCHED = 4


class CellReader:
    """Training cells read on demand, with the shape (n_models, n_cells, n_genes), float32.

    It implements the part of the tensor interface that training uses. The values equal those of
    a tensor in memory, so training gives the same panel with either.
    """

    is_cuda = False

    def __init__(self, sources: Sequence[Expression], device: str | torch.device) -> None:
        """``sources`` are the cells of each model, the same number for every model."""
        self._sources = list(sources)
        self.device = torch.device(device)
        self.shape = (len(sources), *sources[0].shape)
        self._prefetched: deque[tuple[Tensor, Future[Tensor]]] = deque()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, models: slice) -> CellReader:
        return CellReader(self._sources[models], self.device)

    def new_zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return a tensor of zeros on the device of the minibatches."""
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    def prefetch(self, minibatches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the minibatches of cell indices while their cells are loaded in the background.

        Pass each yielded tensor to :meth:`gather` before requesting the next one.
        """
        remaining = iter(minibatches)
        with ThreadPoolExecutor(1) as pool:
            self._prefetched = deque()
            for _ in range(_N_PREFETCHED):
                self._submit_next(pool, remaining)
            while self._prefetched:
                yield self._prefetched[0][0]
                self._submit_next(pool, remaining)

    def _submit_next(self, pool: ThreadPoolExecutor, remaining: Iterator[Tensor]) -> None:
        indices = next(remaining, None)
        if indices is not None:
            self._prefetched.append((indices, pool.submit(self._load, indices.cpu().numpy())))

    def gather(self, indices: Tensor) -> Tensor:
        """Return the cells ``indices`` (n_models, batch): shape (n_models, batch, n_genes)."""
        if self._prefetched and self._prefetched[0][0] is indices:
            return self._prefetched.popleft()[1].result().to(self.device)
        return self._load(indices.cpu().numpy()).to(self.device)

    def _load(self, indices: NDArray[np.int64]) -> Tensor:
        cells = [
            source[selected].toarray()
            for source, selected in zip(self._sources, indices, strict=True)
        ]
        return torch.from_numpy(np.stack(cells))

    def split(self, size: int, dim: int) -> Iterator[Tensor]:
        """Yield consecutive cells of each model, ``size`` at a time; ``dim`` must be 1."""
        cells = np.arange(self.shape[1])
        return self._load_parts(np.split(cells, cells[size::size]))

    def tensor_split(self, n_parts: int, dim: int) -> Iterator[Tensor]:
        """Yield the cells of each model in ``n_parts`` parts of nearly equal size.

        Cells keep their order; ``dim`` must be 1.
        """
        return self._load_parts(np.array_split(np.arange(self.shape[1]), n_parts))

    def _load_parts(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        all_indices = [torch.from_numpy(part).expand(self.shape[0], -1) for part in parts]
        for indices in self.prefetch(all_indices):
            yield self.gather(indices)


#: Training cells: a tensor in memory, or a reader of cells on disk.
CellTensor = Tensor | CellReader
