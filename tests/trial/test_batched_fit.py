"""Batched training gives the same models as training each model alone."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
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
from mmlab.selectors import SELECTORS, get_selector
from mmlab.selectors.controls import RandomSelector
from mmlab.selectors.training_data import TrainingData
from mmlab.spec.trial import TrialSpec
from mmlab.trial import batched_fit, replicate
from mmlab.trial import run as trial_run
from mmlab.trial.batched_fit import Fit, run_fits
from mmlab.trial.run import run_trial


def train_models(
    members: list[int], gate: str, alpha: float, **changes: Any
) -> tuple[list[list[Epoch]], list[PanelModel]]:
    """Train models as one batch; return the epochs and the final model of each."""
    # In float32, where the gradient is only rounding error, Adam turns it into full steps.
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
def test_batched_training_equals_training_alone(gate: str, alpha: float) -> None:
    together, models = train_models([0, 1, 2], gate, alpha)
    assert len(together[0]) == 6
    assert len(together[2]) < 6, "the third model should have stopped early"
    for i in range(N_MODELS):
        (alone,), (model,) = train_models([i], gate, alpha)
        assert len(alone) == len(together[i])
        for one, other in zip(alone, together[i], strict=True):
            assert one.panel.tolist() == other.panel.tolist()
            assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
            assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-5)
            assert (one.temperature, one.last) == (other.temperature, other.last)
        state = models[i].state_dict()
        for name, values in model.state_dict().items():
            torch.testing.assert_close(state[name], values, rtol=1e-4, atol=1e-6, msg=name)


def test_the_range_test_gives_each_model_its_own_learning_rate() -> None:
    changes = {"learning_rate": RangeTest(1e-2, steps=40), "max_epochs": 1}
    together, _ = train_models([0, 1, 2], "gene logits", 0.0, **changes)
    for i in range(N_MODELS):
        (alone,), _ = train_models([i], "gene logits", 0.0, **changes)
        assert alone[0].train_loss == pytest.approx(together[i][0].train_loss, rel=1e-5)


def test_each_model_of_a_batch_has_its_own_learning_rate() -> None:
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


def test_a_model_taken_from_a_batch_shares_no_memory_with_it() -> None:
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


def make_fits(n: int = N_MODELS, **params: Any) -> list[Fit]:
    (x, y), (x_val, y_val) = data(), data(30)
    made = []
    for i in range(n):
        settings: dict[str, Any] = {"max_epochs": 3, "min_epochs": 3, "hidden_size": 8}
        selector = get_selector("markermap_joint")(4, seed=i, **(settings | params))
        arrays = (t[i].numpy() for t in (x, y, x_val, y_val))
        cells, labels, val_cells, val_labels = arrays
        checked = selector.check_data(cells, labels, X_val=val_cells, y_val=val_labels)
        made.append(Fit(selector, checked))
    return made


def panels(done: list[Fit]) -> list[list[int]]:
    return [fit.selector.panel_.tolist() for fit in done]


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the model batches that are trained.

    A selector that is trained alone appears only if memory was too small for its batch.
    """
    sizes: list[int] = []
    train_batched = batched_fit.train_batched

    def counted(selectors: Any, data: Any) -> Iterator[Any]:
        sizes.append(len(selectors))
        return train_batched(selectors, data)

    monkeypatch.setattr(batched_fit, "_free_memory", lambda device: 1e9)
    monkeypatch.setattr(batched_fit, "train_batched", counted)
    return sizes


def test_equal_selectors_are_trained_as_one_batch(batch_sizes: list[int]) -> None:
    done = make_fits()
    assert list(run_fits(done)) == [1, 2, 3]
    assert batch_sizes == [3]
    assert all(fit.seconds > 0 for fit in done)
    each = [fit for i in range(N_MODELS) for fit in [make_fits()[i]]]
    for fit in each:
        fit.selector.fit(fit.data.x, fit.data.y, X_val=fit.data.x_val, y_val=fit.data.y_val)
    assert panels(done) == panels(each)
    for fit, alone in zip(done, each, strict=True):
        np.testing.assert_allclose(
            fit.selector.reconstruct(fit.data.x), alone.selector.reconstruct(fit.data.x), atol=1e-3
        )
        assert [fit.epoch_at(n).epoch for n in (1, 2, 3, 9)] == [1, 2, 3, 3]


def test_selectors_that_differ_in_shared_parameters_are_not_batched(batch_sizes: list[int]) -> None:
    mixed = [
        *make_fits(2),
        *make_fits(1, hidden_size=16),
        *make_fits(2, learning_rate=1e-2, beta=0.5),
    ]
    assert [len(group) for group in batched_fit._model_batches(mixed)] == [2, 1, 2]
    list(run_fits(mixed))
    assert batch_sizes == [2, 2]


def test_early_stopping_of_one_model_does_not_stop_the_others(batch_sizes: list[int]) -> None:
    done = [
        *make_fits(2, min_epochs=1, patience=1, max_epochs=8),
        *make_fits(1, max_epochs=8, min_epochs=8),
    ]
    shown = list(run_fits(done))
    assert batch_sizes == [3]
    assert shown == list(range(1, 9))
    assert len(done[2].epochs) == 8
    assert min(len(fit.epochs) for fit in done) < 8
    assert all(hasattr(fit.selector, "model_") for fit in done)


