"""Ranges and published values of the parameters that MarkerMap and the other VAEs share."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mmlab.selectors.vae import VAESelector

#: Width of the hidden layers as a share of the published width.
WIDTH_SHARES = {"auto": 1.0, "half": 0.5}

#: Width of the hidden layers in the published benchmark: (largest number of genes, width).
_PUBLISHED_WIDTHS = ((999, 64), (4000, 256), (math.inf, 500))

#: Parameters that ``faithful=True`` fixes.
_FIXED_BY_FAITHFUL = (
    "initial_temperature",
    "final_temperature",
    "annealing_share",
    "learning_rate",
    "max_epochs",
    "min_epochs",
    "patience",
)


class PublishedTraining(NamedTuple):
    """Values of the published training that differ between the methods.

    Attributes
    ----------
    temperature_decay
        Factor of the temperature after every epoch.
    min_temperature
        Floor of the temperature.
    max_learning_rate
        Largest learning rate of the range test.
    patience
        Epochs without improvement of the validation loss before training ends.
    """

    temperature_decay: float
    min_temperature: float
    max_learning_rate: float
    patience: int


def hidden_width(hidden_size: int | str, n_genes: int) -> int:
    """Return the width of the hidden layers; ``auto`` and ``half`` depend on ``n_genes``."""
    if isinstance(hidden_size, str):
        published = next(width for most, width in _PUBLISHED_WIDTHS if n_genes <= most)
        return int(published * WIDTH_SHARES[hidden_size])
    return hidden_size


def parameter_problems(selector: VAESelector) -> list[str]:
    """Return one message per shared parameter of a selector that is out of its range."""
    problems = [
        f"{name} is {getattr(selector, name)}, but must be at least 1"
        for name in ("hidden_size", "latent_size", "max_epochs", "min_epochs", "patience")
        if not isinstance(getattr(selector, name), str) and getattr(selector, name) < 1
    ]
    if isinstance(selector.hidden_size, str) and selector.hidden_size not in WIDTH_SHARES:
        problems.append(
            f"hidden_size is {selector.hidden_size!r}, but must be a number or one of "
            f"{', '.join(WIDTH_SHARES)}"
        )
    problems += [
        f"{name} is {getattr(selector, name)}, but must be a finite number above 0"
        for name in ("initial_temperature", "final_temperature", "learning_rate")
        if getattr(selector, name) != "auto" and not 0 < getattr(selector, name) < math.inf
    ]
    if selector.batch_size < 2:
        problems.append(f"batch_size is {selector.batch_size}, but must be at least 2")
    if not 0 < selector.annealing_share <= 1:
        problems.append(f"annealing_share is {selector.annealing_share}, but must be in (0, 1]")
    if not 0 <= selector.kl_weight < math.inf:
        problems.append(f"kl_weight is {selector.kl_weight}, but must be finite and not negative")
    if selector.faithful:
        defaults = inspect.signature(type(selector)).parameters
        problems += [
            f"{name} is fixed by faithful=true: remove {name}, or set faithful=false"
            for name in _FIXED_BY_FAITHFUL
            if getattr(selector, name) != defaults[name].default
        ]
    return problems
