"""How PERSIST trains a mask over genes and the network behind it (Covert et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmlab.nn.batches import fast_arithmetic
from mmlab.nn.layers import linear
from mmlab.nn.persist_masks import GeneMask
from mmlab.nn.training import TrainingDivergedError
from mmlab.nn.training_config import Annealing

#: Weight of the zero-or-not part of the hurdle loss.
_ZERO_WEIGHT = 10.0


@dataclass(frozen=True)
class PersistConfig:
    """How long and how fast PERSIST trains; checked by the selector that fills it.

    The temperature falls geometrically, step by step, over all epochs of a stage. ``keep_all``
    is the published answer to an elimination that finds no penalty.
    """

    hidden_size: int
    learning_rate: float
    batch_size: int
    elimination_epochs: int
    selection_epochs: int
    initial_temperature: float
    final_temperature: float
    keep_all: bool = False


@dataclass(frozen=True)
class Task:
    """What is learned from which genes.

    Attributes
    ----------
    seen, free
        Binarised counts (0 or 1, float32) of the genes that are always visible and of those to
        choose from, shapes (n_cells, n_seen) and (n_cells, n_free).
    target
        What ``loss`` compares the outputs with; a row a cell.
    n_outputs
        Width of the output of the network.
    loss
        (outputs, target) -> mean over cells.
    first_penalty
        Where the search for the penalty of the elimination begins.
    """

    seen: Tensor
    free: Tensor
    target: Tensor
    n_outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    first_penalty: float


class MaskedNetwork(nn.Module):
    """Two hidden layers (ReLU, no normalisation) over genes that a mask lets through.

    The first ``n_seen`` columns of the cells are always visible.
    """

    def __init__(
        self,
        mask: GeneMask,
        n_seen: int,
        n_outputs: int,
        hidden_size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.mask = mask
        self.n_seen = n_seen
        self.layers = nn.Sequential(
            linear(n_seen + mask.logits.shape[-1], hidden_size, generator),
            nn.ReLU(),
            linear(hidden_size, hidden_size, generator),
            nn.ReLU(),
            linear(hidden_size, n_outputs, generator),
        )

    def forward(self, x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Outputs (n_cells, n_outputs) and masks of cells ``x`` (n_cells, n_seen + n_genes)."""
        mask: Tensor = self.mask(len(x), temperature)
        visible = torch.cat([x[:, : self.n_seen], x[:, self.n_seen :] * mask], dim=1)
        return self.layers(visible), mask


def hurdle_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean over cells of ``sum_g 10 BCE(logit_g, [t_g <= 0]) + [t_g > 0] (t_g - mu_g)^2``.

    Parameters
    ----------
    outputs
        Shape (n_cells, 2 n_genes): the ``mu`` of all genes, then their ``logit``.
    target
        Shape (n_cells, n_genes).

    References
    ----------
    Covert et al., Nature Communications 14:2400 (2023).
    """
    mean, zero_logit = outputs.chunk(2, dim=1)
    positive = (target > 0).to(target.dtype)
    zero_or_not = functional.binary_cross_entropy_with_logits(
        zero_logit, 1 - positive, reduction="sum"
    )
    amount = ((target - mean) * positive).square().sum()
    return (_ZERO_WEIGHT * zero_or_not + amount) / len(target)


def full_batches(n_cells: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Shuffled batches of ``batch_size`` cell indices; cells left over wait for the next epoch.

    Fewer cells than that are one batch.
    """
    order = torch.randperm(n_cells, generator=generator, device=generator.device)
    parts = order.split(batch_size)
    return [part for part in parts if len(part) == min(batch_size, n_cells)]


@fast_arithmetic()
def train_masked(
    network: MaskedNetwork,
    task: Task,
    config: PersistConfig,
    epochs: int,
    penalty: float,
    ends: Callable[[int, float], bool],
    generator: torch.Generator,
) -> None:
    """Train with a fresh Adam for at most ``epochs``.

    Parameters
    ----------
    penalty
        Weight, beside the loss, of the number of genes that the mask lets through (mean over
        cells).
    ends
        (epoch counted from 1, temperature of its last step) -> whether training is over.

    Raises
    ------
    TrainingDivergedError
        The training loss of an epoch is not finite.
    """
    x = torch.cat([task.seen, task.free], dim=1)
    fused = x.device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=fused)
    steps_an_epoch = max(len(x) // config.batch_size, 1)
    annealing = Annealing(
        config.initial_temperature, config.final_temperature, epochs * steps_an_epoch
    )
    step, temperature = 0, config.initial_temperature
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), device=x.device)
        for indices in full_batches(len(x), config.batch_size, generator):
            step += 1
            temperature = annealing.temperature(step)
            outputs, mask = network(x[indices], temperature)
            value = task.loss(outputs, task.target[indices])
            if penalty:
                value = value + penalty * mask.sum(dim=1).mean()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            total += value.detach()
        if not math.isfinite(total):
            raise TrainingDivergedError(
                f"training diverged in epoch {epoch}: the loss is {float(total)}; "
                "lower the learning rate."
            )
        if ends(epoch, temperature):
            return
