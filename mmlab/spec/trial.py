"""What is run: the frozen description of a trial, and what those of studies are made of.

Everything here is plain data that YAML and JSON can hold; names (of datasets, selectors,
parameters) are checked where their registries are known, in :mod:`mmlab.trial.defaults`.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)

#: Raised whenever a change of the code changes results: it is part of every digest.
PROTOCOL_NUMBER = 1


def _plain(value: Any) -> Any:
    if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"must be a text, true, false or a finite number, got {value!r}")
    return value


Scalar = bool | int | float | str
#: A scalar that JSON can hold.
Value = Annotated[Scalar, BeforeValidator(_plain)]
Count = Annotated[int, Field(strict=True, ge=1)]
Seed = Annotated[int, Field(strict=True, ge=0)]
Recipe = Literal["train_only", "paper"]
#: A gene's or a group's name.
Name = Annotated[str, Field(min_length=1)]
#: Smallest and largest weight of a gene that is not forbidden.
LEAST_WEIGHT, MOST_WEIGHT = 1e-3, 1e3
#: ``paper``: random 70/10/20 splits of all cells. ``search``: 20 % of the cells are locked, the
#: same ones for every search; methods are judged on validation cells. ``locked``: as in a search,
#: but judged on the locked cells.
Protocol = Literal["paper", "search", "locked"]


class Spec(BaseModel):
    """Base of all specifications: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSpec(Spec):
    """Which cells: the name of a dataset, or an ``.h5ad`` file with its label column."""

    name: str | None = Field(None, description="a name of `mmlab datasets list`")
    path: str | None = Field(None, description="an .h5ad file with raw counts")
    label_key: str | None = Field(None, description="the obs column with the cell types")
    layer: str | None = Field(
        None, description="where the counts are: a layer, X or raw; default: found"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.path is None):
            raise ValueError("give either a dataset's name or the path of an .h5ad file")
        if self.path is not None and self.label_key is None:
            raise ValueError("a file needs label_key, the obs column that holds the cell types")
        if self.name is not None and (self.label_key is not None or self.layer is not None):
            raise ValueError("label_key and layer belong to a file, not to a named dataset")
        return self

    @property
    def title(self) -> str:
        """Name of the dataset, or the file's name without its ending."""
        return self.name if self.name is not None else Path(str(self.path)).stem


NoiseKind = Literal["uniform", "uniform_other", "pairwise", "class_dependent"]


class Noise(Spec):
    """Wrong labels for train and validation cells; test labels stay clean.

    A share ``level`` of the cells gets another label: any class, which may be the true one, as in
    the paper (``uniform``); any class but the true one (``uniform_other``); the class nearest in
    expression (``pairwise``); or what ``matrix`` says (``class_dependent``).
    """

    level: Annotated[float, Field(ge=0, le=1)] = 0.0
    kind: NoiseKind = "uniform"
    matrix: dict[str, dict[str, float]] = Field(
        {},
        description="of class_dependent: by true class, the probability of each class in its "
        "place; a class that is not named keeps its labels",
    )

    @model_validator(mode="after")
    def _matrix_of_probabilities(self) -> Self:
        if (self.kind == "class_dependent") != bool(self.matrix):
            raise ValueError("a matrix belongs to the kind class_dependent, and that needs one")
        for name, row in self.matrix.items():
            total = sum(row.values())
            if min(row.values(), default=0) < 0 or not math.isclose(total, 1, abs_tol=1e-6):
                raise ValueError(
                    f"the probabilities of true class {name!r} must not be negative and add up "
                    f"to 1; they add up to {total:g}"
                )
        return self


def check_weight(value: float) -> float:
    """A gene's weight, unless it is out of its range (``ValueError``)."""
    if value and not LEAST_WEIGHT <= value <= MOST_WEIGHT:
        raise ValueError(
            f"a weight is 0 (the gene is forbidden) or from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, "
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


def _is_nothing(value: object) -> bool:
    return not value


class TrialSpec(Spec):
    """The unit of work: data, recipe, selector with all its parameters, k, noise, R, seed."""

    data: DataSpec
    selector: str
    params: dict[str, Value] = {}
    n_markers: Count = 50
    recipe: Recipe = "train_only"
    protocol: Protocol = "paper"
    noise: Noise = Noise()
    include: list[str] = Field([], description="genes that every panel must hold")
    exclude: list[str] = Field([], description="genes that no panel may hold")
    constraints: Constraints = Field(NO_CONSTRAINTS, exclude_if=_is_nothing)
    replicates: Count = 1
    first_replicate: Seed = Field(0, description="index of the first replicate's split")
    seed: Seed = 0

    def digest(self, fingerprint: str) -> str:
        """Identity of the trial: sha256 over its canonical JSON and the data's fingerprint.

        Where the data lie (name, path) does not count, what they hold (``fingerprint``) does.
        Constraints that ask nothing are not part of it.
        """
        content = self.model_dump(mode="json", exclude={"data"})
        content |= {"fingerprint": fingerprint, "protocol_number": PROTOCOL_NUMBER}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    @model_validator(mode="after")
    def _locked_cells_stay_unseen(self) -> Self:
        if self.protocol != "paper" and self.recipe == "paper":
            raise ValueError(
                "recipe paper takes statistics from all cells, but nothing may see the locked "
                "test cells before it is judged on them: use train_only"
            )
        return self


#: Fields of trials and studies that say what panels hold.
HELD = frozenset({"include", "exclude", "constraints"})


class PanelSpec(Spec):
    """Base of studies: what the panels of all their trials hold."""

    include: list[str] = Field([], description="genes that every panel must hold")
    exclude: list[str] = Field([], description="genes that no panel may hold")
    constraints: Constraints = Field(NO_CONSTRAINTS, exclude_if=_is_nothing)

    @property
    def held(self) -> dict[str, Any]:
        """These three, for a trial or for another study."""
        return {name: getattr(self, name) for name in HELD}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal content gives an equal string."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def constraints_key(spec: TrialSpec | PanelSpec) -> str:
    """Eight letters and digits that tell constrained panels apart; empty without constraints."""
    content = spec.model_dump(mode="json", include=set(HELD))
    if not any(content.values()):
        return ""
    ordered = content | {name: sorted(content[name]) for name in ("include", "exclude")}
    return hashlib.sha256(canonical_json(ordered).encode()).hexdigest()[:8]
