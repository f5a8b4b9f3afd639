from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from mmlab.constraints.solver import PanelRules
from mmlab.nn.batches import fast_arithmetic, shuffled_minibatches
from mmlab.nn.concrete_gate import ConcreteGate, assign_distinct_genes, order_by_largest_weight
from mmlab.nn.gates import CandidateGenes, FreeLogitsGate, GateOutput, MarkerMapGate, MaskGate
from mmlab.nn.layers import BatchNorm, Linear, RandomSource
from mmlab.nn.learning_rate_range_test import find_learning_rates, steepest_descent
from mmlab.nn.losses import gaussian_nll, kl_to_standard_normal, markermap_loss
from mmlab.nn.networks import PanelModel, PanelVAE
from mmlab.nn.relaxed_top_k import relaxed_top_k
from mmlab.nn.training import (
    Epoch,
    TrainingDivergedError,
    TrainingPlan,
    evaluate_loss,
    recalibrate_batch_norm,
    train,
)
from mmlab.nn.training_config import Annealing, Decay, EarlyStopping, RangeTest, TrainingConfig

N_CELLS, N_GENES, N_MARKERS = 60, 12, 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def source(*seeds: int) -> RandomSource:
    """Random numbers for one model per seed."""
    return RandomSource([seeded(seed) for seed in seeds])


def candidates(
    n_genes: int = N_GENES, k: int = N_MARKERS, include: Any = (), exclude: Any = ()
) -> CandidateGenes:
    """Candidate genes in which all genes that are neither included nor excluded are free."""
    included = np.array(include, dtype=np.int64)
    free = np.setdiff1d(np.arange(n_genes), [*include, *exclude]).astype(np.int64)
    return CandidateGenes(n_genes, k, included, free)


def markermap_gate(seed: int = 0, beta: float = 0.95, **lists: Any) -> MarkerMapGate:
    return MarkerMapGate(candidates(**lists), 8, beta, source(seed))


def network_input(output: GateOutput) -> Tensor:
    """All inputs of the network, shape (n_models, n_cells, n_inputs)."""
    if output.inputs is not None:
        n_models, n_cells, _ = output.cells.shape
        positions = output.inputs[:, None].expand_as(output.cells)
        return torch.zeros(n_models, n_cells, N_GENES).scatter(2, positions, output.cells)
    return output.cells if output.mask is None else output.cells * output.mask[:, None]


def hard_mask(logits: Tensor) -> Tensor:
    """Mask with 1 for the genes with the largest logits and 0 for all others."""
    panel = logits.topk(N_MARKERS, dim=-1).indices
    return torch.zeros_like(logits).scatter(-1, panel, 1.0)


def test_gumbel_noise_is_standard() -> None:
    n = 100_000
    noise = source(0, 1).gumbel(n)
    assert noise.shape == (2, n)
    assert torch.isfinite(noise).all()
    standard_error = math.pi / math.sqrt(6 * n)
    for values in noise:
        assert float(values.mean()) == pytest.approx(0.5772157, abs=5 * standard_error)
        assert float(values.std()) == pytest.approx(math.pi / math.sqrt(6), rel=0.02)
        assert float((values < 0).float().mean()) == pytest.approx(math.exp(-1), abs=0.008)


@pytest.mark.parametrize("uniform", [0.0, 1.0, 1.0 - 2.0**-24])
def test_gumbel_noise_is_finite_for_every_uniform_number(
    monkeypatch: pytest.MonkeyPatch, uniform: float
) -> None:
    monkeypatch.setattr(RandomSource, "uniform", lambda self, n: torch.full((1, n), uniform))
    assert torch.isfinite(source(0).gumbel(3)).all()


def test_random_numbers_of_a_model_do_not_depend_on_the_other_models() -> None:
    single, batch = source(7), source(3, 7)
    for draw in (
        RandomSource.uniform,
        RandomSource.normal,
        RandomSource.gumbel,
        RandomSource.bernoulli,
        RandomSource.permutations,
    ):
        assert torch.equal(draw(single, 9)[0], draw(batch, 9)[1])
    assert set(batch.bernoulli(50).flatten().tolist()) == {0.0, 1.0}


