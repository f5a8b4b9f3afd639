"""Steps of a training; on CUDA each is one launch instead of hundreds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mmlab.nn.batches import Loss, Optimizer, take, take_step
from mmlab.nn.cell_reader import CellReader, CellTensor
from mmlab.nn.networks import PanelModel

_log = logging.getLogger(__name__)

#: Steps before the capture: kernels are compiled and the optimiser's state is made in them.
_STEPS_BEFORE_CAPTURE = 3


class Steps:
    """Takes the steps of a pack's training on batches given by their indices.

    A small model on a GPU is bound by the launches of its kernels, not by their arithmetic. There
    a step on a whole batch is captured as a CUDA graph after the first few, and replayed from
    then on: the same kernels on the same memory, so a step must change whatever it changes in
    place. The last batch of an epoch, smaller than the others, is launched kernel by kernel.
    """

    def __init__(
        self,
        model: PanelModel,
        optimizer: Optimizer,
        loss: Loss,
        x: CellTensor,
        y: Tensor,
        batch_size: int,
    ) -> None:
        """``x`` are the training cells (n_models, n_cells, n_genes), ``y`` their classes."""
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._x, self._y = x, y
        self._captures = _can_capture(x)
        self._to_launch = _STEPS_BEFORE_CAPTURE
        self._replay: Callable[[], None] | None = None
        # What a captured step reads and writes.
        self._indices = torch.zeros(len(x), batch_size, dtype=torch.int64, device=x.device)
        self._temperature = torch.zeros(len(x), 1, device=x.device)
        self._losses = x.new_zeros(len(x))

    def ahead(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The batches of indices in turn, for :meth:`take`; cells on disk are read meanwhile."""
        x = self._x
        return x.ahead(batches) if isinstance(x, CellReader) else iter(batches)

    def take(self, indices: Tensor, temperature: Tensor) -> Tensor:
        """One step; gives the losses, shape (n_models,), without gradient.

        Parameters
        ----------
        indices
            Cells of each model, shape (n_models, batch).
        temperature
            Of each model, shape (n_models, 1).
        """
        if not self._captures or indices.shape != self._indices.shape:
            return self._launch(indices, temperature)
        if self._to_launch > 0:
            self._to_launch -= 1
            return _on_side_stream(lambda: self._launch(indices, temperature))
        self._indices.copy_(indices)
        self._temperature.copy_(temperature)
        if self._replay is None:
            try:
                self._replay = _record(self._captured, self._model.gate.noise.generators)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                _log.warning("No CUDA graph, training goes on without: %s", error)
                self._captures = False
                return self._launch(indices, temperature)
        self._replay()
        return self._losses.clone()

    def _captured(self) -> None:
        self._losses = self._launch(self._indices, self._temperature)

    def _launch(self, indices: Tensor, temperature: Tensor) -> Tensor:
        cells, labels = take(self._x, indices), take(self._y, indices)
        return take_step(self._model, self._optimizer, self._loss, cells, labels, temperature)


def _can_capture(x: CellTensor) -> bool:
    """Whether a step works on a GPU alone: cells that are read meanwhile come from elsewhere."""
    return x.is_cuda


def _on_side_stream(step: Callable[[], Tensor]) -> Tensor:
    """A step as a capture wants those before it: on another stream than the default one."""
    here, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        result = step()
    here.wait_stream(side)
    return result


def _record(step: Callable[[], None], generators: list[torch.Generator]) -> Callable[[], None]:
    """Capture a step without taking it; gives what takes it."""
    graph = torch.cuda.CUDAGraph()
    # Newer versions of torch find the generators by themselves.
    register = getattr(graph, "register_generator_state", None)
    if register is not None:
        for generator in generators:
            register(generator)
    with torch.cuda.graph(graph):
        step()
    replay: Callable[[], None] = graph.replay
    return replay
