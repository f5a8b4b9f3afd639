"""Replayed training steps equal eager ones; tested on a CPU with a mock of CUDA graphs."""

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

from mmlab.nn import training_steps as steps_module
from mmlab.nn.batches import Optimizer, shuffled_minibatches
from mmlab.nn.losses import markermap_loss
from mmlab.nn.networks import PanelModel
from mmlab.nn.training_steps import StepRunner

MODELS = [0, 1, 2]
BATCH_SIZE = 16


class Recorder(TorchDispatchMode):
    """Records every kernel with its input and output tensors, as a CUDA graph does."""

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
            new_result = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(new_result), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def capture(step: Callable[[], None], _: list[torch.Generator]) -> Callable[[], None]:
    """Record a step. Unlike CUDA this also runs it, so the first replay does nothing."""
    with Recorder() as recorder:
        step()
    is_first = iter([True])
    return lambda: None if next(is_first, False) else recorder.replay()


@pytest.fixture
def mock_graphs(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(steps_module, "_supports_graph", lambda x: True)
    monkeypatch.setattr(steps_module, "_on_side_stream", lambda step: step())
    monkeypatch.setattr(steps_module, "_capture", capture)
    return monkeypatch


def train_models(gate: str, alpha: float, rates: list[float]) -> tuple[PanelModel, list[Tensor]]:
    """Return models that were trained as one batch for three epochs, and the losses per step."""
    model = build(MODELS, gate, alpha)
    x, y = data()
    loss = partial(markermap_loss, alpha=alpha, kl_weight=0.1, per_gene=True)
    runner = StepRunner(model, Optimizer(model, rates), loss, x, y, BATCH_SIZE)
    losses: list[Tensor] = []
    for epoch in range(3):
        model.train()
        temperature = torch.tensor([[3.0], [2.0], [1.0]]) / (epoch + 1)
        minibatches = shuffled_minibatches(N_CELLS, BATCH_SIZE, model.gate.noise)
        losses += [runner.run(indices, temperature) for indices in minibatches]
    return model, losses


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize(
    "rates", [[1e-2] * 3, [1e-2, 3e-3, 1e-3]], ids=["equal rates", "different rates"]
)
@pytest.mark.parametrize("gate", sorted(GATES))
def test_replayed_steps_equal_eager_steps(
    mock_graphs: pytest.MonkeyPatch, gate: str, alpha: float, rates: list[float]
) -> None:
    replayed, replayed_losses = train_models(gate, alpha, rates)
    panels = [replayed.panel(i).tolist() for i in MODELS]
    mock_graphs.setattr(steps_module, "_supports_graph", lambda x: False)
    eager, losses = train_models(gate, alpha, rates)
    torch.testing.assert_close(replayed_losses, losses)
    torch.testing.assert_close(replayed.state_dict(), eager.state_dict())
    assert panels == [eager.panel(i).tolist() for i in MODELS]


def test_most_steps_are_replayed(mock_graphs: pytest.MonkeyPatch) -> None:
    eager_sizes = []
    run_eagerly = StepRunner._run_eagerly

    def counted(self: StepRunner, indices: Tensor, temperature: Tensor) -> Tensor:
        eager_sizes.append(indices.shape[1])
        return run_eagerly(self, indices, temperature)

    mock_graphs.setattr(StepRunner, "_run_eagerly", counted)
    train_models("gene logits", 0.0, [1e-2] * 3)
    # 70 cells give four full minibatches and one of six cells per epoch. Three warm-up steps,
    # the capture and the last step of each epoch are eager; the other eight are replays.
    assert sorted(eager_sizes) == [6] * 3 + [16] * 4


def test_training_continues_eagerly_if_the_capture_fails(
    mock_graphs: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any, generators: list[torch.Generator]) -> Any:
        # The generators of a failed capture cannot be used; here they have lost their state.
        for generator in generators:
            generator.manual_seed(99)
        raise RuntimeError("operation not permitted when stream is capturing")

    mock_graphs.setattr(steps_module, "_capture", fail)
    with caplog.at_level(logging.WARNING):
        _, losses = train_models("gene logits", 0.0, [1e-2] * 3)
    assert caplog.messages == [
        "CUDA graph capture failed, training continues without it: "
        "operation not permitted when stream is capturing"
    ]
    mock_graphs.setattr(steps_module, "_supports_graph", lambda x: False)
    torch.testing.assert_close(losses, train_models("gene logits", 0.0, [1e-2] * 3)[1])


def test_running_out_of_memory_in_a_capture_is_an_error(mock_graphs: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    mock_graphs.setattr(steps_module, "_capture", fail)
    with pytest.raises(torch.OutOfMemoryError):
        train_models("gene logits", 0.0, [1e-2] * 3)