def test_logits_from_mean_activations_equal_the_mean_of_the_logits() -> None:
    module, x = markermap_gate().train(), normal(1, 20, N_GENES)
    with torch.no_grad():
        module.logits = normal(1, N_GENES, seed=3)
        before = module.logits.clone()
        state = module.noise.generators[0].get_state()
        masked = network_input(module(x, 0.8))
        # Repeat with the same random numbers, but compute the logits of each cell.
        generator = torch.Generator()
        generator.set_state(state)
        same = RandomSource([generator])
        hidden = module.first(x)
        hidden = functional.leaky_relu(module.second(hidden * same.bernoulli(20, 8) / 0.5))
        per_cell = module.last(hidden)
        logits = 0.95 * before + 0.05 * per_cell.mean(dim=1)
        noise = same.gumbel(N_GENES)
    torch.testing.assert_close(module.logits, logits)
    mask = relaxed_top_k(logits + noise, N_MARKERS, 0.8)
    torch.testing.assert_close(masked, x * mask)


def test_gradients_of_a_masked_layer_equal_those_of_autograd() -> None:
    layer = Linear(N_GENES, 5, source(0, 1))
    x, upstream = normal(2, 20, N_GENES), normal(2, 20, 5, seed=2)

    def plain(x: Tensor, mask: Tensor) -> Tensor:
        return torch.stack(
            [
                functional.linear(a * m, w, b)
                for a, m, w, b in zip(x, mask, layer.weight, layer.bias, strict=True)
            ]
        )

    gradients = []
    for function in (layer, plain):
        mask = torch.rand(2, N_GENES, generator=seeded(1)).requires_grad_()
        outputs = function(x, mask)
        (outputs * upstream).sum().backward()
        gradients.append([outputs, mask.grad, layer.weight.grad, layer.bias.grad])
        layer.zero_grad()
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradients_of_a_layer_equal_those_of_autograd() -> None:
    layer = Linear(N_GENES, 5, source(0, 1))
    upstream, gradients = normal(2, 20, 5, seed=2), []
    for function in (layer, lambda x: x @ layer.weight.mT + layer.bias[:, None]):
        x = normal(2, 20, N_GENES).requires_grad_()
        outputs = function(x)
        (outputs * upstream).sum().backward()
        gradients.append([outputs, x.grad, layer.weight.grad, layer.bias.grad])
        layer.zero_grad()
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_a_bfloat16_layer_is_within_rounding_error_and_exact_in_evaluation_mode(
    masked: bool,
) -> None:
    layer, upstream = Linear(300, 40, source(0, 1)), normal(2, 20, 40, seed=2)
    results = []
    for mixed_precision in (False, True):
        layer.mixed_precision = mixed_precision
        x = normal(2, 20, 300).requires_grad_(not masked)
        mask = torch.rand(2, 300, generator=seeded(1)).requires_grad_() if masked else None
        outputs = layer.train()(x, mask)
        (outputs * upstream).sum().backward()
        input_grad = x.grad if mask is None else mask.grad
        results.append([outputs.detach(), input_grad, layer.weight.grad, layer.bias.grad])
        layer.zero_grad()
    for exact, approximate in zip(*results, strict=True):
        assert approximate.dtype == torch.float32
        assert (approximate - exact).norm() < 2**-7 * exact.norm()
    assert not torch.equal(results[0][0], results[1][0])
    assert torch.equal(layer.eval()(normal(2, 20, 300), mask), results[0][0])


def test_batch_norm_is_separate_for_each_model() -> None:
    x = normal(3, 20, 5) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    batched = BatchNorm(5, source(0, 1, 2)).train()
    normalised = batched(x)
    for i in range(3):
        single = nn.BatchNorm1d(5).train()
        torch.testing.assert_close(normalised[i], single(x[i]))
        torch.testing.assert_close(batched.running_var.view(3, 5)[i], single.running_var)
        evaluated = batched.eval()(x)[i]
        torch.testing.assert_close(evaluated, single.eval()(x[i]))


def test_the_running_logits_carry_no_gradient_from_step_to_step() -> None:
    module = markermap_gate().train()
    module(normal(1, 20, N_GENES), 1.0)
    assert not module.logits.requires_grad
    masked = network_input(module(normal(1, 20, N_GENES, seed=1), 1.0))
    (masked * normal(1, 20, N_GENES, seed=2)).sum().backward()
    assert module.last.weight.grad is not None
    assert float(module.last.weight.grad.abs().max()) > 0