def test_out_of_gpu_memory_halves_the_model_batch(
    batch_sizes: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train_batched = batched_fit.train_batched

    def limited(selectors: Any, data: Any) -> Iterator[Any]:
        steps = train_batched(selectors, data)
        for number, epochs in enumerate(steps):
            if len(selectors) > 1 and number == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield epochs

    whole = make_fits()
    list(run_fits(whole))
    monkeypatch.setattr(batched_fit, "train_batched", limited)
    done = make_fits()
    with caplog.at_level(logging.WARNING):
        assert list(run_fits(done)) == [1, 2, 3]
    assert batch_sizes == [3, 3, 2, 1, 1, 1]
    assert "with 1 models at a time" in caplog.text
    assert panels(done) == panels(whole)
    assert [len(fit.epochs) for fit in done] == [3, 3, 3]


@pytest.mark.parametrize(("free", "expected"), [(1e9, [3]), (5e5, [2, 1]), (1.0, [1, 1, 1])])
def test_the_free_memory_limits_the_model_batch(
    batch_sizes: list[int], monkeypatch: pytest.MonkeyPatch, free: float, expected: list[int]
) -> None:
    monkeypatch.setattr(batched_fit, "_free_memory", lambda device: free)
    done = make_fits(hidden_size=64)
    assert list(run_fits(done)) == [1, 2, 3]
    assert batch_sizes == expected


def test_a_single_model_that_does_not_fit_in_memory_is_an_error(
    batch_sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(selectors: Any, data: Any) -> Iterator[Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(batched_fit, "train_batched", fail)
    with pytest.raises(torch.OutOfMemoryError):
        list(run_fits(make_fits()))


def test_the_free_main_memory_is_divided_among_the_cores() -> None:
    assert 2**20 < batched_fit._free_memory("cpu") <= psutil.virtual_memory().total


def test_a_trial_gives_the_same_result_batched_and_alone(
    batch_sizes: list[int], monkeypatch: pytest.MonkeyPatch, tiny_cells: Cells
) -> None:
    spec = TrialSpec(
        data={"path": "tiny.h5ad", "label_key": "cell_type"},
        selector="markermap_supervised",
        n_markers=4,
        replicates=3,
        params={"max_epochs": 3, "min_epochs": 3, "hidden_size": 8},
    )
    together = run_trial(spec, tiny_cells)
    assert batch_sizes == [3]
    batch_sizes.clear()
    monkeypatch.setattr(batched_fit, "_free_memory", lambda device: 1.0)
    apart = run_trial(spec, tiny_cells)
    assert batch_sizes == [1, 1, 1]
    columns = ["replicate", "knn/accuracy", "epochs"]
    known = [column for column in columns if column in together.replicates]
    assert known
    assert together.replicates[known].equals(apart.replicates[known])
    assert together.panel["gene"].tolist() == apart.panel["gene"].tolist()
    assert together.history["epoch"].tolist() == apart.history["epoch"].tolist()


# --- the time of a fit


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_a_selector_names_the_libraries_that_it_imports_while_it_runs(name: str) -> None:
    imported: set[str] = set()
    for kind in SELECTORS[name].__mro__:
        if not kind.__module__.startswith("mmlab."):
            continue
        tree = ast.parse(Path(inspect.getfile(kind)).read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for node in (node for function in functions for node in ast.walk(function)):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
    libraries = imported - sys.stdlib_module_names - {"mmlab"}
    assert libraries <= {library.partition(".")[0] for library in SELECTORS[name].libraries}


def test_the_time_of_a_fit_is_that_of_the_selection_alone(
    tiny_cells: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)
    (tmp_path / "slow_library.py").write_text("import clock\nclock.now += 100.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "clock", clock)
    for module in (batched_fit, trial_run, replicate):
        monkeypatch.setattr(module, "time", clock)

    def run(self: RandomSelector, data: TrainingData) -> Iterator[Epoch]:
        importlib.import_module("slow_library")
        clock.now += 2.0
        self._set_panel(np.arange(4), np.zeros(data.x.shape[1]), data)
        yield from ()

    def slowly(seconds: float, function: Any) -> Any:
        def slow(*arguments: Any, **options: Any) -> Any:
            clock.now += seconds
            return function(*arguments, **options)

        return slow

    monkeypatch.setattr(RandomSelector, "run", run)
    monkeypatch.setattr(RandomSelector, "libraries", ("slow_library",))
    for module, name, seconds in (
        (trial_run, "replicate_layers", 10.0),
        (replicate, "evaluate_panel", 20.0),
    ):
        monkeypatch.setattr(module, name, slowly(seconds, getattr(module, name)))
    spec = TrialSpec(
        data={"path": "tiny.h5ad", "label_key": "cell_type"}, selector="random", n_markers=4
    )
    result = run_trial(spec, tiny_cells)
    assert result.replicates["fit_seconds"].tolist() == [2.0]
    assert result.replicates["seconds"].tolist() == [32.0]
    assert result.seconds == 132.0
