"""Several selectors at work, an epoch at a time; those that can be are trained as one."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import TYPE_CHECKING, Any

import psutil

from mmlab.preprocessing.expression import Expression
from mmlab.selectors.base import Selector
from mmlab.selectors.training_data import TrainingData
from mmlab.selectors.vae import VAESelector, train_batched
from mmlab.system.devices import resolve_device
from mmlab.system.memory import free_memory

if TYPE_CHECKING:
    from mmlab.nn.training import Epoch

_log = logging.getLogger(__name__)

#: Share of the free memory that a pack may take.
_MEMORY_SHARE = 0.8

#: Parameters that each selector of a pack may have its own of.
_OWN_IN_A_PACK = frozenset(
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
    """A selector at work.

    Attributes
    ----------
    selector, data
        What is fitted, and on what.
    epochs
        Those that are over; a method without epochs has none.
    seconds
        Wall time so far; members of a pack share its time.
    """

    selector: Selector
    data: TrainingData
    epochs: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0

    def at(self, number: int) -> Epoch | None:
        """Epoch ``number``, counted from 1; the last one if training had ended by then."""
        return self.epochs[min(number, len(self.epochs)) - 1] if self.epochs else None


def run_fits(fits: Sequence[Fit]) -> Iterator[int]:
    """Fit the selectors; an item is the number of an epoch that all have been through.

    Deep selectors that differ in no more than ``_OWN_IN_A_PACK`` are trained as one: the many
    small operations of a step are done for all of them at once. Each becomes what it becomes
    alone, up to the rounding of float32.
    """
    under_way = [
        _train_pack(group) if len(group) > 1 else _train_alone(group[0]) for group in _packs(fits)
    ]
    shown = 0
    while under_way:
        under_way = [steps for steps in under_way if next(steps, None) is not None]
        if under_way:
            shown += 1
            yield shown
    yield from range(shown + 1, max((len(fit.epochs) for fit in fits), default=0) + 1)


def _packs(fits: Sequence[Fit]) -> list[list[Fit]]:
    """Neighbours that can be trained as one; every other fit by itself."""
    return [list(group) for _, group in groupby(fits, key=_pack_key)]


def _pack_key(fit: Fit) -> tuple[Any, ...]:
    """Equal for fits that one pack can hold; the parameters of a pack may differ in the rest."""
    selector, data = fit.selector, fit.data
    if not isinstance(selector, VAESelector):
        return (id(fit),)
    params = selector.get_params()
    shared = tuple((name, params[name]) for name in sorted(params.keys() - _OWN_IN_A_PACK))
    finds_rate = params["learning_rate"] == "auto"
    shapes = data.x.shape, None if data.x_val is None else data.x_val.shape
    n_classes = None if data.y is None else len(selector.classes_)
    lists = data.include.tobytes(), data.exclude.tobytes()
    return (type(selector), shared, finds_rate, shapes, n_classes, lists)


def _train_alone(fit: Fit) -> Iterator[bool]:
    steps = fit.selector.run(fit.data)
    while True:
        started = time.perf_counter()
        epoch = next(steps, None)
        fit.seconds += time.perf_counter() - started
        if epoch is None:
            return
        fit.epochs.append(epoch)
        yield True


def _train_pack(fits: Sequence[Fit]) -> Iterator[bool]:
    """Train as one; in parts, one after the other, where the memory does not take all.

    Parts but the last are trained to their end at once: their epochs are shown with its own.
    """
    import torch

    waiting, size, shown = list(fits), _models_that_fit(fits[0]), 0
    while waiting:
        part = waiting[:size]
        try:
            for number in _train_part(part):
                if len(part) == len(waiting) and number > shown:
                    shown = number
                    yield True
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            size = (len(part) + 1) // 2
            torch.cuda.empty_cache()
            _log.warning("Out of memory on the GPU: going on with %d models at a time.", size)
            for fit in part:
                fit.epochs.clear()
        else:
            waiting = waiting[len(part) :]


def _models_that_fit(fit: Fit) -> int:
    """How many such models the free memory takes, by a rough count; at least one."""
    selector, data = fit.selector, fit.data
    n_genes = data.x.shape[1]
    params = selector.get_params() | selector.settled_params(n_genes)
    n_cells = data.x.shape[0] + (0 if data.x_val is None else data.x_val.shape[0])
    # In and out of the logit network, into the encoder, out of two decoders; Adam keeps each
    # weight with two moments. Gradients and what a step makes are there twice: once for the CUDA
    # graph, once for the last batch of an epoch.
    weights = 5 * 5 * params["hidden_size"] * n_genes
    step = 2 * (10 * params["batch_size"] + 3 * params["n_markers"]) * n_genes
    cells = 0 if isinstance(data.x, Expression) else n_cells * n_genes
    needed = 4 * (cells + weights + step)
    return max(1, int(_MEMORY_SHARE * _free_memory(resolve_device(params["device"])) / needed))


def _free_memory(device: str) -> float:
    """Free bytes of a GPU, or of this machine for each of its cores: they train too."""
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    return free_memory() / (psutil.cpu_count() or 1)


def _train_part(fits: Sequence[Fit]) -> Iterator[int]:
    """Train as one; items are the numbers of the epochs."""
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