def test_evaluation_mode_uses_the_hard_mask_and_no_random_numbers() -> None:
    module = markermap_gate()
    module(normal(1, 20, N_GENES), 1.0)
    module.eval()
    before = module.logits.clone(), module.noise.generators[0].get_state().clone()
    x = normal(1, 20, N_GENES, seed=1)
    torch.testing.assert_close(network_input(module(x, 1.0)), x * hard_mask(module.logits)[:, None])
    assert torch.equal(module.logits, before[0])
    assert torch.equal(module.noise.generators[0].get_state(), before[1])


MASK_GATES: dict[str, Callable[..., MaskGate]] = {
    "markermap": markermap_gate,
    "free logits": lambda **lists: FreeLogitsGate(candidates(**lists), source(0)),
}


@pytest.mark.parametrize("name", MASK_GATES)
@pytest.mark.parametrize("training", [True, False])
def test_included_genes_are_not_masked_and_excluded_genes_are_zero(
    name: str, training: bool
) -> None:
    module = MASK_GATES[name](include=[7, 2], exclude=[0, 11], k=4)
    module.train(training)
    x = normal(1, 20, N_GENES) + 5
    mask = (network_input(module(x, 0.5)) / x).detach()[0]
    torch.testing.assert_close(mask[:, [7, 2]], torch.ones(20, 2))
    assert float(mask[:, [0, 11]].abs().max()) == 0
    assert float(mask[0].sum()) == pytest.approx(4, abs=1e-4)
    chosen, scores = module.ranking()
    assert len(chosen) == 2
    assert not set(chosen.tolist()) & {7, 2, 0, 11}
    assert scores.shape == (N_GENES,)
    assert scores[chosen].min() >= scores.max(initial=-np.inf, where=scores < scores[chosen].min())


def test_no_gene_is_chosen_if_included_genes_fill_the_panel() -> None:
    for make in MASK_GATES.values():
        module, x = make(include=[3, 1, 2]), normal(1, 5, N_GENES)
        for training in (True, False):
            module.train(training)
            expected = torch.zeros(N_GENES)
            expected[[3, 1, 2]] = 1
            torch.testing.assert_close(network_input(module(x, 1.0)), x * expected)
        assert len(module.ranking()[0]) == 0


def test_free_logits_are_parameters_drawn_from_a_normal() -> None:
    module = FreeLogitsGate(candidates(n_genes=4000), source(0))
    assert [name for name, _ in module.named_parameters()] == ["logits"]
    assert float(module.logits.detach().mean()) == pytest.approx(0, abs=0.06)
    assert float(module.logits.detach().std()) == pytest.approx(1, abs=0.05)
    masked = network_input(module.train()(normal(1, 4, 4000), 1.0))
    (masked * normal(1, 4, 4000, seed=1)).sum().backward()
    assert module.logits.grad is not None
    assert float(module.logits.grad.abs().max()) > 0


def test_concrete_columns_are_convex_combinations_in_training_and_genes_in_evaluation() -> None:
    module = ConcreteGate(candidates(include=[5]), source(0))
    assert module.n_inputs == N_MARKERS
    x = torch.eye(N_GENES)
    columns = network_input(module.train()(x[None], 0.7)).detach()[0]
    assert columns.shape == (N_GENES, N_MARKERS)
    torch.testing.assert_close(columns[:, 0], x[:, 5])
    torch.testing.assert_close(columns.sum(dim=0), torch.ones(N_MARKERS))
    assert float(columns[5, 1:].max()) == 0
    columns = network_input(module.eval()(x[None], 0.0))[0]
    chosen, scores = module.ranking()
    assert columns[:, 0].tolist() == x[:, 5].tolist()
    assert sorted(columns.argmax(dim=0).tolist()) == sorted([5, *chosen.tolist()])
    assert columns.sum(dim=0).tolist() == [1.0] * N_MARKERS
    assert np.isfinite(scores).all()


def test_a_concrete_column_contains_the_same_gene_in_training_and_evaluation() -> None:
    module = ConcreteGate(candidates(), source(0)).train()
    genes = np.random.default_rng(0).permutation(N_GENES)[:N_MARKERS]
    largest_logits = torch.tensor([10.0, 14.0, 12.0])
    with torch.no_grad():
        module.logits.zero_()
        module.logits[0, torch.arange(N_MARKERS), torch.from_numpy(genes)] = largest_logits
    x = normal(1, 4, N_GENES)
    in_training = network_input(module(x, 0.01))
    torch.testing.assert_close(network_input(module.eval()(x, 0.0)), in_training)
    torch.testing.assert_close(in_training, x[..., genes])
    # The panel is ordered by the largest weight, independent of the order of the columns.
    assert module.ranking()[0].tolist() == genes[[1, 2, 0]].tolist()


