"""Training several models as one: what comes out is what each would have become alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from small_models import BETAS, FINAL, GATES, N_MODELS, PATIENCE, RATES, build, data
from torch import nn

from mmlab.datasets.cells import Cells
from mmlab.nn.batches import Optimizer
from mmlab.nn.losses import markermap_loss
from mmlab.nn.networks import PanelModel
from mmlab.nn.training import Epoch, TrainingPlan, train
from mmlab.nn.training_config import Annealing, RangeTest, TrainingConfig
from mmlab.selectors import get_selector
from mmlab.spec.trial import TrialSpec
from mmlab.trial import batched
from mmlab.trial.batched import Fit, run_fits
from mmlab.trial.run import run_trial


def trained(
    members: list[int], gate: str, alpha: float, **changes: Any
) -> tuple[list[list[Epoch]], list[PanelModel]]:
    """Epochs and final model of each member of a pack."""
    # In float32 Adam blows rounding up to steps wherever the gradient is nothing else.
    model = build(members, gate, alpha).double()
    scores = np.random.default_rng(0).random((N_MODELS, 20))
    plans = []
    for i in members:
        settings: dict[str, Any] = {
            "learning_rate": RATES[i],
            "batch_size": 16,
            "max_epochs": 6,
            "min_epochs": 2,
            "patience": PATIENCE[i],
            "schedule": Annealing(3.0, FINAL[i], 5),
        }
        values = iter(scores[i])
        config = TrainingConfig(**(settings | changes))
        plans.append(TrainingPlan(config, lambda panel, values=values: next(values)))
    loss = partial(markermap_loss, alpha=alpha, kl_weight=0.1, per_gene=True)
    (x, y), (x_val, y_val) = data(), data(30)
    x, x_val = x.double(), x_val.double()
    epochs: list[list[Epoch]] = [[] for _ in members]
    models: list[PanelModel] = []
    final: dict[int, PanelModel] = {}
    for step in train(model, loss, plans, x[members], y[members], x_val[members], y_val[members]):
        for position, epoch in enumerate(step):
            if epoch is None:
                continue
            epochs[position].append(epoch)
            if epoch.last:
                final[position] = model.single(position)
    models = [final[position] for position in range(len(members))]
    return epochs, models


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_model_becomes_in_a_pack_what_it_becomes_alone(gate: str, alpha: float) -> None:
    together, models = trained([0, 1, 2], gate, alpha)
    assert len(together[0]) == 6
    assert len(together[2]) < 6, "the third should have stopped early"
    for i in range(N_MODELS):
        (alone,), (model,) = trained([i], gate, alpha)
        assert len(alone) == len(together[i])
        for one, other in zip(alone, together[i], strict=True):
            assert one.panel.tolist() == other.panel.tolist()
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
            assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-5)
            assert (one.temperature, one.last) == (other.temperature, other.last)
        state = models[i].state_dict()
        for name, values in model.state_dict().items():
            torch.testing.assert_close(state[name], values, rtol=1e-4, atol=1e-6, msg=name)


def test_every_model_finds_its_own_learning_rate() -> None:
    changes = {"learning_rate": RangeTest(1e-2, steps=40), "max_epochs": 1}
    together, _ = trained([0, 1, 2], "gene logits", 0.0, **changes)
    for i in range(N_MODELS):
        (alone,), _ = trained([i], "gene logits", 0.0, **changes)
        assert alone[0].train_loss == pytest.approx(together[i][0].train_loss, rel=1e-5)


def test_each_model_of_a_pack_is_stepped_at_its_own_rate() -> None:
    model = build([0, 1, 2], "gene logits", 0.5)
    twins = [build([i], "gene logits", 0.5) for i in range(N_MODELS)]
    rates = [1e-3, 2e-2, 5e-3]
    optimizer = Optimizer(model, rates)
    theirs = [torch.optim.Adam(t.parameters(), lr=r) for t, r in zip(twins, rates, strict=True)]
    for _ in range(3):
        optimizer.step(sum((p.square().sum() + p.sum()) for p in model.parameters()))
        for twin, adam in zip(twins, theirs, strict=True):
            adam.zero_grad()
            sum((p.square().sum() + p.sum()) for p in twin.parameters()).backward()
            adam.step()
    for i, twin in enumerate(twins):
        mine = dict(model.single(i).named_parameters())
        for name, values in twin.named_parameters():
            torch.testing.assert_close(mine[name], values, rtol=1e-5, atol=1e-6)


def test_a_single_model_of_a_pack_shares_nothing_with_it() -> None:
    model = build([0, 1], "gene logits", 0.5)
    alone = model.single(1)
    before = {name: values.clone() for name, values in alone.state_dict().items()}
    with torch.no_grad():
        for values in [*model.parameters(), *model.buffers()]:
            values.add_(1)
    for name, values in alone.state_dict().items():
        assert torch.equal(values, before[name])
    assert len(alone.gate.noise) == len(alone.network.noise) == 1
    assert alone.gate.beta.tolist() == [[pytest.approx(BETAS[1])]]
    assert all(isinstance(p, nn.Parameter) for p in alone.parameters())


# --- selectors


def fits(n: int = N_MODELS, **params: Any) -> list[Fit]:
    (x, y), (x_val, y_val) = data(), data(30)
    made = []
    for i in range(n):
        settings: dict[str, Any] = {"max_epochs": 3, "min_epochs": 3, "hidden_size": 8}
        selector = get_selector("markermap_joint")(4, seed=i, **(settings | params))
        arrays = (t[i].numpy() for t in (x, y, x_val, y_val))
        cells, labels, val_cells, val_labels = arrays
        checked = selector.checked(cells, labels, X_val=val_cells, y_val=val_labels)
        made.append(Fit(selector, checked))
    return made


def panels(done: list[Fit]) -> list[list[int]]:
    return [fit.selector.panel_.tolist() for fit in done]


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the packs that were trained; a selector alone counts only with little memory."""
    sizes: list[int] = []
    train_batched = batched.train_batched

    def counted(selectors: Any, data: Any) -> Iterator[Any]:
        sizes.append(len(selectors))
        return train_batched(selectors, data)

    monkeypatch.setattr(batched, "_free_memory", lambda device: 1e9)
    monkeypatch.setattr(batched, "train_batched", counted)
    return sizes


