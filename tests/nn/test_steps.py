"""A captured step does what a launched one does: on a CPU, with a recorder in CUDA's place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from small_models import GATES, N_CELLS, build, data
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmlab.nn import steps as steps_module
from mmlab.nn.batches import Optimizer, batches
from mmlab.nn.losses import markermap_loss
from mmlab.nn.networks import PanelModel
from mmlab.nn.steps import Steps

MEMBERS = [0, 1, 2]
BATCH_SIZE = 16


class Recorder(TorchDispatchMode):
    """Keeps every kernel with the tensors that it reads and writes, as a CUDA graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(step: Callable[[], None], _: list[torch.Generator]) -> Callable[[], None]:
    """A capture on a CPU takes the step that it records: the first replay has been done."""
    with Recorder() as recorder:
        step()
    done = iter([True])
    return lambda: None if next(done, False) else recorder.replay()


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(steps_module, "_can_capture", lambda x: True)
    monkeypatch.setattr(steps_module, "_on_side_stream", lambda step: step())
    monkeypatch.setattr(steps_module, "_record", record)
    return monkeypatch


def trained(gate: str, alpha: float, rates: list[float]) -> tuple[PanelModel, list[Tensor]]:
    """A pack after three epochs of batches, and the losses of its steps."""
    model = build(MEMBERS, gate, alpha)
    x, y = data()
    loss = partial(markermap_loss, alpha=alpha, kl_weight=0.1, per_gene=True)
    steps = Steps(model, Optimizer(model, rates), loss, x, y, BATCH_SIZE)
    losses = []
    for epoch in range(3):
        model.train()
        temperature = torch.tensor([[3.0], [2.0], [1.0]]) / (epoch + 1)
        for indices in batches(N_CELLS, BATCH_SIZE, model.gate.noise):
            taken = steps.take(indices, temperature)
            losses.append(taken)
    return model, losses


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("rates", [[1e-2] * 3, [1e-2, 3e-3, 1e-3]], ids=["one rate", "own rates"])
@pytest.mark.parametrize("gate", sorted(GATES))
def test_replayed_steps_are_those_that_were_launched(
    captures: pytest.MonkeyPatch, gate: str, alpha: float, rates: list[float]
) -> None:
    replayed, replayed_losses = trained(gate, alpha, rates)
    panels = [replayed.panel(i).tolist() for i in MEMBERS]
    captures.setattr(steps_module, "_can_capture", lambda x: False)
    launched, losses = trained(gate, alpha, rates)
    torch.testing.assert_close(replayed_losses, losses)
    torch.testing.assert_close(replayed.state_dict(), launched.state_dict())
    assert panels == [launched.panel(i).tolist() for i in MEMBERS]


def test_most_steps_are_replayed(captures: pytest.MonkeyPatch) -> None:
    launched = []
    launch = Steps._launch

    def counted(self: Steps, indices: Tensor, temperature: Tensor) -> Tensor:
        launched.append(indices.shape[1])
        return launch(self, indices, temperature)

    captures.setattr(Steps, "_launch", counted)
    trained("gene logits", 0.0, [1e-2] * 3)
    # 70 cells are four whole batches and one of six cells: three launched before the capture,
    # the capture itself, and the last of each epoch; the other eight are replays.
    assert sorted(launched) == [6] * 3 + [16] * 4


def test_training_goes_on_where_nothing_can_be_captured(
    captures: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    captures.setattr(steps_module, "_record", fail)
    with caplog.at_level(logging.WARNING):
        _, losses = trained("gene logits", 0.0, [1e-2] * 3)
    assert caplog.messages == [
        "No CUDA graph, training goes on without: operation not permitted when stream is capturing"
    ]
    captures.setattr(steps_module, "_can_capture", lambda x: False)
    torch.testing.assert_close(losses, trained("gene logits", 0.0, [1e-2] * 3)[1])


def test_out_of_memory_in_a_capture_is_left_to_whoever_sizes_the_packs(
    captures: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    captures.setattr(steps_module, "_record", fail)
    with pytest.raises(torch.OutOfMemoryError):
        trained("gene logits", 0.0, [1e-2] * 3)
