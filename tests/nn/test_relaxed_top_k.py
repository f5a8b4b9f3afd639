"""Tests of the relaxed top-k, run a second time with the Triton kernels in their interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmlab.nn import relaxed_top_k as relaxed_top_k_module
from mmlab.nn.relaxed_top_k import relaxed_top_k

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


@pytest.mark.skipif(INTERPRETED, reason="this is the second run")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_triton_kernels_pass_these_tests_in_their_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout


def test_the_triton_kernels_are_used_only_if_requested() -> None:
    relaxed_top_k(normal(5), 2, 1.0)
    assert ("mmlab.nn.relaxed_top_k_triton" in sys.modules) == INTERPRETED


@pytest.mark.skipif(not INTERPRETED, reason="needs the kernels")
def test_kernels_that_cannot_run_are_replaced_by_the_recursion(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mmlab.nn import relaxed_top_k_triton

    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(relaxed_top_k_triton, "draws_and_mask", fail)
    relaxed_top_k_module._kernels_run.cache_clear()
    value_and_gradient(relaxed_top_k, normal(10), 2, 0.5)
    found = value_and_gradient(relaxed_top_k, normal(30), 5, 0.5)
    relaxed_top_k_module._kernels_run.cache_clear()
    assert caplog.messages == [
        "Triton cannot run kernels; training is slower without them: Failed to find C compiler."
    ]
    torch.testing.assert_close(found, value_and_gradient(successive_softmaxes, normal(30), 5, 0.5))


def test_every_row_has_its_own_temperature() -> None:
    keys, temperatures = normal(3, 20), [3.0, 0.5, 0.05]
    batched = relaxed_top_k(keys, 4, torch.tensor(temperatures)[:, None])
    separate = [relaxed_top_k(row, 4, t) for row, t in zip(keys, temperatures, strict=True)]
    torch.testing.assert_close(batched, torch.stack(separate))


def test_the_padding_of_a_triton_block_has_no_effect() -> None:
    for n in (1, 31, 32, 33, 257):
        mask = relaxed_top_k(normal(n), 1, 0.5)
        torch.testing.assert_close(mask, torch.softmax(normal(n) / 0.5, dim=0))


@pytest.mark.parametrize("temperature", [10.0, 0.3, 1e-2, 1e-4])
def test_the_mask_contains_no_denormal_numbers(temperature: float) -> None:
    mask, gradient = value_and_gradient(relaxed_top_k, normal(300) * 4, 20, temperature)
    tiny = torch.finfo(torch.float32).tiny
    assert not ((mask != 0) & (mask < tiny)).any()
    assert torch.isfinite(gradient).all()


def successive_softmaxes(keys: Tensor, k: int, temperature: float) -> Tensor:
    """Equation of Xie & Ermon in plain torch, differentiated by autograd."""
    remaining, mask = keys, torch.zeros_like(keys)
    for _ in range(k):
        p = torch.softmax(remaining / temperature, dim=-1)
        mask = mask + p
        remaining = remaining + (1 - p).clamp_min(1e-7).log()
    return mask


def value_and_gradient(
    function: Callable[[Tensor, int, float], Tensor], keys: Tensor, k: int, temperature: float
) -> tuple[Tensor, Tensor]:
    leaf = keys.clone().requires_grad_()
    mask = function(leaf, k, temperature)
    (mask * normal(*keys.shape, seed=9).to(keys.dtype)).sum().backward()
    assert leaf.grad is not None
    return mask.detach(), leaf.grad


shapes = pytest.mark.parametrize(
    ("shape", "k"), [((30,), 1), ((30,), 7), ((8,), 8), ((200,), 25), ((3, 20), 4)]
)


@shapes
@pytest.mark.parametrize("temperature", [10.0, 3.0, 1.0, 0.2, 0.05])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradient_equal_those_of_the_recursion(
    shape: tuple[int, ...], k: int, temperature: float, dtype: torch.dtype
) -> None:
    keys = normal(*shape, dtype=dtype) * 2
    in_double = value_and_gradient(successive_softmaxes, keys.double(), k, temperature)
    in_dtype = value_and_gradient(successive_softmaxes, keys, k, temperature)
    result = value_and_gradient(relaxed_top_k, keys, k, temperature)
    for value, same_precision, exact in zip(result, in_dtype, in_double, strict=True):
        scale = max(1.0, float(exact.abs().max()))
        # At low temperature the rounding error of float32 alone exceeds 1e-5.
        rounding = float((same_precision - exact).abs().max()) / scale
        tolerance = 1e-10 if dtype == torch.float64 else max(1e-5, 2 * rounding)
        torch.testing.assert_close(value.double() / scale, exact / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize("temperature", [3.0, 0.5])
def test_the_gradient_of_relaxed_top_k_equals_finite_differences(
    temperature: float,
) -> None:
    keys = normal(2, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: relaxed_top_k(a, 4, temperature), [keys])


@shapes
@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4])
def test_relaxed_top_k_stays_finite_and_sums_to_k(
    shape: tuple[int, ...], k: int, temperature: float
) -> None:
    mask, gradient = value_and_gradient(relaxed_top_k, normal(*shape) * 2, k, temperature)
    assert torch.isfinite(mask).all()
    assert torch.isfinite(gradient).all()
    assert mask.min() >= 0
    torch.testing.assert_close(
        mask.sum(dim=-1), torch.full(shape[:-1], float(k)), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("k", [1, 4, 10])
def test_relaxed_top_k_approaches_the_hard_mask(k: int) -> None:
    keys = torch.arange(10.0)[torch.randperm(10, generator=seeded())]
    hard = (keys >= 10 - k).float()
    torch.testing.assert_close(relaxed_top_k(keys, k, 0.05), hard, rtol=0, atol=1e-5)
    assert float((relaxed_top_k(keys, k, 5.0) - hard).abs().max()) > 0.1


def test_the_gradient_does_not_depend_on_the_memory_layout() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(3, 12, generator=generator)
    transposed = torch.randn(12, 3, generator=generator).T
    gradients = []
    for grad_mask in (transposed, transposed.contiguous()):
        leaf = keys.clone().requires_grad_()
        relaxed_top_k(leaf, 4, 0.5).backward(grad_mask)
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_rows_of_relaxed_top_k_are_independent() -> None:
    keys = normal(5, 16)
    separate = [relaxed_top_k(row, 3, 0.7) for row in keys]
    torch.testing.assert_close(relaxed_top_k(keys, 3, 0.7), torch.stack(separate))
