"""Tests of PERSIST: its masks and losses against explicit formulas, and the selectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from tiny import SMALL_OF_ALL
from torch import Tensor

from mmlab.errors import UserError
from mmlab.nn import persist_stages
from mmlab.nn.persist_masks import (
    BinaryConcreteMask,
    ConcreteMask,
    concrete_max_mask,
    fill_with_gumbel_noise,
)
from mmlab.nn.persist_stages import (
    EliminationResult,
    eliminate,
    eliminated_too_many,
    next_penalty,
    select,
)
from mmlab.nn.persist_training import (
    MaskedNetwork,
    PersistConfig,
    PersistTask,
    full_batches,
    hurdle_loss,
    train_masked,
)
from mmlab.nn.training import TrainingDivergedError
from mmlab.selectors.persist import Persist, PersistSupervised, PersistUnsupervised

K = 6
_FAST_KEYS = (
    "hidden_size",
    "batch_size",
    "elimination_epochs",
    "selection_epochs",
    "learning_rate",
)
FAST = {key: SMALL_OF_ALL[key] for key in _FAST_KEYS}
#: Markers of the simulated cells: three genes for each of three classes.
PLANTED = ((3, 17, 31), (5, 19, 38), (8, 22, 27))

every_mode = pytest.mark.parametrize("mode", ["supervised", "unsupervised", "faithful"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def planted() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Counts of 240 simulated cells and 40 genes, 9 of them markers; and three classes."""
    rng = np.random.default_rng(3)
    y = rng.permutation(np.arange(240) % 3)
    mean = np.full((240, 40), 0.5)
    for label, genes in enumerate(PLANTED):
        mean[:, genes] = 0.05
        mean[np.ix_(y == label, genes)] = 4.0
    return rng.poisson(mean).astype(np.float32), y


def fitted(mode: str, counts: Any, y: Any, k: int = K, lists: Any = None, **params: Any) -> Persist:
    params = FAST | params
    values = sp.csr_matrix(counts).log1p().toarray()
    lists = lists or {}
    if mode == "supervised":
        return PersistSupervised(k, **params).fit(counts, y, **lists)
    if mode == "unsupervised":
        return PersistUnsupervised(k, **params).fit(values, counts=counts, **lists)
    values = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    return PersistUnsupervised(k, faithful=True, **params).fit(values, counts=counts, **lists)


def make_task(x: Tensor, y: Tensor) -> PersistTask:
    """Return a classification task without included genes."""
    loss = torch.nn.functional.cross_entropy
    return PersistTask(x[:, :0], x, y, int(y.max()) + 1, loss, 1e-4)


def make_config(**params: Any) -> PersistConfig:
    defaults = {
        "hidden_size": 16,
        "learning_rate": 1e-2,
        "batch_size": 32,
        "elimination_epochs": 2,
        "selection_epochs": 3,
        "initial_temperature": 10.0,
        "final_temperature": 0.01,
    }
    return PersistConfig(**(defaults | params))


# --- masks


def naive_mask(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    return torch.softmax((logits[:, None] + noise) / temperature, dim=-1).max(dim=0).values


def concrete_example() -> tuple[Tensor, Tensor]:
    logits = torch.randn(4, 9, generator=seeded(1), dtype=torch.float64)
    noise = torch.empty(4, 5, 9, dtype=torch.float64)
    return logits.requires_grad_(), fill_with_gumbel_noise(noise, seeded(2))


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.2])
def test_the_concrete_mask_and_its_gradient_equal_the_formula(temperature: float) -> None:
    logits, noise = concrete_example()
    expected = naive_mask(logits, noise, temperature)
    mask = concrete_max_mask(logits, noise.clone(), torch.empty_like(noise), temperature)
    torch.testing.assert_close(mask, expected)
    weights = torch.randn(mask.shape, generator=seeded(3), dtype=torch.float64)
    (expected_gradient,) = torch.autograd.grad((expected * weights).sum(), logits)
    (gradient,) = torch.autograd.grad((mask * weights).sum(), logits)
    torch.testing.assert_close(gradient, expected_gradient)