def test_a_gene_added_by_the_rules_takes_the_column_of_the_gene_it_replaces() -> None:
    def column_genes(gate: ConcreteGate) -> Any:
        return network_input(gate.eval()(torch.eye(N_GENES)[None], 0.0))[0].argmax(dim=0).numpy()

    unconstrained = ConcreteGate(candidates(), source(0))
    before = column_genes(unconstrained)
    replaced = int(unconstrained.ranking()[0][0])
    weights = np.ones(N_GENES)
    weights[replaced] = 1e-3
    rules = replace(PanelRules.unconstrained(N_GENES), weights=weights)
    constrained = ConcreteGate(replace(candidates(), rules=(rules,)), source(0))
    after = column_genes(constrained)
    assert after[before != replaced].tolist() == before[before != replaced].tolist()
    assert sorted(after.tolist()) == sorted(constrained.ranking()[0].tolist())
    assert replaced not in after


def test_the_random_concrete_panel_is_drawn_once_per_epoch() -> None:
    module = ConcreteGate(candidates(), source(0), random_panel=True).train()
    module(normal(1, 4, N_GENES), 3.0)
    first = module.ranking()
    np.testing.assert_array_equal(first[0], module.ranking()[0])
    assert first[1].sum() == pytest.approx(N_MARKERS, rel=1e-5)
    module.train()
    module(normal(1, 4, N_GENES), 3.0)
    assert not np.array_equal(first[1], module.ranking()[1])


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([[0.2, 0.8, 0.0], [0.6, 0.1, 0.3]], [1, 0]),
        ([[0.9, 0.1, 0.0], [0.7, 0.1, 0.2]], [0, 2]),
        ([[0.6, 0.3, 0.1], [0.8, 0.2, 0.0]], [1, 0]),
        ([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], [0, 1, 2]),
    ],
    ids=["distinct", "next best", "larger weight keeps its gene", "ties"],
)
def test_each_selector_is_assigned_a_distinct_gene(weights: Any, expected: list[int]) -> None:
    assert assign_distinct_genes(np.array(weights)).tolist() == expected


def test_selectors_are_ranked_by_their_largest_weight() -> None:
    assert order_by_largest_weight(np.array([[0.6, 0.3], [0.1, 0.8], [0.6, 0.4]])).tolist() == [
        1,
        0,
        2,
    ]


def vae(alpha: float = 0.5, seed: int = 0, n_genes: int = N_GENES) -> PanelVAE:
    return PanelVAE(n_genes, n_genes, 4, 8, 5, alpha, source(seed))


def linear_layers(*modules: nn.Module) -> list[Linear]:
    return [layer for m in modules for layer in m.modules() if isinstance(layer, Linear)]


def test_layers_have_the_default_initialisation_of_torch() -> None:
    layers = linear_layers(
        MarkerMapGate(candidates(n_genes=200), 100, 0.9, source(0)), vae(n_genes=200)
    )
    assert len(layers) == 3 + 3 + 2 + 3 * 2
    for layer in layers:
        _, n_out, n_in = layer.weight.shape
        default = nn.Linear(n_in, n_out)
        bound = 1 / math.sqrt(n_in)
        assert float(default.weight.detach().abs().max()) <= bound
        for values in (layer.weight.detach(), layer.bias.detach()):
            assert float(values.abs().max()) <= bound
        if layer.weight.numel() > 1000:
            # Uniform over the whole interval, like torch's default.
            assert float(layer.weight.detach().abs().max()) > 0.99 * bound
            ratio = float(layer.weight.detach().std() / default.weight.detach().std())
            assert ratio == pytest.approx(1, rel=0.1)


def test_the_networks_have_the_layers_of_the_paper() -> None:
    def kinds(module: nn.Module) -> list[str]:
        return [type(m).__name__ for m in module.modules() if not list(m.children())]

    hidden = ["Linear", "BatchNorm", "LeakyReLU"]
    network = vae()
    assert kinds(network.first) == ["Linear"]
    assert kinds(network.encoder) == [*hidden[1:], *hidden, "Linear", "LeakyReLU"]
    for head in (network.decoder_mean, network.decoder_log_var, network.classifier):
        assert head is not None
        assert kinds(head) == [*hidden, "Linear"]
    module = markermap_gate()
    assert kinds(module.first) == kinds(module.second) == hidden
    slopes = {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.01}


