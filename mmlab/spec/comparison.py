"""Comparisons: which methods, at which settings, how often; and the trials that makes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mmlab.spec.base import Count, Scalar, Seed, Spec, Value, canonical_json
from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.protocol import PROTOCOL_NUMBER, Recipe
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import DataSpec, LabelNoise, LabelNoiseKind, TrialSpec

Level = Annotated[float, Field(ge=0, le=1)]
#: What changes along the curves of a comparison; else the name of a parameter.
NOISE_AXIS, SIZE_AXIS = "noise", "n_markers"


class MethodSpec(Spec):
    """A line of a comparison: a selector with its parameters, under a name for the tables."""

    selector: str
    params: dict[str, Value] = Field({}, description="other than its defaults")
    label: str = Field("", description="name in tables; default: the selector's")
    replicates: Count | None = Field(None, description="fewer for a slow method")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"selector": value} if isinstance(value, str) else value

    @property
    def title(self) -> str:
        """Name in tables."""
        return self.label or self.selector


@dataclass(frozen=True)
class Setting:
    """One point of a comparison's axis.

    Attributes
    ----------
    value
        The noise level, the panel size, or the value of the parameter.
    step
        Its place on the axis of MLflow's curves, a whole number: the noise in percent, the panel
        size, the value of a parameter of whole numbers, else its place in the list from 0.
    name
        For people, such as ``k=50``.
    n_markers, noise, params
        What a trial has from it.
    """

    value: Scalar
    step: int
    name: str
    n_markers: int
    noise: LabelNoise
    params: dict[str, Scalar]


class ComparisonSpec(ConstrainedSpec):
    """Methods compared on the same splits of one dataset, along one axis.

    A ``benchmark`` compares them at one panel size or a few, ``robustness`` at levels of label
    noise, a ``sweep`` at many panel sizes or values of one parameter.
    """

    study: Literal["benchmark", "robustness", "sweep"] = "benchmark"
    data: DataSpec
    methods: Annotated[list[MethodSpec], Field(min_length=1)]
    n_markers: list[Count] = Field([50], min_length=1)
    levels: list[Level] = Field([], description="of label noise, each a share of the cells")
    noise: LabelNoiseKind = "uniform"
    matrix: dict[str, dict[str, float]] = Field({}, description="of the noise class_dependent")
    over: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(
        {}, description="the parameter that a sweep varies, with its values"
    )
    replicates: Count = 10
    recipe: Recipe = "train_only"
    protocol: Literal["paper", "locked"] = Field(
        "paper", description="locked: judged on the cells that no search has seen"
    )
    seed: Seed = 0
    umap: bool = Field(False, description="draw UMAPs of the panels of every method")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        titles = [method.title for method in self.methods]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"methods named twice: {', '.join(twice)}; give each a label")
        lists: dict[str, Sequence[Scalar]] = {
            "n_markers": self.n_markers,
            "levels": self.levels,
            **self.over,
        }
        for name, values in lists.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} holds a value twice: {values}")
        return self

    @model_validator(mode="after")
    def _one_axis(self) -> Self:
        if (self.study == "robustness") != bool(self.levels):
            raise ValueError("levels belong to the study robustness, and that needs some")
        if self.levels and 0 not in self.levels:
            raise ValueError("levels need 0: what noise costs is measured against it")
        if self.over and self.study != "sweep":
            raise ValueError(f"over belongs to the study sweep, not to {self.study}")
        if len(self.over) > 1:
            raise ValueError(f"over varies one parameter at a time, got {', '.join(self.over)}")
        if (self.over or self.levels) and len(self.n_markers) > 1:
            raise ValueError(
                f"one thing varies at a time: with {self.axis}, give a single n_markers"
            )
        if not self.levels and (self.noise != "uniform" or self.matrix):
            raise ValueError("noise and matrix belong to the study robustness")
        LabelNoise(kind=self.noise, matrix=self.matrix)
        return self

    @property
    def axis(self) -> str:
        """What varies: :data:`NOISE_AXIS`, :data:`SIZE_AXIS`, or the name of a parameter."""
        return NOISE_AXIS if self.levels else next(iter(self.over), SIZE_AXIS)

    @property
    def settings(self) -> list[Setting]:
        """The points of the axis, in the order given."""
        clean, (k, *_) = LabelNoise(), self.n_markers
        if self.levels:
            return [
                Setting(
                    value=level,
                    step=round(100 * level),
                    name=f"noise {100 * level:g} %",
                    n_markers=k,
                    noise=LabelNoise(level=level, kind=self.noise, matrix=self.matrix),
                    params={},
                )
                for level in sorted(self.levels)
            ]
        if not self.over:
            return [Setting(k, k, f"k={k}", k, clean, {}) for k in self.n_markers]
        ((name, values),) = self.over.items()
        whole = all(type(value) is int and value >= 0 for value in values)
        return [
            Setting(
                value=value,
                step=int(value) if whole else index,
                name=f"{name}={value}",
                n_markers=k,
                noise=clean,
                params={name: value},
            )
            for index, value in enumerate(values)
        ]

    def trial(self, method: MethodSpec, setting: Setting, replicate: int) -> TrialSpec:
        """One replicate of a method at a setting."""
        return TrialSpec(
            data=self.data,
            selector=method.selector,
            params=method.params | setting.params,
            n_markers=setting.n_markers,
            noise=setting.noise,
            recipe=self.recipe,
            protocol=self.protocol,
            first_replicate=replicate,
            seed=self.seed,
            **self.constraint_fields,
        )

    def digest(self, fingerprint: str) -> str:
        """Identity of the study: what it compares, on which cells, by which protocol."""
        asked_nothing = {name for name, value in self.constraint_fields.items() if not value}
        content = self.model_dump(mode="json", exclude={"data", "umap", *asked_nothing})
        content |= {"fingerprint": fingerprint, "protocol_number": PROTOCOL_NUMBER}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()


#: Any study, told apart by its key ``study``.
AnyStudy = SearchSpec | ComparisonSpec
