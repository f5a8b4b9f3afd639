"""Panel constraints as a specification: genes to include and exclude, groups, limits, weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    model_validator,
)

from mmlab.spec.base import Count, Name, Spec, canonical_json, is_nothing

if TYPE_CHECKING:
    from mmlab.spec.trial import TrialSpec

#: Smallest and largest weight of a gene that is not forbidden.
MIN_WEIGHT, MAX_WEIGHT = 1e-3, 1e3


def check_weight(value: float) -> float:
    """A gene's weight, unless it is out of its range (``ValueError``)."""
    if value and not MIN_WEIGHT <= value <= MAX_WEIGHT:
        raise ValueError(
            f"a weight is 0 (the gene is forbidden) or from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, "
            f"got {value:g}"
        )
    return value


Weight = Annotated[FiniteFloat, AfterValidator(check_weight)]


class Constraints(Spec):
    """What every panel has to hold beside the genes that it must and must not have.

    Everything is measured on the training cells of a replicate, with the labels that its method
    gets. A gene marks the type in which the mean of its log1p values (counts of every cell scaled
    to 10,000) is highest, if that mean is at least log(2), a fold change of two, above the mean
    over all other cells. So a gene marks one type or none.

    Of all panels that hold the constraints a trial gets the one with the least sum of weighted
    ranks: a gene of weight w that its method has ranked r-th counts as r / w.
    """

    groups: dict[Name, Name] = Field(
        {}, description="group of a gene; a gene that is not named is in none"
    )
    max_per_group: Count | None = Field(None, description="most genes of a group")
    max_mean_counts: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        None, description="genes with more counts a cell, on average, are left out"
    )
    min_per_type: Count | None = Field(None, description="fewest genes that mark each cell type")
    weights: dict[Name, Weight] = Field(
        {}, description="priority of a gene, 1 where it is not named; 0 forbids it"
    )

    @model_validator(mode="after")
    def _groups_with_their_most(self) -> Self:
        if bool(self.groups) != (self.max_per_group is not None):
            raise ValueError("groups and max_per_group go together: give both, or neither")
        return self

    def __bool__(self) -> bool:
        return self != NO_CONSTRAINTS


NO_CONSTRAINTS = Constraints()


#: Fields of trials and studies that say what panels hold.
CONSTRAINT_FIELDS = frozenset({"include", "exclude", "constraints"})


class ConstrainedSpec(Spec):
    """Base of studies: what the panels of all their trials hold."""

    include: list[str] = Field([], description="genes that every panel must hold")
    exclude: list[str] = Field([], description="genes that no panel may hold")
    constraints: Constraints = Field(NO_CONSTRAINTS, exclude_if=is_nothing)

    @property
    def constraint_fields(self) -> dict[str, Any]:
        """These three, for a trial or for another study."""
        return {name: getattr(self, name) for name in CONSTRAINT_FIELDS}


def constraints_key(spec: TrialSpec | ConstrainedSpec) -> str:
    """Eight letters and digits that tell constrained panels apart; empty without constraints."""
    content = spec.model_dump(mode="json", include=set(CONSTRAINT_FIELDS))
    if not any(content.values()):
        return ""
    ordered = content | {name: sorted(content[name]) for name in ("include", "exclude")}
    return hashlib.sha256(canonical_json(ordered).encode()).hexdigest()[:8]