@pytest.mark.parametrize(
    ("alpha", "decodes", "classifies"), [(0.0, False, True), (0.5, True, True), (1.0, True, False)]
)
def test_heads_with_zero_weight_do_not_exist(alpha: float, decodes: bool, classifies: bool) -> None:
    network = vae(alpha)
    outputs = network(GateOutput(normal(1, 10, N_GENES)))
    assert (outputs.x_mean is not None) == (outputs.x_log_var is not None) == decodes
    assert (outputs.class_logits is not None) == classifies
    assert outputs.mu.shape == outputs.log_var.shape == (1, 10, 5)
    if decodes:
        assert outputs.x_mean.shape == outputs.x_log_var.shape == (1, 10, N_GENES)
    if classifies:
        assert outputs.class_logits.shape == (1, 10, 4)


def test_the_decoder_uses_a_sample_in_training_and_the_mean_in_evaluation() -> None:
    network, x = vae(1.0), GateOutput(normal(1, 10, N_GENES))
    assert network.decoder_mean is not None
    with torch.no_grad():
        one, other = network.train()(x), network(x)
        torch.testing.assert_close(one.mu, other.mu)
        assert not torch.equal(one.x_mean, other.x_mean)
        network.eval()
        outputs = network(x)
        torch.testing.assert_close(outputs.x_mean, network.decoder_mean(outputs.mu))
        torch.testing.assert_close(network(x).x_mean, outputs.x_mean)


def test_the_classifier_uses_the_latent_mean() -> None:
    network, x = vae(0.5).train(), GateOutput(normal(1, 10, N_GENES))
    assert network.classifier is not None
    with torch.no_grad():
        outputs = network(x)
        torch.testing.assert_close(outputs.class_logits, network.classifier(outputs.mu))


def panel_model(alpha: float = 0.5, *seeds: int, beta: Any = 0.9) -> PanelModel:
    noise = source(*(seeds or [0]))
    gate = MarkerMapGate(candidates(), 8, beta, noise)
    return PanelModel(gate, PanelVAE(N_GENES, N_GENES, 4, 8, 5, alpha, noise))


def test_the_network_sees_only_the_genes_of_the_panel() -> None:
    model, x = panel_model(), normal(1, 10, N_GENES)
    model.gate.logits = torch.arange(float(N_GENES))[None]
    changed = x.clone()
    changed[..., : N_GENES - N_MARKERS] += 100
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x, 0.0).mu, model(changed, 0.0).mu)
        changed[..., -1] += 1
        assert not torch.equal(model(x, 0.0).mu, model(changed, 0.0).mu)


def test_the_panel_is_ordered_by_logit_then_by_index() -> None:
    model = panel_model()
    model.gate.logits = torch.zeros(1, N_GENES)
    assert model.panel().tolist() == [0, 1, 2]
    model.gate.logits[0, [7, 4, 9]] = torch.tensor([1.0, 3.0, 2.0])
    assert model.panel().tolist() == [4, 9, 7]
    assert model.panel().dtype == np.int64


# --- losses


def test_gaussian_nll_equals_that_of_torch() -> None:
    x, mean, log_var = (normal(6, 9, seed=s) for s in range(3))
    density = torch.distributions.Normal(mean, (log_var / 2).exp())
    torch.testing.assert_close(gaussian_nll(x, mean, log_var), -density.log_prob(x).sum(dim=-1))


