"""Specification of a hyperparameter search: search space, number of trials, baselines."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, FiniteFloat, Tag, model_validator

from mmlab.spec.base import Count, Replicates, Scalar, Seed, Spec, Value
from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.trial import DataSpec, TrialSpec


class Range(Spec):
    """An interval of parameter values, both bounds included."""

    low: FiniteFloat
    high: FiniteFloat
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be smaller than high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range requires low > 0, got {self.low}")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(
                f"an integer range requires integer bounds, got {self.low} and {self.high}"
            )
        return self


class Choices(Spec):
    """A list of categorical parameter values."""

    choices: Annotated[list[Value], Field(min_length=1)]


def _range_or_choices(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return "Choices" if "choices" in keys else "Range"


Parameter = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[Choices, Tag("Choices")],
    Discriminator(_range_or_choices),
]


#: Smallest factor between the epochs after which trials are compared.
MIN_REDUCTION_FACTOR = 1.01


class SearchSpace(Spec):
    """Search space of a selector: parameters that vary and parameters that are fixed.

    ``min_epochs_before_stop`` and ``reduction_factor`` configure asynchronous successive halving
    (ASHA): a trial is compared with the others after min, min * factor, ... epochs (min is at
    most a third of the epochs) and continues if it is among the best 1 / factor.
    """

    selector: str
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    fixed: dict[str, Value] = Field({}, description="parameters that all trials share")
    min_epochs_before_stop: Count = 10
    # Below it, a search has hundreds of epochs at which trials are compared, or without end.
    reduction_factor: Annotated[FiniteFloat, Field(ge=MIN_REDUCTION_FACTOR)] = 2.0

    def rungs(self, max_epochs: int) -> list[int]:
        """Return the epochs after which a trial is compared with the others, ascending.

        The last epoch is not among them: every trial that reaches it is evaluated.
        """
        first = min(self.min_epochs_before_stop, max(max_epochs // 3, 1))
        epochs, epoch = [], float(first)
        while epoch <= max(max_epochs - 1, first):
            epochs.append(math.ceil(epoch))
            epoch *= self.reduction_factor
        return epochs

    def boundary_points(self) -> list[dict[str, Scalar]]:
        """Return the bounds of each range and each choice: if these are valid, all points are."""
        points: list[dict[str, Scalar]] = []
        for name, space in self.parameters.items():
            if isinstance(space, Choices):
                points += [{name: value} for value in space.choices]
            else:
                kind = int if space.integer else float
                points += [{name: kind(bound)} for bound in (space.low, space.high)]
        return points


class SearchSpec(ConstrainedSpec):
    """A search over the parameters of one selector, evaluated together with baselines."""

    study: Literal["search"] = "search"
    data: DataSpec
    search: SearchSpace
    trials: Count
    n_markers: Count = 50
    replicates: Replicates = 2
    baselines: list[str] = Field(
        [], description="methods that are run with their default parameters for reference"
    )
    seed: Seed = 0

    @property
    def n_trials(self) -> int:
        """Number of trials, including the baselines."""
        return self.trials + len(self.baselines)

    def trial(self, selector: str, params: dict[str, Scalar]) -> TrialSpec:
        """Return a trial of this study; it never uses the held-out test set."""
        return TrialSpec(
            data=self.data,
            selector=selector,
            params=params,
            n_markers=self.n_markers,
            protocol="search",
            replicates=self.replicates,
            seed=self.seed,
            **self.constraint_fields,
        )
