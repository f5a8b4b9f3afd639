"""Training of a mask over genes together with a network, for PERSIST (Covert et al. 2023)."""

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

#: Weight of the cross-entropy of the hurdle loss, which classifies values as zero or not.
_CROSS_ENTROPY_WEIGHT = 10.0


@dataclass(frozen=True)
class PersistConfig:
    """Training parameters of PERSIST; the selector checks their ranges.

    The temperature falls geometrically with every training step, from the first to the last
    step of a stage. With ``keep_all`` (as published), all genes are kept if the elimination
    finds no suitable penalty.
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
class PersistTask:
    """Inputs, targets and loss of a network that PERSIST trains.

    Attributes
    ----------
    included, free
        Binarised counts (0 or 1, float32) of the included genes, which are never masked, and of
        the genes to choose from, shapes (n_cells, n_included) and (n_cells, n_free).
    target
        Targets of the network, one row per cell.
    n_outputs
        Number of outputs of the network.
    loss
        (outputs, target) -> mean loss over cells.
    first_penalty
        Initial value in the search for the penalty of the elimination.
    """

    included: Tensor
    free: Tensor
    target: Tensor
    n_outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    first_penalty: float


class MaskedNetwork(nn.Module):
    """Network with two hidden layers (ReLU, no normalisation) on masked genes.

    The first ``n_included`` columns of the cells are not masked.
    """

    def __init__(
        self,
        mask: GeneMask,
        n_included: int,
        n_outputs: int,
        hidden_size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.mask = mask
        self.n_included = n_included
        self.layers = nn.Sequential(
            linear(n_included + mask.logits.shape[-1], hidden_size, generator),
            nn.ReLU(),
            linear(hidden_size, hidden_size, generator),
            nn.ReLU(),
            linear(hidden_size, n_outputs, generator),
        )

    def forward(self, x: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Return the outputs (n_cells, n_outputs) and the masks (n_cells, n_free).

        ``x`` are cells, shape (n_cells, n_included + n_free).
        """
        mask: Tensor = self.mask(len(x), temperature)
        masked = torch.cat([x[:, : self.n_included], x[:, self.n_included :] * mask], dim=1)
        return self.layers(masked), mask


def hurdle_loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the cell mean of ``sum_g 10 BCE(logit_g, [t_g <= 0]) + [t_g > 0] (t_g - mu_g)^2``.

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
    cross_entropy = functional.binary_cross_entropy_with_logits(
        zero_logit, 1 - positive, reduction="sum"
    )
    squared_error = ((target - mean) * positive).square().sum()
    return (_CROSS_ENTROPY_WEIGHT * cross_entropy + squared_error) / len(target)


def full_batches(n_cells: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Return shuffled minibatches of exactly ``batch_size`` cell indices.

    Cells that are left over are dropped (as by ``drop_last`` of a DataLoader). Fewer cells than
    ``batch_size`` form a single minibatch.
    """
    order = torch.randperm(n_cells, generator=generator, device=generator.device)
    parts = order.split(batch_size)
    return [part for part in parts if len(part) == min(batch_size, n_cells)]


@fast_arithmetic()
def train_masked(
    network: MaskedNetwork,
    task: PersistTask,
    config: PersistConfig,
    epochs: int,
    penalty: float,
    should_stop: Callable[[int, float], bool],
    generator: torch.Generator,
) -> None:
    """Train mask and network with a new Adam optimiser for at most ``epochs`` epochs.

    Parameters
    ----------
    penalty
        Weight of the penalty, which is added to the loss: the number of genes that the mask
        keeps, as the mean over cells.
    should_stop
        (epoch counted from 1, temperature of its last step) -> whether to stop training. It is
        called after every epoch.

    Raises
    ------
    TrainingDivergedError
        The training loss of an epoch is not finite.
    """
    x = torch.cat([task.included, task.free], dim=1)
    fused = x.device.type in ("cpu", "cuda")
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=fused)
    steps_per_epoch = max(len(x) // config.batch_size, 1)
    annealing = Annealing(
        config.initial_temperature, config.final_temperature, epochs * steps_per_epoch
    )
    step, temperature = 0, config.initial_temperature
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), device=x.device)
        for indices in full_batches(len(x), config.batch_size, generator):
            step += 1
            temperature = annealing.temperature(step)
            outputs, mask = network(x[indices], temperature)
            loss = task.loss(outputs, task.target[indices])
            if penalty:
                loss = loss + penalty * mask.sum(dim=1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if not math.isfinite(total):
            raise TrainingDivergedError(
                f"training diverged in epoch {epoch}: the loss is {float(total)}"
            )
        if should_stop(epoch, temperature):
            return
