"""Specification of a comparison: methods, the axis that varies, replicates, and its trials."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mmlab.spec.base import Count, Name, Replicates, Scalar, Seed, Spec, Value, canonical_json
from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.protocol import PROTOCOL_NUMBER, Recipe
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import DataSpec, LabelNoise, LabelNoiseKind, TrialSpec

Level = Annotated[float, Field(ge=0, le=1)]
#: Axis of a comparison: label noise or panel size. Otherwise it is the name of a parameter.
NOISE_AXIS, SIZE_AXIS = "noise", "n_markers"


class MethodSpec(Spec):
    """A method of a comparison: a selector with its parameters and a label for tables."""

    selector: Name
    params: dict[Name, Value] = Field({}, description="parameters that differ from the defaults")
    label: str = Field(
        "", max_length=100, description="name in tables; default: the name of the selector"
    )
    replicates: Replicates | None = Field(
        None, description="replicates of this method, for example fewer for a slow one"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_selector_name(cls, value: Any) -> Any:
        return {"selector": value} if isinstance(value, str) else value

    @property
    def title(self) -> str:
        """Name of the method in tables."""
        return self.label or self.selector


@dataclass(frozen=True)
class Setting:
    """A point on the axis of a comparison.

    Attributes
    ----------
    value
        Noise level, panel size, or value of the parameter.
    step
        Integer step of the MLflow metric: the noise level in percent, the panel size, or the
        value of the parameter if all its values are non-negative integers, otherwise its index
        in the list.
    name
        Name for display, such as ``k=50``.
    n_markers, noise, params
        Panel size, label noise and parameters of a trial at this setting.
    """

    value: Scalar
    step: int
    name: str
    n_markers: int
    noise: LabelNoise
    params: dict[str, Scalar]


class ComparisonSpec(ConstrainedSpec):
    """Comparison of methods on the same splits of one dataset, along one axis.

    ``benchmark`` compares methods at one or a few panel sizes, ``robustness`` at several levels
    of label noise, ``sweep`` at many panel sizes or at several values of one parameter.
    """

    study: Literal["benchmark", "robustness", "sweep"] = "benchmark"
    data: DataSpec
    methods: Annotated[list[MethodSpec], Field(min_length=1)]
    n_markers: list[Count] = Field([50], min_length=1)
    levels: list[Level] = Field(
        [], description="levels of label noise: fractions of the cells, in [0, 1]"
    )
    noise: LabelNoiseKind = "uniform"
    matrix: dict[str, dict[str, float]] = Field(
        {}, description="transition probabilities of the noise class_dependent"
    )
    over: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(
        {}, description="the parameter that a sweep varies, and its values"
    )
    replicates: Replicates = 10
    recipe: Recipe = "train_only"
    protocol: Literal["paper", "locked"] = Field(
        "paper", description="locked: evaluated on the held-out test set that no search uses"
    )
    seed: Seed = 0
    umap: bool = Field(False, description="plot a UMAP of the panel of each method")

    @model_validator(mode="after")
    def _check_duplicates(self) -> Self:
        titles = [method.title for method in self.methods]
        duplicates = sorted({title for title in titles if titles.count(title) > 1})
        if duplicates:
            raise ValueError(
                f"duplicate methods: {', '.join(duplicates)}; give each method a different label"
            )
        lists: dict[str, Sequence[Scalar]] = {
            "n_markers": self.n_markers,
            "levels": self.levels,
            **self.over,
        }
        for name, values in lists.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} contains duplicate values: {values}")
        return self

    @model_validator(mode="after")
    def _check_axis(self) -> Self:
        if self.study == "robustness" and not self.levels:
            raise ValueError("the study robustness requires levels, such as [0, 0.1, 0.2]")
        if self.levels and self.study != "robustness":
            raise ValueError(f"levels are valid only for the study robustness, not {self.study}")
        if self.levels and 0 not in self.levels:
            raise ValueError("levels must include 0, the reference for the effect of label noise")
        if self.over and self.study != "sweep":
            raise ValueError(f"over is valid only for the study sweep, not {self.study}")
        if len(self.over) > 1:
            raise ValueError(f"over can vary only one parameter, got {', '.join(self.over)}")
        if (self.over or self.levels) and len(self.n_markers) > 1:
            raise ValueError(
                f"only one axis can vary: with {self.axis}, n_markers must be a single value, "
                f"got {self.n_markers}"
            )
        if not self.levels and (self.noise != "uniform" or self.matrix):
            raise ValueError("noise and matrix are valid only for the study robustness")
        LabelNoise(kind=self.noise, matrix=self.matrix)
        return self

    @property
    def axis(self) -> str:
        """Axis that varies: :data:`NOISE_AXIS`, :data:`SIZE_AXIS`, or the name of a parameter."""
        return NOISE_AXIS if self.levels else next(iter(self.over), SIZE_AXIS)

    @property
    def settings(self) -> list[Setting]:
        """Points on the axis: noise levels ascending, other values in their given order."""
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
        integers = all(type(value) is int and value >= 0 for value in values)
        return [
            Setting(
                value=value,
                step=int(value) if integers else index,
                name=f"{name}={value}",
                n_markers=k,
                noise=clean,
                params={name: value},
            )
            for index, value in enumerate(values)
        ]

    @property
    def n_trials(self) -> int:
        """Number of trials: methods x settings x replicates."""
        replicates = sum(method.replicates or self.replicates for method in self.methods)
        return replicates * len(self.settings)

    def trial(self, method: MethodSpec, setting: Setting, replicate: int) -> TrialSpec:
        """Return the trial of one replicate of a method at a setting."""
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
        """Return the SHA-256 that identifies the study: its content, data and protocol number.

        The name or path of the data, ``umap`` and empty constraints are not part of it.
        """
        empty = {name for name, value in self.constraint_fields.items() if not value}
        content = self.model_dump(mode="json", exclude={"data", "umap", *empty})
        content |= {"fingerprint": fingerprint, "protocol_number": PROTOCOL_NUMBER}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()


#: Any study; the value of ``study`` identifies its type.
AnyStudy = SearchSpec | ComparisonSpec