def test_the_gradient_of_the_concrete_mask_equals_finite_differences() -> None:
    logits, noise = concrete_example()

    def mask(logits: Tensor) -> Tensor:
        return concrete_max_mask(logits, noise.clone(), torch.empty_like(noise), 0.7)

    assert torch.autograd.gradcheck(mask, (logits,))


def test_converged_selectors_have_a_hard_mask_without_gradient() -> None:
    logits = torch.zeros(3, 5)
    logits[[0, 1, 2], [4, 1, 4]] = 40.0  # two selectors tie at 1, all others tie at 0
    logits.requires_grad_()
    noise = fill_with_gumbel_noise(torch.empty(3, 7, 5), seeded())
    mask = concrete_max_mask(logits, noise, torch.empty_like(noise), 0.01)
    assert mask.detach().tolist() == [[0, 1, 0, 0, 1]] * 7
    mask.sum().backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_gumbel_noise_equals_the_formula() -> None:
    noise = fill_with_gumbel_noise(torch.empty(1000), seeded(5))
    uniform = torch.empty(1000).uniform_(generator=seeded(5))
    torch.testing.assert_close(noise, -(-uniform.log()).log())


@pytest.mark.parametrize("temperature", [10.0, 0.5])
def test_the_binary_mask_equals_the_formula(temperature: float) -> None:
    mask = BinaryConcreteMask(6, seeded(4))
    with torch.no_grad():
        mask.logits.copy_(torch.linspace(-2, 2, 6))
    uniform = torch.empty(5, 6).uniform_(generator=seeded(4))
    logistic = (uniform / (1 - uniform)).log()
    expected = 1 / (1 + (-(mask.logits * 2 + logistic) / temperature).exp())
    torch.testing.assert_close(mask(5, temperature), expected)
    torch.testing.assert_close(mask.probabilities(), 1 / (1 + (-2 * mask.logits).exp()).detach())


def test_initial_masks_keep_nearly_all_genes_and_selectors_are_uniform() -> None:
    binary, concrete = BinaryConcreteMask(3, seeded()), ConcreteMask(2, 4, seeded())
    torch.testing.assert_close(binary.probabilities(), torch.full((3,), 0.99))
    torch.testing.assert_close(concrete.probabilities(), torch.full((2, 4), 0.25))


def test_a_concrete_mask_differs_between_cells_and_calls() -> None:
    mask = ConcreteMask(2, 30, seeded(6))
    first = mask(3, 0.5).detach().clone()
    second = mask(3, 0.5).detach()
    assert len({tuple(row) for row in [*first.tolist(), *second.tolist()]}) == 6
    assert mask(5, 0.5).shape == (5, 30)


def test_the_logits_of_a_concrete_mask_are_three_times_the_stored_logits() -> None:
    mask = ConcreteMask(2, 3, seeded(7))
    with torch.no_grad():
        mask.logits.copy_(torch.tensor([[0.1, -0.2, 0.3], [0.0, 0.5, 0.4]]))
    noise = fill_with_gumbel_noise(torch.empty(2, 4, 3), seeded(7))
    torch.testing.assert_close(mask(4, 0.5), naive_mask(3 * mask.logits, noise, 0.5))
    torch.testing.assert_close(mask.probabilities(), (3 * mask.logits.detach()).softmax(dim=1))


def test_a_selector_is_reset_if_a_later_one_has_the_same_gene() -> None:
    mask = ConcreteMask(5, 8, seeded(8))
    with torch.no_grad():
        mask.logits[range(5), [2, 6, 2, 1, 6]] = 9.0
    before = mask.logits.detach().clone()
    assert mask.reset_duplicates()
    unchanged = (mask.logits == before).all(dim=1)
    assert unchanged.tolist() == [False, False, True, True, True]
    assert mask.logits[:2].abs().max() < 6
    with torch.no_grad():
        mask.logits[range(5), [0, 1, 2, 3, 4]] = 20.0
    before = mask.logits.detach().clone()
    assert not mask.reset_duplicates()
    assert torch.equal(mask.logits, before)


# --- network, loss, training