def test_kl_equals_that_of_torch() -> None:
    mu, log_var = (normal(6, 5, seed=s) for s in range(2))
    ours = kl_to_standard_normal(mu, log_var)
    posterior = torch.distributions.Normal(mu, (log_var / 2).exp())
    prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(dim=-1)
    torch.testing.assert_close(ours, expected)
    assert float(kl_to_standard_normal(torch.zeros(1, 5), torch.zeros(1, 5))) == 0


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("kl_weight", [0.0, 0.1])
@pytest.mark.parametrize("per_gene", [True, False])
def test_the_loss_is_the_weighted_sum_of_reconstruction_and_classification(
    alpha: float, kl_weight: float, per_gene: bool
) -> None:
    x, y = normal(1, 7, N_GENES), torch.arange(7)[None] % 4
    outputs = vae(alpha).train()(GateOutput(x))
    expected = torch.zeros(1)
    if alpha < 1:
        log_p = torch.log_softmax(outputs.class_logits, dim=-1)
        expected = expected - (1 - alpha) * log_p[0, torch.arange(7), y[0]].mean()
    if alpha > 0:
        nll = gaussian_nll(x, outputs.x_mean, outputs.x_log_var).mean()
        kl = kl_to_standard_normal(outputs.mu, outputs.log_var).mean()
        expected = expected + alpha * (nll + kl_weight * kl) / (N_GENES if per_gene else 1)
    loss = markermap_loss(outputs, x, y, alpha=alpha, kl_weight=kl_weight, per_gene=per_gene)
    torch.testing.assert_close(loss, expected)


def test_the_unsupervised_loss_does_not_use_the_labels() -> None:
    x = normal(1, 7, N_GENES)
    outputs = vae(1.0)(GateOutput(x))
    invalid = torch.full((1, 7), 10**6)
    loss = markermap_loss(outputs, x, invalid, alpha=1.0, kl_weight=0.1, per_gene=True)
    assert torch.isfinite(loss)


# --- training


def config(**changes: Any) -> TrainingConfig:
    params: dict[str, Any] = {
        "learning_rate": 1e-2,
        "batch_size": 16,
        "max_epochs": 6,
        "min_epochs": 1,
        "patience": 100,
        "schedule": Annealing(3.0, 0.1, 6),
    }
    return TrainingConfig(**(params | changes))


def cells_and_labels(seed: int = 0) -> tuple[Tensor, Tensor]:
    y = torch.arange(N_CELLS) % 4
    x = normal(N_CELLS, N_GENES, seed=seed)
    x[torch.arange(N_CELLS), y] += 4
    return x[None], y[None]


def objective(alpha: float) -> Any:
    return partial(markermap_loss, alpha=alpha, kl_weight=0.1, per_gene=True)


def run(
    alpha: float = 0.5, seed: int = 0, score: Any = None, **changes: Any
) -> tuple[PanelModel, list[Epoch]]:
    model = panel_model(alpha, seed)
    plans = [TrainingPlan(config(**changes), score)]
    data = (*cells_and_labels(), *cells_and_labels(1))
    epochs = [epoch for (epoch,) in train(model, objective(alpha), plans, *data)]
    assert all(epoch is not None for epoch in epochs)
    return model, epochs


def final_weights(model: PanelModel) -> dict[str, Tensor]:
    return dict(model.state_dict())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_same_seed_gives_the_same_training(alpha: float) -> None:
    (one, epochs), (other, other_epochs) = run(alpha), run(alpha)
    assert [e.train_loss for e in epochs] == [e.train_loss for e in other_epochs]
    assert [e.panel.tolist() for e in epochs] == [e.panel.tolist() for e in other_epochs]
    torch.testing.assert_close(final_weights(one), final_weights(other), rtol=0, atol=0)


def test_different_seeds_give_different_trainings() -> None:
    (one, epochs), (other, other_epochs) = run(seed=0), run(seed=1)
    assert epochs[-1].train_loss != other_epochs[-1].train_loss
    assert not torch.equal(one.gate.logits, other.gate.logits)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_training_neither_reads_nor_advances_the_global_generator_of_torch(alpha: float) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, _ = run(alpha)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    other, _ = run(alpha)
    torch.testing.assert_close(final_weights(one), final_weights(other), rtol=0, atol=0)


def test_training_lowers_the_loss_and_reports_every_epoch() -> None:
    _, epochs = run(0.0, max_epochs=30, schedule=Annealing(3.0, 0.1, last=30))
    assert [e.epoch for e in epochs] == list(range(1, 31))
    assert epochs[-1].train_loss < 0.7 * epochs[0].train_loss
    for epoch in epochs:
        assert epoch.validation_loss is not None
        assert math.isfinite(epoch.validation_loss)
        assert epoch.validation_score is None
        assert len(set(epoch.panel.tolist())) == N_MARKERS


