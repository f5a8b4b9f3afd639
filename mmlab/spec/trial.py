"""What is run: the frozen description of a trial, and what those of studies are made of.

Everything here is plain data that YAML and JSON can hold; names (of datasets, selectors,
parameters) are checked where their registries are known, in :mod:`mmlab.trial.defaults`.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from mmlab.spec.base import Count, Seed, Spec, Value, canonical_json, is_nothing
from mmlab.spec.constraints import NO_CONSTRAINTS, Constraints
from mmlab.spec.protocol import PROTOCOL_NUMBER, Protocol, Recipe


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


LabelNoiseKind = Literal["uniform", "uniform_other", "pairwise", "class_dependent"]


class LabelNoise(Spec):
    """Wrong labels for train and validation cells; test labels stay clean.

    A share ``level`` of the cells gets another label: any class, which may be the true one, as in
    the paper (``uniform``); any class but the true one (``uniform_other``); the class nearest in
    expression (``pairwise``); or what ``matrix`` says (``class_dependent``).
    """

    level: Annotated[float, Field(ge=0, le=1)] = 0.0
    kind: LabelNoiseKind = "uniform"
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


class TrialSpec(Spec):
    """The unit of work: data, recipe, selector with all its parameters, k, noise, R, seed."""

    data: DataSpec
    selector: str
    params: dict[str, Value] = Field({})
    n_markers: Count = 50
    recipe: Recipe = "train_only"
    protocol: Protocol = "paper"
    noise: LabelNoise = LabelNoise()
    include: list[str] = Field([], description="genes that every panel must hold")
    exclude: list[str] = Field([], description="genes that no panel may hold")
    constraints: Constraints = Field(NO_CONSTRAINTS, exclude_if=is_nothing)
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