def test_the_hurdle_loss_equals_the_formula() -> None:
    rng = np.random.default_rng(0)
    mean, logit, target = rng.normal(size=(3, 4, 5))
    target[0, :3] = 0.0
    total = 0.0
    for cell in range(4):
        for gene in range(5):
            t, p = target[cell, gene], 1 / (1 + math.exp(-logit[cell, gene]))
            total -= 10 * math.log(p if t <= 0 else 1 - p)
            total += (t - mean[cell, gene]) ** 2 if t > 0 else 0.0
    outputs = torch.tensor(np.concatenate([mean, logit], axis=1))
    assert float(hurdle_loss(outputs, torch.tensor(target))) == pytest.approx(total / 4)


def test_the_network_masks_all_genes_except_the_included_ones() -> None:
    gene_mask = BinaryConcreteMask(3, seeded(9))
    with torch.no_grad():
        gene_mask.logits.copy_(torch.tensor([-50.0, 50.0, -50.0]))
    network = MaskedNetwork(gene_mask, 2, 4, 8, seeded(9))
    x = torch.ones(6, 5)
    outputs, mask = network(x, 0.01)
    assert mask.tolist() == [[0, 1, 0]] * 6
    masked = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0]).expand(6, 5)
    torch.testing.assert_close(outputs, network.layers(masked))
    assert [layer.weight.shape for layer in network.layers[::2]] == [(8, 5), (8, 8), (4, 8)]


@pytest.mark.parametrize(
    ("n_cells", "sizes"), [(10, [4, 4]), (8, [4, 4]), (4, [4]), (3, [3]), (1, [1])]
)
def test_minibatches_are_full_unless_there_are_fewer_cells(n_cells: int, sizes: list[int]) -> None:
    minibatches = full_batches(n_cells, 4, seeded())
    assert [len(minibatch) for minibatch in minibatches] == sizes
    assert len(torch.cat(minibatches).unique()) == sum(sizes)


def test_the_temperature_falls_with_every_step_over_all_epochs() -> None:
    temperatures: list[float] = []

    class RecordingMask(ConcreteMask):
        def forward(self, n_cells: int, temperature: float) -> Tensor:
            temperatures.append(temperature)
            return super().forward(n_cells, temperature)

    task = make_task(torch.ones(10, 5), torch.arange(10) % 2)
    config = make_config(batch_size=4)
    network = MaskedNetwork(RecordingMask(2, 5, seeded()), 0, 2, 8, seeded())
    epochs: list[tuple[int, float]] = []

    def should_stop(epoch: int, temperature: float) -> bool:
        epochs.append((epoch, temperature))
        return epoch == 2

    train_masked(network, task, config, 3, 0.0, should_stop, seeded())
    np.testing.assert_allclose(temperatures, np.geomspace(10.0, 0.01, 6)[:4])
    assert epochs == [(1, temperatures[1]), (2, temperatures[3])]


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    x, y = torch.ones(10, 5), torch.arange(10) % 2
    task = PersistTask(x[:, :0], x, y, 2, lambda outputs, target: outputs.sum() * math.inf, 1e-4)
    with pytest.raises(TrainingDivergedError, match="training diverged in epoch 1"):
        select(task, 2, make_config(), seeded())


# --- the search for the penalty


@pytest.mark.parametrize(
    ("results", "target", "expected"),
    [
        # slope (0.1 - 0.01) / 1; 1 + (0.02 - 0.1) / 0.09
        ([(0, 99), (1, 9)], 49, 1 / 9),
        # earlier results on each side: ((0.05 - 0.01) + (0.1 - 0.05)) / 2; 1 + (0.1 - 0.05) / 0.045
        ([(0, 99), (2, 9), (1, 19)], 9, 1 + 0.05 / 0.045),
        # no gene was eliminated: the slope is 0 and the step is the largest allowed
        ([(0, 99), (1, 99)], 9, 10.0),
        # all genes were eliminated: 1 + (0.1 - 1) / 0.99 is below the smallest allowed, 0.1
        ([(0, 99), (1, 0)], 9, 0.1),
        # a higher penalty kept more genes: the slope is negative, the step the largest allowed
        ([(0, 99), (1, 9), (2, 49)], 9, 20.0),
        # the same penalty twice
        ([(0, 99), (1, 9), (1, 9)], 49, 1 / 9),
    ],
)
def test_the_next_penalty_equals_examples_computed_by_hand(
    results: list[tuple[float, int]], target: int, expected: float
) -> None:
    penalty = next_penalty([EliminationResult(*result) for result in results], target)
    assert penalty == pytest.approx(expected)