def test_the_validation_loss_is_computed_with_the_hard_panel() -> None:
    model, epochs = run(0.5)
    x_val, y_val = cells_and_labels(1)
    model.eval()
    with torch.no_grad():
        outputs = model.network(GateOutput(x_val, hard_mask(model.gate.logits)))
        expected = markermap_loss(outputs, x_val, y_val, alpha=0.5, kl_weight=0.1, per_gene=True)
    assert epochs[-1].validation_loss == pytest.approx(float(expected), rel=1e-5)


def test_the_evaluated_loss_does_not_depend_on_the_batch_size() -> None:
    model, _ = run(0.5)
    x, y = cells_and_labels(2)
    loss = objective(0.5)
    expected = evaluate_loss(model, loss, x, y)
    assert evaluate_loss(model, loss, x, y, batch_size=7) == pytest.approx(expected, rel=1e-5)


def test_the_temperature_falls_geometrically_and_then_is_constant() -> None:
    annealing = Annealing(3.0, 0.1, last=5)
    temperatures = [annealing.temperature(epoch) for epoch in range(1, 9)]
    assert temperatures[0] == pytest.approx(3.0)
    ratios = np.divide(temperatures[1:5], temperatures[:4])
    np.testing.assert_allclose(ratios, (0.1 / 3.0) ** 0.25)
    assert temperatures[4:] == pytest.approx([0.1] * 4)
    _, epochs = run(max_epochs=8, schedule=annealing)
    assert [e.temperature for e in epochs] == temperatures


def test_annealing_over_a_single_epoch_starts_at_the_final_temperature() -> None:
    assert [Annealing(3.0, 0.1, last=1).temperature(epoch) for epoch in (1, 2)] == [0.1, 0.1]


def test_the_published_temperature_decays_down_to_a_floor() -> None:
    decay = Decay(3.0, 0.95, 1e-4)
    assert decay.temperature(1) == 3.0
    assert decay.temperature(25) == pytest.approx(3.0 * 0.95**24)
    assert decay.temperature(1000) == 1e-4


def test_the_steepest_descent_is_where_the_smoothed_loss_falls_fastest() -> None:
    step = np.arange(300)
    losses = 10 - 8 / (1 + np.exp(-(step - 150) / 10))
    # Smoothing with weight 0.98 causes a lag of some tens of steps.
    assert 150 <= steepest_descent(losses) <= 200
    spiked = losses.copy()
    spiked[:5], spiked[-1] = 100, -1e6
    assert 10 <= steepest_descent(spiked) < 299


def test_the_range_test_finds_a_learning_rate_and_restores_the_model() -> None:
    model, (x, y) = panel_model(0.0), cells_and_labels()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss = objective(0.0)
    (rate,) = find_learning_rates(model, loss, [config()], RangeTest(1e-2, steps=60), x, y)
    assert 1e-8 < rate < 1e-2
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    _, epochs = run(0.0, learning_rate=RangeTest(1e-2, steps=60), max_epochs=2)
    assert len(epochs) == 2


@pytest.mark.parametrize(
    ("losses", "min_epochs", "expected"),
    [
        ([3, 2, 2, 2, 1, 1], 1, 4),
        ([3, 2, 2, 2, 1, 0], 5, 5),
        ([3, 2, math.nan, 1, 1, 1], 1, 3),
        ([6, 5, 4, 3, 2, 1], 1, None),
    ],
    ids=["no improvement", "stays triggered", "not finite", "always improves"],
)
def test_early_stopping_on_the_loss_stays_triggered(
    losses: list[float], min_epochs: int, expected: int | None
) -> None:
    early_stopping = EarlyStopping(config(stop_on="loss", patience=2, min_epochs=min_epochs))
    stops = [early_stopping.should_stop(e, None, loss) for e, loss in enumerate(losses, start=1)]
    assert (stops.index(True) + 1 if True in stops else None) == expected


