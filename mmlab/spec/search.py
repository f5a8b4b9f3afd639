"""What a search is: which parameters of a selector vary over which space, for how many trials."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, FiniteFloat, Tag, model_validator

from mmlab.spec.base import Count, Scalar, Seed, Spec, Value
from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.trial import DataSpec, TrialSpec


class Range(Spec):
    """An interval of a search space, both ends included."""

    low: FiniteFloat
    high: FiniteFloat
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be smaller than high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, got {self.low}")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"an integer range needs integers, got {self.low} and {self.high}")
        return self


class Choices(Spec):
    """A list of values of a search space."""

    choices: Annotated[list[Value], Field(min_length=1)]


def _range_or_choices(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return "Choices" if "choices" in keys else "Range"


Parameter = Annotated[
    Annotated[Range, Tag("Range")] | Annotated[Choices, Tag("Choices")],
    Discriminator(_range_or_choices),
]


class SearchSpace(Spec):
    """A search space: which parameters of a selector vary, and which are fixed.

    ``min_epochs_before_stop`` and ``reduction_factor`` steer asynchronous successive halving:
    a trial is compared with the others after min, min * factor, ... epochs (min is at most a
    third of the epochs), and goes on if it is among the best 1 / factor.
    """

    selector: str
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    fixed: dict[str, Value] = Field({}, description="parameters that all trials share")
    min_epochs_before_stop: Count = 10
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0

    def rungs(self, max_epochs: int) -> list[int]:
        """Epochs after which a trial is compared with the others, ascending.

        Not the last epoch: whoever gets that far is evaluated.
        """
        first = min(self.min_epochs_before_stop, max(max_epochs // 3, 1))
        epochs, epoch = [], float(first)
        while epoch <= max(max_epochs - 1, first):
            epochs.append(math.ceil(epoch))
            epoch *= self.reduction_factor
        return epochs

    def corners(self) -> list[dict[str, Scalar]]:
        """Points at the ends of each range and at each choice: if these are valid, all are."""
        points: list[dict[str, Scalar]] = []
        for name, space in self.parameters.items():
            if isinstance(space, Choices):
                points += [{name: value} for value in space.choices]
            else:
                kind = int if space.integer else float
                points += [{name: kind(end)} for end in (space.low, space.high)]
        return points


class SearchSpec(ConstrainedSpec):
    """A search over one selector's parameters, with the baselines that go beside it."""

    study: Literal["search"] = "search"
    data: DataSpec
    search: SearchSpace
    trials: Count
    n_markers: Count = 50
    replicates: Count = 2
    baselines: list[str] = Field([], description="methods that go beside it, as they are")
    seed: Seed = 0

    def trial(self, selector: str, params: dict[str, Scalar]) -> TrialSpec:
        """Trial of this study; it never sees the locked test cells."""
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
