"""Specification of panel constraints: included and excluded genes, groups, limits, weights."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    model_validator,
)

from mmlab.spec.base import Count, Name, Spec, canonical_json, is_empty

if TYPE_CHECKING:
    from mmlab.spec.trial import TrialSpec

#: Smallest and largest weight of a gene. A weight of 0 excludes the gene.
MIN_WEIGHT, MAX_WEIGHT = 1e-3, 1e3


def check_weight(value: float) -> float:
    """Return the weight of a gene.

    Raises
    ------
    ValueError
        The weight is neither 0 nor in [:data:`MIN_WEIGHT`, :data:`MAX_WEIGHT`].
    """
    if value and not MIN_WEIGHT <= value <= MAX_WEIGHT:
        raise ValueError(
            f"a weight must be 0 (excludes the gene) or between {MIN_WEIGHT:g} and {MAX_WEIGHT:g}, "
            f"got {value:g}"
        )
    return value


Weight = Annotated[FiniteFloat, AfterValidator(check_weight)]


class Constraints(Spec):
    """Constraints on every panel, in addition to the included and excluded genes.

    Mean counts and marker genes are computed from the training cells of a replicate, with the
    labels that the method gets (noisy ones under label noise). A gene is a marker of the cell
    type in which its mean log1p expression (counts scaled to 10,000 per cell) is highest, if
    this mean exceeds the mean over all other cells by at least log(2), a fold change of two. A
    gene is thus a marker of at most one type.

    Of all panels that satisfy the constraints, a trial returns the one with the smallest sum of
    weighted ranks: a gene of weight w at rank r of the method's ranking counts as r / w.
    """

    groups: dict[Name, Name] = Field(
        {}, description="group of each gene; a gene that is not listed belongs to no group"
    )
    max_per_group: Count | None = Field(
        None, description="maximum number of genes per group in a panel"
    )
    max_mean_counts: Annotated[FiniteFloat, Field(gt=0)] | None = Field(
        None, description="exclude genes with a higher mean count per training cell"
    )
    min_per_type: Count | None = Field(
        None, description="minimum number of marker genes of each cell type in a panel"
    )
    weights: dict[Name, Weight] = Field(
        {}, description="priority of each gene; 1 if it is not listed, 0 excludes it"
    )

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if bool(self.groups) != (self.max_per_group is not None):
            raise ValueError("groups and max_per_group go together: give both, or neither")
        return self

    def __bool__(self) -> bool:
        return self != NO_CONSTRAINTS


NO_CONSTRAINTS = Constraints()


#: Fields of trials and studies that constrain their panels.
CONSTRAINT_FIELDS = frozenset({"include", "exclude", "constraints"})


class ConstrainedSpec(Spec):
    """Base class of studies: the panel constraints that all their trials share."""

    include: list[str] = Field([], description="genes that every panel must include")
    exclude: list[str] = Field([], description="genes that no panel may include")
    constraints: Constraints = Field(NO_CONSTRAINTS, exclude_if=is_empty)

    @property
    def constraint_fields(self) -> dict[str, Any]:
        """Values of :data:`CONSTRAINT_FIELDS`, as keyword arguments of a trial or study."""
        return {name: getattr(self, name) for name in CONSTRAINT_FIELDS}


def constraints_key(spec: TrialSpec | ConstrainedSpec) -> str:
    """Return eight hexadecimal digits that identify the constraints; "" without constraints."""
    content = spec.model_dump(mode="json", include=set(CONSTRAINT_FIELDS))
    if not any(content.values()):
        return ""
    ordered = content | {name: sorted(content[name]) for name in ("include", "exclude")}
    return hashlib.sha256(canonical_json(ordered).encode()).hexdigest()[:8]