class Scores:
    """Panel score that returns the given values, one per call."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def __call__(self, panel: Any) -> float:
        assert len(panel) == N_MARKERS
        return self.values.pop(0)


@pytest.mark.parametrize(
    ("scores", "min_epochs", "patience", "expected"),
    [
        ([1, 1, 1, 1, 1, 1], 1, 2, 3),
        ([1, 2, 1, 2, 1, 1], 1, 3, 5),
        ([1, 2, 3, 4, 5, 6], 1, 1, 6),
        ([1, 0, 0, 0, 2, 0], 5, 2, 6),
        ([1, 0, 0, 0, 0, 0], 5, 2, 5),
        ([1, 0.5, 2, 0, 0, 0], 1, 2, 5),
    ],
    ids=[
        "never improves",
        "equal is no improvement",
        "always improves",
        "recovers",
        "waits for min_epochs",
        "drops",
    ],
)
def test_training_stops_when_the_score_does_not_improve(
    scores: list[float], min_epochs: int, patience: int, expected: int
) -> None:
    _, epochs = run(score=Scores(*scores), min_epochs=min_epochs, patience=patience)
    assert len(epochs) == expected
    assert [e.validation_score for e in epochs] == scores[:expected]


def test_without_a_score_training_never_stops_early() -> None:
    _, epochs = run(patience=1, max_epochs=8)
    assert len(epochs) == 8


def test_diverged_training_is_an_error() -> None:
    with pytest.raises(
        TrainingDivergedError, match=r"^training diverged in epoch 1: the loss is (nan|inf)$"
    ):
        run(0.5, learning_rate=1e30)


@given(st.integers(2, 200), st.integers(2, 50), st.integers(0, 100))
def test_minibatches_contain_every_cell_once_and_at_least_two_cells(
    n_cells: int, batch_size: int, seed: int
) -> None:
    minibatches = shuffled_minibatches(n_cells, batch_size, source(seed, seed + 1))
    for order in torch.cat(minibatches, dim=1):
        assert sorted(order.tolist()) == list(range(n_cells))
    assert min(minibatch.shape[1] for minibatch in minibatches) > 1
    assert max(minibatch.shape[1] for minibatch in minibatches) <= batch_size + 1


def test_minibatches_are_shuffled_in_every_call_and_for_every_model() -> None:
    noise = source(0, 1)
    (first_call, other_model), (second_call, _) = (
        torch.cat(shuffled_minibatches(100, 10, noise), dim=1).tolist() for _ in range(2)
    )
    assert first_call != second_call
    assert first_call != other_model
    assert first_call != sorted(first_call)


def batch_norms(model: PanelModel) -> list[nn.BatchNorm1d]:
    return [m for m in model.network.modules() if isinstance(m, nn.BatchNorm1d)]


def test_recalibration_changes_only_the_batch_norm_statistics() -> None:
    model, _ = run(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = [(norm.momentum, norm.eps, norm.affine) for norm in batch_norms(model)]
    generator_state = model.gate.noise.generators[0].get_state()
    recalibrate_batch_norm(model, cells_and_labels()[0])
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    changed = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert any(name.endswith("running_mean") for name in changed)
    assert all(name.startswith("network.") and name.endswith(statistics) for name in changed)
    assert [(norm.momentum, norm.eps, norm.affine) for norm in batch_norms(model)] == attributes
    assert torch.equal(model.gate.noise.generators[0].get_state(), generator_state)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("batch_size", [2048, 50, 59])
def test_recalibrated_statistics_equal_those_of_all_cells(batch_size: int) -> None:
    model, _ = run(0.5)
    x, _ = cells_and_labels()
    recalibrate_batch_norm(model, x, batch_size)
    first_linear, first_norm = model.network.first, model.network.encoder[0]
    mask = hard_mask(model.gate.logits)
    with torch.no_grad():
        activations = first_linear(x, mask)[0]
    # A last minibatch of a few cells must not have the weight of a full one.
    torch.testing.assert_close(
        first_norm.running_mean, activations.mean(dim=0), rtol=0.01, atol=0.01
    )
    torch.testing.assert_close(first_norm.running_var, activations.var(dim=0), rtol=0.1, atol=0.01)


def denormals_are_flushed() -> bool:
    smallest_normal = torch.full((1,), torch.finfo(torch.float32).tiny)
    return bool((smallest_normal / 4 == 0).all())


def test_denormals_are_flushed_only_inside_the_block() -> None:
    assert not denormals_are_flushed()
    with fast_arithmetic():
        assert denormals_are_flushed()
    assert not denormals_are_flushed()
    with pytest.raises(ZeroDivisionError), fast_arithmetic():
        raise ZeroDivisionError
    assert not denormals_are_flushed()


def test_fast_arithmetic_is_off_while_train_is_suspended() -> None:
    model = panel_model()
    x, y = cells_and_labels()
    next(iter(train(model, objective(0.5), [TrainingPlan(config())], x, y)))
    assert not denormals_are_flushed()
