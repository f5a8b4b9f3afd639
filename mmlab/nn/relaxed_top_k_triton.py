"""Triton kernels of the relaxed top-k: one kernel per direction, one program per row of keys.

Without them, :mod:`mmlab.nn.relaxed_top_k` launches 5 k small kernels per direction, each of which
takes longer to launch than to run. With the environment variable ``TRITON_INTERPRET=1`` the
kernels run on a CPU, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _forward_kernel(
    keys_ptr,
    temperature_ptr,
    draws_ptr,
    mask_ptr,
    n_rows,
    n_genes,
    k,
    min_complement,
    tiny,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    gene = tl.arange(0, BLOCK)
    inside = gene < n_genes
    temperature = tl.load(temperature_ptr + row)
    remaining = tl.load(keys_ptr + row * n_genes + gene, mask=inside, other=-float("inf"))
    mask = tl.zeros([BLOCK], dtype=tl.float32)
    for i in range(k):
        # The difference before the division: near the maximum its rounding error is small.
        weights = tl.exp((remaining - tl.max(remaining, axis=0)) / temperature)
        draw = weights / tl.sum(weights, axis=0)
        draw = tl.where(draw < tiny, 0.0, draw)
        position = (i * n_rows + row).to(tl.int64) * n_genes + gene
        tl.store(draws_ptr + position, draw, mask=inside)
        mask += draw
        remaining += tl.log(tl.maximum(1 - draw, min_complement))
    tl.store(mask_ptr + row * n_genes + gene, mask, mask=inside)


@triton.jit
def _backward_kernel(
    draws_ptr,
    temperature_ptr,
    grad_mask_ptr,
    grad_keys_ptr,
    n_rows,
    n_genes,
    k,
    min_complement,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    gene = tl.arange(0, BLOCK)
    inside = gene < n_genes
    temperature = tl.load(temperature_ptr + row)
    grad_mask = tl.load(grad_mask_ptr + row * n_genes + gene, mask=inside, other=0.0)
    grad_keys = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(k):
        position = ((k - 1 - step) * n_rows + row).to(tl.int64) * n_genes + gene
        draw = tl.load(draws_ptr + position, mask=inside, other=0.0)
        complement = 1 - draw
        complement = tl.where(complement > min_complement, complement, float("inf"))
        weighted = draw * (grad_mask - grad_keys / complement)
        grad_keys += (weighted - draw * tl.sum(weighted, axis=0)) / temperature
    tl.store(grad_keys_ptr + row * n_genes + gene, grad_keys, mask=inside)


def draws_and_mask(
    keys: Tensor, k: int, temperature: Tensor, min_complement: float
) -> tuple[Tensor, Tensor]:
    """Return the k draws, shape (k, n_rows, n_genes), and their sum, the mask.

    Parameters
    ----------
    keys
        Shape (n_rows, n_genes), float32.
    temperature
        One temperature per row, shape (n_rows,), float32.
    min_complement
        Lower bound of 1 - p in the logarithm that is added to the keys.
    """
    n_rows, n_genes = keys.shape
    keys = keys.contiguous()
    draws = keys.new_empty((k, n_rows, n_genes))
    mask = torch.empty_like(keys)
    tiny = torch.finfo(keys.dtype).tiny
    _forward_kernel[(n_rows,)](
        keys,
        temperature,
        draws,
        mask,
        n_rows,
        n_genes,
        k,
        min_complement,
        tiny,
        **_launch(n_genes),
    )
    return draws, mask


def gradient(
    draws: Tensor, temperature: Tensor, grad_mask: Tensor, min_complement: float
) -> Tensor:
    """Return the gradient of the loss with respect to the keys, shape (n_rows, n_genes)."""
    k, n_rows, n_genes = draws.shape
    # The kernel reads and writes rows without gaps.
    grad_mask = grad_mask.contiguous()
    grad_keys = torch.empty_like(grad_mask)
    _backward_kernel[(n_rows,)](
        draws,
        temperature,
        grad_mask,
        grad_keys,
        n_rows,
        n_genes,
        k,
        min_complement,
        **_launch(n_genes),
    )
    return grad_keys


def _launch(n_genes: int) -> dict[str, int]:
    block = triton.next_power_of_2(n_genes)
    return {"BLOCK": block, "num_warps": min(max(block // 512, 1), 32)}