def test_selectors_are_trained_as_one(packed: list[int]) -> None:
    done = fits()
    assert list(run_fits(done)) == [1, 2, 3]
    assert packed == [3]
    assert all(fit.seconds > 0 for fit in done)
    each = [fit for i in range(N_MODELS) for fit in [fits()[i]]]
    for fit in each:
        fit.selector.fit(fit.data.x, fit.data.y, X_val=fit.data.x_val, y_val=fit.data.y_val)
    assert panels(done) == panels(each)
    for fit, alone in zip(done, each, strict=True):
        np.testing.assert_allclose(
            fit.selector.reconstruct(fit.data.x), alone.selector.reconstruct(fit.data.x), atol=1e-3
        )
        assert [fit.at(n).epoch for n in (1, 2, 3, 9)] == [1, 2, 3, 3]


def test_what_differs_in_more_than_it_may_is_not_packed(packed: list[int]) -> None:
    mixed = [*fits(2), *fits(1, hidden_size=16), *fits(2, learning_rate=1e-2, beta=0.5)]
    assert [len(group) for group in batched._packs(mixed)] == [2, 1, 2]
    list(run_fits(mixed))
    assert packed == [2, 2]


def test_models_that_stop_early_let_the_others_go_on(packed: list[int]) -> None:
    done = [*fits(2, min_epochs=1, patience=1, max_epochs=8), *fits(1, max_epochs=8, min_epochs=8)]
    shown = list(run_fits(done))
    assert packed == [3]
    assert shown == list(range(1, 9))
    assert len(done[2].epochs) == 8
    assert min(len(fit.epochs) for fit in done) < 8
    assert all(hasattr(fit.selector, "model_") for fit in done)


def test_a_gpu_that_is_too_small_trains_fewer_at_a_time(
    packed: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train_batched = batched.train_batched

    def limited(selectors: Any, data: Any) -> Iterator[Any]:
        steps = train_batched(selectors, data)
        for number, epochs in enumerate(steps):
            if len(selectors) > 1 and number == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield epochs

    whole = fits()
    list(run_fits(whole))
    monkeypatch.setattr(batched, "train_batched", limited)
    done = fits()
    with caplog.at_level(logging.WARNING):
        assert list(run_fits(done)) == [1, 2, 3]
    assert packed == [3, 3, 2, 1, 1, 1]
    assert "with 1 models at a time" in caplog.text
    assert panels(done) == panels(whole)
    assert [len(fit.epochs) for fit in done] == [3, 3, 3]


@pytest.mark.parametrize(("free", "expected"), [(1e9, [3]), (5e5, [2, 1]), (1.0, [1, 1, 1])])
def test_a_pack_is_as_large_as_the_free_memory_takes(
    packed: list[int], monkeypatch: pytest.MonkeyPatch, free: float, expected: list[int]
) -> None:
    monkeypatch.setattr(batched, "_free_memory", lambda device: free)
    done = fits(hidden_size=64)
    assert list(run_fits(done)) == [1, 2, 3]
    assert packed == expected


def test_a_model_that_does_not_fit_by_itself_is_an_error(
    packed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(selectors: Any, data: Any) -> Iterator[Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(batched, "train_batched", never)
    with pytest.raises(torch.OutOfMemoryError):
        list(run_fits(fits()))


def test_a_core_has_its_part_of_the_memory_of_the_machine() -> None:
    assert 2**20 < batched._free_memory("cpu") <= psutil.virtual_memory().total


def test_a_trial_gives_the_same_result_packed(
    packed: list[int], monkeypatch: pytest.MonkeyPatch, tiny_cells: Cells
) -> None:
    spec = TrialSpec(
        data={"path": "tiny.h5ad", "label_key": "cell_type"},
        selector="markermap_supervised",
        n_markers=4,
        replicates=3,
        params={"max_epochs": 3, "min_epochs": 3, "hidden_size": 8},
    )
    together = run_trial(spec, tiny_cells)
    assert packed == [3]
    packed.clear()
    monkeypatch.setattr(batched, "_free_memory", lambda device: 1.0)
    apart = run_trial(spec, tiny_cells)
    assert packed == [1, 1, 1]
    columns = ["replicate", "knn/accuracy", "epochs"]
    known = [column for column in columns if column in together.replicates]
    assert known
    assert together.replicates[known].equals(apart.replicates[known])
    assert together.panel["gene"].tolist() == apart.panel["gene"].tolist()
    assert together.history["epoch"].tolist() == apart.history["epoch"].tolist()
