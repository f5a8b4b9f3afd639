"""Ranges of the parameters that several methods have, and advice when their training diverges."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlab.selectors.base import Selector

#: Largest value of an integer parameter: libraries expect 32-bit integers.
MAX_COUNT = 2**31 - 1
#: Largest width of the layers of a network, forty times the widest published one. Twice as wide,
#: the weights between two hidden layers, with gradients and moments, would take 26 GB.
MAX_WIDTH = 20_000
_WIDTHS = ("hidden_size", "latent_size")
#: Parameters that can make training diverge.
_CAUSES = (
    *("learning_rate", "initial_temperature", "final_temperature", "kl_weight", "beta"),
    *("path_learning_rate", "path_multiplier", "M"),
)


def count_problems(params: Mapping[str, Any], names: Iterable[str], least: int = 1) -> list[str]:
    """Return one message per integer parameter that is too small or too large; words are ignored.

    Parameters
    ----------
    params
        All parameters of a selector.
    names
        The parameters to check.
    least
        The smallest valid value; the largest is :data:`MAX_WIDTH` or :data:`MAX_COUNT`.
    """
    problems = []
    for name in names:
        value, most = params[name], MAX_WIDTH if name in _WIDTHS else MAX_COUNT
        if isinstance(value, str):
            continue
        if value < least:
            problems.append(f"{name} is {value}, but must be at least {least}")
        elif value > most:
            problems.append(f"{name} is {value}, but must be at most {most}")
    return problems


def constructor_defaults(selector: Selector) -> dict[str, Any]:
    """Return the default value of each argument of a selector's constructor."""
    signature = inspect.signature(type(selector))
    return {name: option.default for name, option in signature.parameters.items()}


@contextmanager
def divergence_advice(selector: Selector) -> Iterator[None]:
    """Add to a ``TrainingDivergedError`` of the block which parameters may be the cause."""
    from mmlab.nn.training import TrainingDivergedError

    try:
        yield
    except TrainingDivergedError as error:
        raise TrainingDivergedError(f"{error}; {_advice(selector)}") from error


def _advice(selector: Selector) -> str:
    defaults = constructor_defaults(selector)
    params = {name: getattr(selector, name) for name in _CAUSES if name in defaults}
    changed = {name: value for name, value in params.items() if value != defaults[name]}
    if changed:
        listed = ", ".join(
            f"{name}={value} (default {defaults[name]})" for name, value in changed.items()
        )
        return f"choose values nearer to the defaults: {listed}."
    return (
        f"the parameters that can be the cause have their default values: try other values of "
        f"{', '.join(params)}, or another method."
    )
