"""Specification of a trial: data, selector, parameters, label noise, protocol.

All values can be written as YAML and JSON. :mod:`mmlab.trial.defaults` checks the names of
datasets, selectors and parameters against their registries.
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

from mmlab.spec.base import (
    Count,
    Name,
    Replicates,
    Seed,
    Spec,
    Value,
    canonical_json,
    is_empty,
)
from mmlab.spec.constraints import NO_CONSTRAINTS, Constraints
from mmlab.spec.protocol import PROTOCOL_NUMBER, Protocol, Recipe


class FileOptions(Spec):
    """How a file is read: which of its cells, how genes are named, whether counts are rounded."""

    min_cells_per_type: Count | None = Field(
        None, exclude_if=is_empty, description="leave out cell types with fewer cells than this"
    )
    drop_unlabelled: bool = Field(
        False, exclude_if=is_empty, description="leave out cells without a label"
    )
    gene_names: Name | None = Field(
        None, exclude_if=is_empty, description="column of var with the gene names to use"
    )
    round_counts: bool = Field(
        False,
        exclude_if=is_empty,
        description="round ambient-corrected or estimated counts to integers",
    )


#: All cells, genes as the index of ``var`` names them, and only counts that are integers.
DEFAULT_OPTIONS = FileOptions()


class DataSpec(FileOptions):
    """Source of the cells: a named dataset, or an ``.h5ad`` file and its label column."""

    name: str | None = Field(None, description="a dataset of `mmlab datasets list`")
    path: str | None = Field(None, description="an .h5ad file or AnnData .zarr with raw counts")
    label_key: str | None = Field(None, description="column of obs with the cell types")
    layer: str | None = Field(
        None, description="location of the raw counts: a layer, X or raw; default: detected"
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.name is None) == (self.path is None):
            raise ValueError("give either the name of a dataset or the path of an .h5ad file")
        if self.path is not None and self.label_key is None:
            raise ValueError("a file requires label_key, the column of obs with the cell types")
        of_files = ("label_key", "layer", *FileOptions.model_fields)
        given = [field for field in of_files if getattr(self, field)]
        if self.name is not None and given:
            raise ValueError(f"only a file can have {', '.join(given)}, not a named dataset")
        return self

    @property
    def title(self) -> str:
        """Name of the dataset, or name of the file without its suffix."""
        return self.name if self.name is not None else Path(str(self.path)).stem


LabelNoiseKind = Literal["uniform", "uniform_other", "pairwise", "class_dependent"]


class LabelNoise(Spec):
    """Label noise in the train and validation cells; test labels stay clean.

    A fraction ``level`` of the cells gets a new label. ``uniform`` draws it from all classes,
    the true one included, as in the paper; ``uniform_other`` from all other classes.
    ``pairwise`` takes the class nearest in expression. ``class_dependent`` draws it with the
    probabilities of ``matrix``.
    """

    level: Annotated[float, Field(ge=0, le=1)] = 0.0
    kind: LabelNoiseKind = "uniform"
    matrix: dict[str, dict[str, float]] = Field(
        {},
        description="for class_dependent: probabilities of the new label, one mapping per true "
        "class; a class that is not listed keeps its labels",
    )

    @model_validator(mode="after")
    def _check_matrix(self) -> Self:
        if self.kind == "class_dependent" and not self.matrix:
            raise ValueError("the noise class_dependent requires a matrix")
        if self.matrix and self.kind != "class_dependent":
            raise ValueError(
                f"a matrix is valid only for the noise class_dependent, not {self.kind}"
            )
        for name, row in self.matrix.items():
            total = sum(row.values())
            if min(row.values(), default=0) < 0 or not math.isclose(total, 1, abs_tol=1e-6):
                raise ValueError(
                    f"the probabilities of true class {name!r} must be non-negative and sum to 1; "
                    f"their sum is {total:g}"
                )
        return self


class TrialSpec(Spec):
    """A trial, the unit of work: data, selector with all parameters, panel size, label noise, seed.

    A trial runs the selector on one or more replicates (splits of the same data).
    """

    data: DataSpec
    selector: Name
    params: dict[Name, Value] = Field({})
    n_markers: Count = 50
    recipe: Recipe = "train_only"
    protocol: Protocol = "paper"
    noise: LabelNoise = LabelNoise()
    include: list[str] = Field([], description="genes that every panel must include")
    exclude: list[str] = Field([], description="genes that no panel may include")
    constraints: Constraints = Field(NO_CONSTRAINTS, exclude_if=is_empty)
    replicates: Replicates = 1
    first_replicate: Seed = Field(0, description="index of the first replicate")
    seed: Seed = 0

    def digest(self, fingerprint: str, protocol_number: int | None = None) -> str:
        """Return the SHA-256 that identifies the trial, from its canonical JSON and the data.

        ``protocol_number`` is that of an earlier version of mmlab; None is the present one.

        The content of the data (``fingerprint``) is part of it; their name and path are not.
        Empty constraints are not part of it.
        """
        content = self.model_dump(mode="json", exclude={"data"})
        number = PROTOCOL_NUMBER if protocol_number is None else protocol_number
        content |= {"fingerprint": fingerprint, "protocol_number": number}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    @model_validator(mode="after")
    def _check_recipe(self) -> Self:
        if self.protocol != "paper" and self.recipe == "paper":
            raise ValueError(
                f"recipe paper computes statistics over all cells, which would leak the held-out "
                f"test set of protocol {self.protocol}; use recipe train_only"
            )
        return self