def mock_elimination(monkeypatch: pytest.MonkeyPatch, n_kept: list[int]) -> list[tuple[Any, float]]:
    """Make the attempts keep the given numbers of genes.

    The returned list is filled with the network and the penalty of each attempt.
    """
    attempts: list[tuple[Any, float]] = []

    def eliminate(
        network: Any, task: PersistTask, config: Any, penalty: float, generator: Any
    ) -> Any:
        kept = n_kept[len(attempts)]
        attempts.append((network, penalty))
        return torch.arange(task.free.shape[1]) < kept

    monkeypatch.setattr(persist_stages, "_eliminate_with_penalty", eliminate)
    return attempts


def test_a_new_network_is_used_only_after_eliminating_too_many_genes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With one selector the target is 10 genes, and 6 to 14 are accepted.
    attempts = mock_elimination(monkeypatch, [40, 15, 5, 14])
    task = make_task(torch.ones(8, 40), torch.arange(8) % 2)
    assert int(eliminate(task, 1, make_config(), seeded()).sum()) == 14
    networks, penalties = zip(*attempts, strict=True)
    assert networks[0] is networks[1] is networks[2]
    assert networks[3] is not networks[2]
    assert penalties[0] == 1e-4
    results = [EliminationResult(0, 40), EliminationResult(penalties[0], 40)]
    assert penalties[1] == next_penalty(results, 10)
    assert penalties[2] == next_penalty([*results, EliminationResult(penalties[1], 15)], 10)


@pytest.mark.parametrize(
    ("n_kept", "expected"), [(0, True), (254, True), (255, False), (745, False)]
)
def test_too_many_genes_are_eliminated_below_51_percent_of_the_target(
    n_kept: int, expected: bool
) -> None:
    assert eliminated_too_many(n_kept, 500) == expected


