"""Ranges and published values of the parameters that MarkerMap and the other VAEs share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmlab.selectors.parameter_ranges import count_problems

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


def parameter_problems(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return one message per shared parameter that is out of its range.

    Parameters
    ----------
    params
        All parameters of a selector.
    defaults
        Their default values, which ``faithful=True`` requires of the parameters that it fixes.
    """
    counts = ("hidden_size", "latent_size", "max_epochs", "min_epochs", "patience")
    problems = count_problems(params, counts) + count_problems(params, ["batch_size"], least=2)
    if isinstance(params["hidden_size"], str) and params["hidden_size"] not in WIDTH_SHARES:
        problems.append(
            f"hidden_size is {params['hidden_size']!r}, but must be a number or one of "
            f"{', '.join(WIDTH_SHARES)}"
        )
    problems += [
        f"{name} is {params[name]}, but must be a finite number above 0"
        for name in ("initial_temperature", "final_temperature", "learning_rate")
        if params[name] != "auto" and not 0 < params[name] < math.inf
    ]
    if not 0 < params["annealing_share"] <= 1:
        problems.append(f"annealing_share is {params['annealing_share']}, but must be in (0, 1]")
    if not 0 <= params["kl_weight"] < math.inf:
        problems.append(f"kl_weight is {params['kl_weight']}, but must be finite and not negative")
    if params["faithful"]:
        problems += [
            f"{name} is fixed by faithful=true: remove {name}, or set faithful=false"
            for name in _FIXED_BY_FAITHFUL
            if params[name] != defaults[name]
        ]
    return problems
