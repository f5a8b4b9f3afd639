"""The two stages of PERSIST (Covert et al. 2023): eliminate most genes, select among the rest."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmlab.nn.persist_masks import BinaryGates, ConcreteMask, GeneMask
from mmlab.nn.persist_training import MaskedNetwork, PersistConfig, Task, train_masked

_log = logging.getLogger(__name__)

#: Genes that the elimination aims to leave for every selector.
_LEFT_PER_SELECTOR = 10
#: Share of the aim by which the number of genes left may miss it.
_TOLERANCE = 0.49
_MAX_TRIALS = 10
#: Masks are judged by their mean over so many draws, and are settled within 0.01 of 0 or 1.
_DRAWS = 64
_SETTLED = 0.01
_SMALLEST_SLOPE = 1e-6


@torch.no_grad()
def _mean_mask(mask: GeneMask, temperature: float) -> Tensor:
    """Mean of many draws, shape (n_genes,)."""
    mean: Tensor = mask(_DRAWS, temperature).mean(dim=0)
    return mean


@dataclass(frozen=True)
class PenaltyTrial:
    """A penalty, and how many genes the elimination left with it."""

    penalty: float
    kept: int


def next_penalty(trials: Sequence[PenaltyTrial], target: int) -> float:
    """The penalty to try after ``trials``, so that ``target`` genes are left.

    A secant step in ``y = 1 / (1 + kept)`` from the last trial, with the slope of all trials
    before it: ``sum_i sign(p_i - p)(y_i - y) / sum_i |p_i - p|``, at least 1e-6. The result is
    within a factor of ten of the last penalty.

    Parameters
    ----------
    trials
        The first is (0, number of genes): without a penalty none is eliminated. The last has
        a positive penalty.
    """
    *past, last = trials
    y = 1 / (1 + last.kept)
    rise = sum(
        math.copysign(1, trial.penalty - last.penalty) * (1 / (1 + trial.kept) - y)
        for trial in past
        if trial.penalty != last.penalty
    )
    run = sum(abs(trial.penalty - last.penalty) for trial in past)
    slope = max(rise / run, _SMALLEST_SLOPE)
    wanted = last.penalty + (1 / (1 + target) - y) / slope
    return min(max(wanted, 0.1 * last.penalty), 10 * last.penalty)


def eliminate(
    task: Task, n_selectors: int, config: PersistConfig, generator: torch.Generator
) -> Tensor:
    """Which free genes stay: the first stage.

    Gates are trained with a penalty on the number of open ones; the penalty is searched until
    about ten genes a selector are left (within 49 %). Every trial goes on from the network of
    the one before, unless that had closed too many gates.

    Returns
    -------
    Bool tensor of shape (n_free,). All True where ten genes a selector are not fewer than half
    of the free genes. Where ten trials do not suffice, what the closest of them kept, or, with
    ``config.keep_all``, all genes as published; the log has a warning then.
    """
    n_free = task.free.shape[1]
    target = _LEFT_PER_SELECTOR * n_selectors
    everything = torch.ones(n_free, dtype=torch.bool, device=task.free.device)
    if target >= 0.5 * n_free:
        return everything

    def new_network() -> MaskedNetwork:
        return _network(BinaryGates(n_free, generator), task, config, generator)

    network, penalty = new_network(), task.first_penalty
    trials = [PenaltyTrial(0.0, n_free)]
    closest = everything
    for _ in range(_MAX_TRIALS):
        kept = _close_gates(network, task, config, penalty, generator)
        n_kept = int(kept.sum())
        trials.append(PenaltyTrial(penalty, n_kept))
        if abs(n_kept - target) <= _TOLERANCE * target:
            return kept
        if n_kept >= n_selectors and _distance(n_kept, target) < _distance(
            int(closest.sum()), target
        ):
            closest = kept
        if closed_too_many(n_kept, target):
            network = new_network()
        penalty = next_penalty(trials, target)
    tried = ", ".join(f"{trial.kept} at {trial.penalty:.3g}" for trial in trials[1:])
    left = everything if config.keep_all else closest
    _log.warning(
        "PERSIST goes on with %d genes: no penalty left about %d of %d (%s).",
        int(left.sum()),
        target,
        n_free,
        tried,
    )
    return left


def _distance(n_kept: int, target: int) -> float:
    """How far a number of genes is from the wanted one, as a factor."""
    return abs(math.log(n_kept / target))


def closed_too_many(n_kept: int, target: int) -> bool:
    """Whether the next trial has to start anew: closed gates hardly open again."""
    return n_kept < (1 - _TOLERANCE) * target


def _network(
    mask: GeneMask, task: Task, config: PersistConfig, generator: torch.Generator
) -> MaskedNetwork:
    return MaskedNetwork(mask, task.seen.shape[1], task.n_outputs, config.hidden_size, generator)


def _close_gates(
    network: MaskedNetwork,
    task: Task,
    config: PersistConfig,
    penalty: float,
    generator: torch.Generator,
) -> Tensor:
    """One trial of the elimination; the genes that it keeps, bool, shape (n_free,)."""

    def ends(epoch: int, temperature: float) -> bool:
        mean = _mean_mask(network.mask, temperature)
        return bool((torch.minimum(mean, 1 - mean) < _SETTLED).all())

    train_masked(network, task, config, config.elimination_epochs, penalty, ends, generator)
    return network.mask.probabilities() > 0.5


def select(
    task: Task, n_selectors: int, config: PersistConfig, generator: torch.Generator
) -> Tensor:
    """Probability with which each selector takes each free gene: the second stage.

    After every epoch but the last, selectors whose favourite gene is also that of a later one
    start again. Training ends early once there were none and the mean masks of ``n_selectors``
    genes exceed 0.99.

    Returns
    -------
    Tensor of shape (n_selectors, n_free), float32; rows sum to 1.
    """
    mask = ConcreteMask(n_selectors, task.free.shape[1], generator)
    network = _network(mask, task, config, generator)

    def ends(epoch: int, temperature: float) -> bool:
        # A selector that starts again after the last epoch would hold a random gene.
        if epoch == config.selection_epochs or mask.reset_repeated():
            return False
        largest = _mean_mask(mask, temperature).topk(n_selectors).values
        return bool(largest[-1] > 1 - _SETTLED)

    train_masked(network, task, config, config.selection_epochs, 0.0, ends, generator)
    return mask.probabilities()
