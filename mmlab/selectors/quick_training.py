"""Budget of a quick training: its steps and epochs follow from the number of training cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mmlab.spec.base import Scalar


def steps_per_epoch(n_cells: int, batch_size: int) -> int:
    """Return the training steps of an epoch; a single cell that is left over makes no step."""
    full, rest = divmod(n_cells, batch_size)
    return max(full + (rest > 1), 1)


@dataclass(frozen=True)
class QuickTraining:
    """A training with a budget of steps, as a function of the number of training cells.

    A panel needs a number of steps that hardly depends on the number of cells: the running logits
    have to move, and the temperature has to fall. A budget in epochs would leave small data with
    too few steps, in which rare types get no marker.

    Attributes
    ----------
    steps
        Smallest number of training steps.
    min_epochs
        Smallest number of epochs. The temperature changes once per epoch: with many cells, a
        few epochs with more than ``steps`` steps in total let it fall gradually.
    batch_size
        Cells per step.
    params
        Parameters that do not depend on the number of cells.
    """

    steps: int
    min_epochs: int
    batch_size: int
    params: Mapping[str, Scalar]

    def epochs(self, n_cells: int) -> int:
        """Return the number of epochs for a number of training cells."""
        steps = steps_per_epoch(n_cells, self.batch_size)
        return max(math.ceil(self.steps / steps), self.min_epochs)

    def params_for(self, n_cells: int, defaults: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return the parameters that differ from the defaults.

        There are none unless the training takes at most half of the steps of the default one: with
        few cells, the default training is short. So a batch is never a large share of the cells.

        Parameters
        ----------
        n_cells
            Number of training cells.
        defaults
            Default parameters of the method.
        """
        epochs = self.epochs(n_cells)
        steps = epochs * steps_per_epoch(n_cells, self.batch_size)
        default_steps = steps_per_epoch(n_cells, int(defaults["batch_size"]))
        default_steps *= int(defaults["max_epochs"])
        if 2 * steps > default_steps:
            return {}
        budget = {"max_epochs": epochs, "min_epochs": epochs, "batch_size": self.batch_size}
        return {**self.params, **budget}