@pytest.mark.parametrize("n_kept", [6, 14])
def test_the_first_attempt_close_to_the_target_is_used(
    n_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = mock_elimination(monkeypatch, [n_kept])
    task = make_task(torch.ones(8, 40), torch.arange(8) % 2)
    assert int(eliminate(task, 1, make_config(), seeded()).sum()) == n_kept
    assert len(attempts) == 1


@pytest.mark.parametrize(("keep_all", "n_kept"), [(False, 20), (True, 40)])
def test_a_failed_search_keeps_the_closest_attempt_or_with_keep_all_all_genes(
    keep_all: bool, n_kept: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = mock_elimination(monkeypatch, [40, 20, 3, 0] + [40] * 6)
    task = make_task(torch.ones(8, 40), torch.arange(8) % 2)
    config = make_config(keep_all=keep_all)
    assert int(eliminate(task, 1, config, seeded()).sum()) == n_kept
    assert len(attempts) == 10
    message = f"continues with {n_kept} genes: no penalty kept about 10 of 40 genes (tried: 40 at "
    assert message in caplog.text


def test_nothing_is_eliminated_if_the_target_is_half_of_the_genes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts = mock_elimination(monkeypatch, [])
    task = make_task(torch.ones(8, 40), torch.arange(8) % 2)
    assert eliminate(task, 2, make_config(), seeded()).all()
    assert not attempts


def count_epochs(monkeypatch: pytest.MonkeyPatch, stage: Any, *args: Any) -> int:
    """Return the number of epochs that a stage trains, from the calls of ``full_batches``."""
    calls: list[int] = []

    def counted(*args: Any) -> list[Tensor]:
        calls.append(1)
        return full_batches(*args)

    monkeypatch.setattr("mmlab.nn.persist_training.full_batches", counted)
    stage(*args)
    return len(calls)


def test_selection_stops_when_the_masks_are_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(torch.eye(4).repeat(2, 1), torch.arange(8) % 4)
    config = make_config(selection_epochs=20)
    monkeypatch.setattr(persist_stages, "_mean_mask", lambda *_: torch.tensor([1.0, 1, 0.98, 0]))
    assert count_epochs(monkeypatch, select, task, 3, config, seeded()) == 20
    monkeypatch.setattr(ConcreteMask, "reset_duplicates", lambda self: False)
    assert count_epochs(monkeypatch, select, task, 2, config, seeded()) == 1
    monkeypatch.setattr(ConcreteMask, "reset_duplicates", lambda self: True)
    assert count_epochs(monkeypatch, select, task, 2, config, seeded()) == 20


@pytest.mark.parametrize(("mean", "epochs"), [([0.995, 0.005], 1), ([0.995, 0.02], 4)])
def test_elimination_stops_when_the_mask_has_converged(
    mean: list[float], epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(torch.ones(8, 40), torch.arange(8) % 2)
    config = make_config(elimination_epochs=4)
    monkeypatch.setattr(persist_stages, "_mean_mask", lambda *_: torch.tensor(mean))
    network = MaskedNetwork(BinaryConcreteMask(40, seeded()), 0, 2, 8, seeded())
    args = (network, task, config, 1e-4, seeded())
    assert count_epochs(monkeypatch, persist_stages._eliminate_with_penalty, *args) == epochs


# --- the selectors


@every_mode
@pytest.mark.parametrize("k", [1, K, 40])
def test_a_panel_has_exactly_k_distinct_genes(mode: str, k: int, planted: Any) -> None:
    selector = fitted(mode, *planted, k=k)
    assert len(set(selector.panel_.tolist())) == len(selector.panel_) == k
    assert selector.scores_.shape == (40,)
    assert np.isfinite(selector.scores_).all()


def test_selectors_with_the_same_gene_contribute_their_next_best(
    planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    probabilities = torch.zeros(3, 40)
    probabilities[0, [7, 4]] = torch.tensor([0.6, 0.4])
    probabilities[1, [7, 2]] = torch.tensor([0.9, 0.1])
    probabilities[2, [7, 2, 9]] = torch.tensor([0.5, 0.3, 0.2])
    monkeypatch.setattr(persist_stages, "select", lambda *_: probabilities)
    selector = fitted("supervised", *planted, k=3)
    assert selector.panel_.tolist() == [7, 4, 2]
    expected = np.zeros(40)
    expected[[7, 4, 2, 9]] = 0.9, 0.4, 0.3, 0.2
    np.testing.assert_allclose(selector.scores_, expected)


@every_mode
def test_panels_respect_include_and_exclude(mode: str, planted: Any) -> None:
    lists = {"include": [39, 0], "exclude": list(range(10, 30))}
    selector = fitted(mode, *planted, lists=lists)
    assert selector.panel_[:2].tolist() == [39, 0]
    assert len(set(selector.panel_.tolist())) == K
    assert not set(selector.panel_.tolist()) & set(lists["exclude"])
    assert not selector.scores_[[39, 0, *lists["exclude"]]].any()
    all_included = fitted(mode, *planted, lists={"include": [4, 30, 2, 11, 9, 1]})
    assert all_included.panel_.tolist() == [4, 30, 2, 11, 9, 1]


@every_mode
def test_the_result_depends_only_on_the_seed(mode: str, planted: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = fitted(mode, *planted, k=1, seed=0)  # with elimination
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = (fitted(mode, *planted, k=1, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.panel_, same.panel_)
    np.testing.assert_array_equal(one.scores_, same.scores_)
    assert not np.array_equal(one.scores_, other.scores_)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 24),
        ("learning_rate", 1e-4),
        ("batch_size", 50),
        ("elimination_epochs", 1),
        ("selection_epochs", 4),
        ("initial_temperature", 3.0),
        ("final_temperature", 1.0),
    ],
)
def test_every_parameter_has_an_effect(key: str, value: Any, planted: Any) -> None:
    for mode in ("supervised", "unsupervised"):
        one, other = fitted(mode, *planted, k=1), fitted(mode, *planted, k=1, **{key: value})
        assert not np.array_equal(one.scores_, other.scores_)


def test_only_the_binarised_counts_are_used(planted: Any) -> None:
    counts, y = planted
    one, other = fitted("supervised", counts, y), fitted("supervised", counts * 7, y)
    np.testing.assert_array_equal(one.scores_, other.scores_)


def test_unsupervised_input_is_the_counts_and_target_is_the_layer(planted: Any) -> None:
    counts, _ = planted
    target = counts - counts.mean(axis=0)
    fits = [
        PersistUnsupervised(K, faithful=True, **FAST).fit(x, counts=c)
        for x, c in ((target, counts), (target, 3 * counts), (2 * target, counts))
    ]
    np.testing.assert_array_equal(fits[0].scores_, fits[1].scores_)
    assert not np.array_equal(fits[0].scores_, fits[2].scores_)


def test_the_faithful_unsupervised_mode_uses_z_scores_and_counts() -> None:
    assert PersistSupervised().input_layer == "counts"
    assert PersistUnsupervised().input_layer == "log1p"
    assert PersistUnsupervised(faithful=True).input_layer == "zscore"
    assert not PersistUnsupervised().needs_counts
    assert PersistUnsupervised(faithful=True).needs_counts
    assert not PersistSupervised().needs_counts


def test_faithful_changes_the_panel(planted: Any) -> None:
    faithful, default = (fitted(mode, *planted) for mode in ("faithful", "unsupervised"))
    assert not np.array_equal(faithful.scores_, default.scores_)


def test_missing_counts_or_counts_of_the_wrong_shape_are_an_error(planted: Any) -> None:
    counts, _ = planted
    with pytest.raises(UserError, match="needs the raw counts"):
        PersistUnsupervised(K, faithful=True, **FAST).fit(counts)
    with pytest.raises(UserError, match=r"counts have shape \(240, 39\)"):
        PersistUnsupervised(K, faithful=True, **FAST).fit(counts, counts=counts[:, :39])


def test_one_error_names_all_parameters_that_are_out_of_range() -> None:
    invalid = {
        "hidden_size": 0,
        "learning_rate": math.inf,
        "batch_size": 0,
        "elimination_epochs": 0,
        "selection_epochs": -1,
        "initial_temperature": 0.0,
        "final_temperature": math.nan,
    }
    with pytest.raises(UserError) as caught:
        PersistSupervised(K, **invalid).check_params()
    for key, value in invalid.items():
        assert f"{key} is {value}, but must be" in str(caught.value)


def test_training_with_fewer_cells_than_a_minibatch(planted: Any) -> None:
    counts, y = planted
    selector = fitted("supervised", counts[:20], y[:20], batch_size=64)
    assert selector.scores_[selector.panel_].max() > 1 / 40


def classes_covered(panel: Any) -> int:
    return sum(bool(set(genes) & set(panel.tolist())) for genes in PLANTED)


#: Parameters with which a short training finds the planted markers.
SUFFICIENT: dict[str, Any] = {"hidden_size": 32, "learning_rate": 2e-2}


@every_mode
def test_planted_markers_are_found(mode: str, planted: Any) -> None:
    selector = fitted(mode, *planted, k=2, selection_epochs=60, **SUFFICIENT)
    # Markers of two classes identify the third; two random genes cover two classes in only 3 %
    # of the draws.
    assert classes_covered(selector.panel_) == 2
    np.testing.assert_array_equal(selector.candidates_, np.arange(40))


def test_elimination_keeps_about_ten_genes_per_selector_with_planted_markers(
    planted: Any,
) -> None:
    selector = fitted("supervised", *planted, k=1, elimination_epochs=30, **SUFFICIENT)
    kept = set(selector.candidates_.tolist())
    assert 6 <= len(kept) <= 14
    assert classes_covered(selector.candidates_) >= 2
    assert selector.panel_[0] in kept
    assert set(np.flatnonzero(selector.scores_).tolist()) == kept
