"""Fit several selectors epoch by epoch; deep selectors are trained as one batch where possible."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

from mmlab.preprocessing.expression import Expression
from mmlab.selectors import load_libraries
from mmlab.selectors.base import Selector
from mmlab.selectors.training_data import TrainingData
from mmlab.selectors.vae import VAESelector, train_batched
from mmlab.system.devices import resolve_device
from mmlab.system.memory import available_memory
from mmlab.system.threads import usable_cpus

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch

_log = logging.getLogger(__name__)

#: Share of the free memory that a model batch may use.
_MEMORY_SHARE = 0.8

#: Parameters that may differ between the models of a batch.
_PER_MODEL_PARAMS = frozenset(
    {
        "seed",
        "learning_rate",
        "initial_temperature",
        "final_temperature",
        "annealing_share",
        "beta",
        "min_epochs",
        "patience",
    }
)


@dataclass
class Fit:
    """A selector that is being fitted.

    Attributes
    ----------
    selector
        The selector to fit.
    data
        The data that it is fitted on.
    epochs
        Finished epochs; empty for a method without epochs.
    seconds
        Wall time so far, without that of loading libraries. The time of a model batch is divided
        equally among its models.
    """

    selector: Selector
    data: TrainingData
    epochs: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0

    def epoch_at(self, number: int) -> Epoch | None:
        """Return epoch ``number`` (from 1), or the last epoch if training ended before it.

        None for a method without epochs.
        """
        return self.epochs[min(number, len(self.epochs)) - 1] if self.epochs else None


def run_fits(fits: Sequence[Fit]) -> Iterator[int]:
    """Fit all selectors and yield the number of each epoch that all of them have finished.

    Deep selectors that differ only in ``_PER_MODEL_PARAMS`` are trained as one model batch: the
    many small operations of a training step run once for all of them. Each selector gets the
    same result as when it is trained alone, up to float32 rounding.
    """
    load_libraries(fit.selector for fit in fits)
    running = [
        _train_batch(batch) if len(batch) > 1 else _train_single(batch[0])
        for batch in _model_batches(fits)
    ]
    n_done = 0
    while running:
        running = [steps for steps in running if next(steps, None) is not None]
        if running:
            n_done += 1
            yield n_done
    yield from range(n_done + 1, max((len(fit.epochs) for fit in fits), default=0) + 1)


def _model_batches(fits: Sequence[Fit]) -> list[list[Fit]]:
    """Return consecutive fits that can be trained as one batch; any other fit stands alone."""
    return [list(batch) for _, batch in groupby(fits, key=_batch_key)]


def _batch_key(fit: Fit) -> tuple[Any, ...]:
    """Return a key that is equal for fits that can be trained as one batch."""
    selector, data = fit.selector, fit.data
    if not isinstance(selector, VAESelector):
        return (id(fit),)
    params = selector.get_params()
    shared = tuple((name, params[name]) for name in sorted(params.keys() - _PER_MODEL_PARAMS))
    uses_range_test = params["learning_rate"] == "auto"
    shapes = data.x.shape, None if data.x_val is None else data.x_val.shape
    n_classes = None if data.y is None else len(selector.classes_)
    lists = data.include.tobytes(), data.exclude.tobytes()
    return (type(selector), shared, uses_range_test, shapes, n_classes, lists)


def _train_single(fit: Fit) -> Iterator[bool]:
    """Train one selector; yield True after each epoch."""
    steps = fit.selector.run(fit.data)
    while True:
        started = time.perf_counter()
        epoch = next(steps, None)
        fit.seconds += time.perf_counter() - started
        if epoch is None:
            return
        fit.epochs.append(epoch)
        yield True


def _train_batch(fits: Sequence[Fit]) -> Iterator[bool]:
    """Train selectors as one batch; yield True after each epoch.

    If memory does not suffice, the batch is split into chunks that are trained one after the
    other. All chunks but the last are trained to the end without a yield; the yields follow the
    epochs of the last chunk.
    """
    import torch

    waiting, size, n_yielded = list(fits), _max_batch_size(fits[0]), 0
    while waiting:
        chunk, out_of_memory = waiting[:size], False
        try:
            for number in _train_chunk(chunk):
                if len(chunk) == len(waiting) and number > n_yielded:
                    n_yielded = number
                    yield True
        except torch.OutOfMemoryError:
            if len(chunk) == 1:
                raise
            out_of_memory = True
        if out_of_memory:
            # Until the except clause has ended, the error refers to the tensors; the garbage
            # collector also frees those in reference cycles.
            gc.collect()
            torch.cuda.empty_cache()
            size = (len(chunk) + 1) // 2
            _log.warning("Out of GPU memory: continuing with %d models at a time.", size)
            for fit in chunk:
                fit.epochs.clear()
                fit.selector.__dict__.pop("model_", None)
        else:
            waiting = waiting[len(chunk) :]


def _max_batch_size(fit: Fit) -> int:
    """Return a rough estimate of how many such models the free memory can hold, at least 1."""
    selector, data = fit.selector, fit.data
    n_genes = data.x.shape[1]
    params = selector.get_params() | selector.data_dependent_params(n_genes)
    n_cells = data.x.shape[0] + (0 if data.x_val is None else data.x_val.shape[0])
    # Five layers have n_genes inputs or outputs: two of the logit network, one of the encoder and
    # one of each of two decoders. Gradients and activations exist twice, for the CUDA graph and
    # for the last minibatch of an epoch. So each weight is stored five times: the value, two
    # moments of Adam and two gradients.
    weights = 5 * 5 * params["hidden_size"] * n_genes
    step = 2 * (10 * params["batch_size"] + 3 * params["n_markers"]) * n_genes
    cells = 0 if isinstance(data.x, Expression) else n_cells * n_genes
    needed = 4 * (cells + weights + step)
    return max(1, int(_MEMORY_SHARE * _free_memory(resolve_device(params["device"])) / needed))


def _free_memory(device: str) -> float:
    """Return the free bytes of a GPU, or the free main memory divided by the number of cores.

    Each core may run a worker that trains at the same time.
    """
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    return available_memory() / usable_cpus()


def _train_chunk(fits: Sequence[Fit]) -> Iterator[int]:
    """Train selectors as one batch; yield the number of each finished epoch."""
    selectors = [fit.selector for fit in fits]
    assert all(isinstance(selector, VAESelector) for selector in selectors)
    steps = train_batched(selectors, [fit.data for fit in fits])
    for number in count(1):
        started = time.perf_counter()
        epochs = next(steps, None)
        for fit in fits:
            fit.seconds += (time.perf_counter() - started) / len(fits)
        if epochs is None:
            return
        for fit, epoch in zip(fits, epochs, strict=True):
            if epoch is not None:
                fit.epochs.append(epoch)
        yield number
