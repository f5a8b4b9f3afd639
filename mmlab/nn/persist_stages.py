"""The two stages of PERSIST (Covert et al. 2023): elimination of most genes, then selection."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmlab.nn.persist_masks import BinaryConcreteMask, ConcreteMask, GeneMask
from mmlab.nn.persist_training import MaskedNetwork, PersistConfig, PersistTask, train_masked

_log = logging.getLogger(__name__)

#: Number of genes per selector that the elimination aims to keep.
_GENES_PER_SELECTOR = 10
#: Largest relative deviation of the number of kept genes from its target.
_TOLERANCE = 0.49
_MAX_ATTEMPTS = 10
#: Convergence is checked on the mean mask over this number of draws.
_N_DRAWS = 64
#: A value of the mean mask has converged if it is within this distance of 0 or 1.
_CONVERGENCE_TOLERANCE = 0.01
_MIN_SLOPE = 1e-6


@torch.no_grad()
def _mean_mask(mask: GeneMask, temperature: float) -> Tensor:
    """Return the mean of ``_N_DRAWS`` random masks, shape (n_genes,)."""
    mean: Tensor = mask(_N_DRAWS, temperature).mean(dim=0)
    return mean


@dataclass(frozen=True)
class EliminationResult:
    """Penalty of an elimination, and the number of genes that it kept."""

    penalty: float
    n_kept: int


def next_penalty(results: Sequence[EliminationResult], target: int) -> float:
    """Return the next penalty to try in the search for one that keeps ``target`` genes.

    It is found by a secant step in ``y = 1 / (1 + n_kept)`` from the last result, with the slope
    ``sum_i sign(p_i - p)(y_i - y) / sum_i |p_i - p|`` over all earlier results, at least 1e-6.
    The returned penalty is within a factor of ten of the last one.

    Parameters
    ----------
    results
        Results so far. The first is (0, number of genes), because nothing is eliminated without
        a penalty. The penalty of the last is positive.
    target
        Number of genes to keep.
    """
    *earlier, last = results
    y = 1 / (1 + last.n_kept)
    rise = sum(
        math.copysign(1, result.penalty - last.penalty) * (1 / (1 + result.n_kept) - y)
        for result in earlier
        if result.penalty != last.penalty
    )
    run = sum(abs(result.penalty - last.penalty) for result in earlier)
    slope = max(rise / run, _MIN_SLOPE)
    penalty = last.penalty + (1 / (1 + target) - y) / slope
    return min(max(penalty, 0.1 * last.penalty), 10 * last.penalty)


def eliminate(
    task: PersistTask, n_selectors: int, config: PersistConfig, generator: torch.Generator
) -> Tensor:
    """Return which free genes the first stage of PERSIST keeps.

    A binary mask is trained with a penalty on the number of genes that it keeps. The penalty is
    varied until about ten genes per selector are kept (within 49 %). Each attempt continues
    with the network of the previous one, unless that one eliminated too many genes.

    Returns
    -------
    Bool tensor of shape (n_free,). All True if ten genes per selector are at least half of the
    free genes: then nothing is trained. If no penalty is found in ten attempts, a warning is
    logged, and the result is that of the attempt closest to the target or, with
    ``config.keep_all`` (as published), all genes.
    """
    n_free = task.free.shape[1]
    target = _GENES_PER_SELECTOR * n_selectors
    all_genes = torch.ones(n_free, dtype=torch.bool, device=task.free.device)
    if target >= 0.5 * n_free:
        return all_genes

    def new_network() -> MaskedNetwork:
        return _network(BinaryConcreteMask(n_free, generator), task, config, generator)

    network, penalty = new_network(), task.first_penalty
    results = [EliminationResult(0.0, n_free)]
    closest = all_genes
    for _ in range(_MAX_ATTEMPTS):
        kept = _eliminate_with_penalty(network, task, config, penalty, generator)
        n_kept = int(kept.sum())
        results.append(EliminationResult(penalty, n_kept))
        if abs(n_kept - target) <= _TOLERANCE * target:
            return kept
        if n_kept >= n_selectors and _log_ratio(n_kept, target) < _log_ratio(
            int(closest.sum()), target
        ):
            closest = kept
        if eliminated_too_many(n_kept, target):
            network = new_network()
        penalty = next_penalty(results, target)
    kept = all_genes if config.keep_all else closest
    _log.warning(
        "PERSIST continues with %d genes: no penalty kept about %d of %d genes (tried: %s).",
        int(kept.sum()),
        target,
        n_free,
        ", ".join(f"{result.n_kept} at {result.penalty:.3g}" for result in results[1:]),
    )
    return kept


def _log_ratio(n_kept: int, target: int) -> float:
    """Return the absolute logarithm of the ratio of two numbers of genes."""
    return abs(math.log(n_kept / target))


def eliminated_too_many(n_kept: int, target: int) -> bool:
    """Return whether the next attempt needs a new network: eliminated genes rarely return."""
    return n_kept < (1 - _TOLERANCE) * target


def _network(
    mask: GeneMask, task: PersistTask, config: PersistConfig, generator: torch.Generator
) -> MaskedNetwork:
    return MaskedNetwork(
        mask, task.included.shape[1], task.n_outputs, config.hidden_size, generator
    )


def _eliminate_with_penalty(
    network: MaskedNetwork,
    task: PersistTask,
    config: PersistConfig,
    penalty: float,
    generator: torch.Generator,
) -> Tensor:
    """Train with a penalty; return the genes that the mask keeps, bool, shape (n_free,)."""

    def should_stop(epoch: int, temperature: float) -> bool:
        mean = _mean_mask(network.mask, temperature)
        return bool((torch.minimum(mean, 1 - mean) < _CONVERGENCE_TOLERANCE).all())

    epochs = config.elimination_epochs
    train_masked(network, task, config, epochs, penalty, should_stop, generator)
    return network.mask.probabilities() > 0.5


def select(
    task: PersistTask, n_selectors: int, config: PersistConfig, generator: torch.Generator
) -> Tensor:
    """Run the second stage of PERSIST: train the selectors on the free genes.

    After every epoch but the last, each selector whose most probable gene is also that of a
    later selector is reset. Training stops early after an epoch without a reset in which the
    mean mask exceeds 0.99 for ``n_selectors`` genes.

    Returns
    -------
    Probability of each free gene for each selector, float32, shape (n_selectors, n_free); rows
    sum to 1.
    """
    mask = ConcreteMask(n_selectors, task.free.shape[1], generator)
    network = _network(mask, task, config, generator)

    def should_stop(epoch: int, temperature: float) -> bool:
        # A selector that is reset after the last epoch would choose a random gene.
        if epoch == config.selection_epochs or mask.reset_duplicates():
            return False
        largest = _mean_mask(mask, temperature).topk(n_selectors).values
        return bool(largest[-1] > 1 - _CONVERGENCE_TOLERANCE)

    train_masked(network, task, config, config.selection_epochs, 0.0, should_stop, generator)
    return mask.probabilities()
