"""The ranges of the parameters that MarkerMap and the other autoencoders share."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmlab.selectors.vae import VAESelector

#: Share of the published width, by the name of the choice.
WIDTH_SHARES = {"auto": 1.0, "half": 0.5}

#: What the published training decides by itself.
_DECIDED_BY_FAITHFUL = (
    "initial_temperature",
    "final_temperature",
    "annealing_share",
    "learning_rate",
    "max_epochs",
    "min_epochs",
    "patience",
)


def parameter_problems(selector: VAESelector) -> list[str]:
    """Every shared parameter of a selector that is out of its range, a sentence each."""
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
            f"{name} is decided by the published training: leave it out, or set faithful=false"
            for name in _DECIDED_BY_FAITHFUL
            if getattr(selector, name) != defaults[name].default
        ]
    return problems
