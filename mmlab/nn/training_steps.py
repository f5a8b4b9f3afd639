"""Execution of training steps; on CUDA as graphs, with one launch per step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from mmlab.nn.batches import Loss, Optimizer, gather_cells, training_step
from mmlab.nn.cell_reader import CellReader, CellTensor
from mmlab.nn.networks import PanelModel

_log = logging.getLogger(__name__)

#: Warm-up steps before the capture; they compile kernels and initialise lazily created state.
_WARMUP_STEPS = 3


class StepRunner:
    """Runs training steps on minibatches given by the indices of their cells.

    For a small model on a GPU, launching the kernels takes longer than their arithmetic. On CUDA,
    a step on a full minibatch is therefore captured as a CUDA graph after a few warm-up steps,
    and later steps replay the graph. A replay runs the same kernels on the same memory, so a step
    must make all its changes in place. The last minibatch of an epoch, which may be smaller, is
    run eagerly.
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
        """Prepare the steps.

        ``x`` are the training cells, shape (n_models, n_cells, n_genes); ``y`` are their class
        indices, shape (n_models, n_cells).
        """
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._x, self._y = x, y
        self._uses_graph = _supports_graph(x)
        self._warmup_steps_left = _WARMUP_STEPS
        self._replay: Callable[[], None] | None = None
        # Static input and output tensors of the captured step.
        self._indices = torch.zeros(len(x), batch_size, dtype=torch.int64, device=x.device)
        self._temperature = torch.zeros(len(x), 1, device=x.device)
        self._losses = x.new_zeros(len(x))

    def prefetch(self, minibatches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the minibatches of indices, each to be passed to :meth:`run`.

        Cells on disk are loaded in the background.
        """
        x = self._x
        return x.prefetch(minibatches) if isinstance(x, CellReader) else iter(minibatches)

    def run(self, indices: Tensor, temperature: Tensor) -> Tensor:
        """Run one training step; return the losses, shape (n_models,), without gradient.

        Parameters
        ----------
        indices
            Cells of each model, shape (n_models, batch).
        temperature
            Temperature of each model, shape (n_models, 1).
        """
        if not self._uses_graph or indices.shape != self._indices.shape:
            return self._run_eagerly(indices, temperature)
        if self._warmup_steps_left > 0:
            self._warmup_steps_left -= 1
            return _on_side_stream(lambda: self._run_eagerly(indices, temperature))
        self._indices.copy_(indices)
        self._temperature.copy_(temperature)
        if self._replay is None:
            noise = self._model.gate.noise
            states = noise.states()
            try:
                self._replay = _capture(self._run_static, noise.generators)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                _log.warning("CUDA graph capture failed, training continues without it: %s", error)
                self._uses_graph = False
                # A generator cannot be used after a capture that failed.
                noise.renew_generators(states)
                return self._run_eagerly(indices, temperature)
        self._replay()
        return self._losses.clone()

    def _run_static(self) -> None:
        """Run the step to capture, on the static tensors."""
        self._losses = self._run_eagerly(self._indices, self._temperature)

    def _run_eagerly(self, indices: Tensor, temperature: Tensor) -> Tensor:
        cells, labels = gather_cells(self._x, indices), gather_cells(self._y, indices)
        return training_step(self._model, self._optimizer, self._loss, cells, labels, temperature)


def _supports_graph(x: CellTensor) -> bool:
    """Return whether a step runs on a GPU only; with a CellReader it also reads from disk."""
    return x.is_cuda


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """Return the stream of a device for warm-up steps and captures.

    It is always the same, because cuBLAS keeps a workspace of 32 MiB or more for every stream on
    which it has multiplied.
    """
    return torch.cuda.Stream(device)


def _on_side_stream(step: Callable[[], Tensor]) -> Tensor:
    """Run a warm-up step on the side stream, as CUDA graph capture requires."""
    current, side = torch.cuda.current_stream(), _side_stream(torch.cuda.current_device())
    side.wait_stream(current)
    with torch.cuda.stream(side):
        result = step()
    current.wait_stream(side)
    return result


def _capture(step: Callable[[], None], generators: list[torch.Generator]) -> Callable[[], None]:
    """Capture a step as a CUDA graph without running it; return the function that replays it."""
    graph = torch.cuda.CUDAGraph()
    # Newer versions of torch register the generators automatically.
    register = getattr(graph, "register_generator_state", None)
    if register is not None:
        for generator in generators:
            register(generator)
    with torch.cuda.graph(graph, stream=_side_stream(torch.cuda.current_device())):
        step()
    replay: Callable[[], None] = graph.replay
    return replay
