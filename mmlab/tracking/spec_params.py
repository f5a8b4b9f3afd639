"""Specifications as the flat params of MLflow runs."""

from __future__ import annotations

from typing import Any

from mmlab.spec.constraints import ConstrainedSpec
from mmlab.spec.trial import TrialSpec


def spec_params(spec: TrialSpec) -> dict[str, Any]:
    """Return the specification as flat MLflow params."""
    return {
        "dataset": spec.data.title,
        "selector": spec.selector,
        "n_markers": spec.n_markers,
        "recipe": spec.recipe,
        "protocol": spec.protocol,
        "noise_level": spec.noise.level,
        "noise_kind": spec.noise.kind,
        **constraint_params(spec),
        "replicates": spec.replicates,
        "first_replicate": spec.first_replicate,
        "seed": spec.seed,
        **spec.params,
    }


def constraint_params(spec: TrialSpec | ConstrainedSpec) -> dict[str, Any]:
    """Return the panel constraints as flat MLflow params; unset constraints are left out.

    ``include`` and ``exclude`` are always there.
    """
    required = spec.constraints.model_dump(exclude_defaults=True)
    for name in ("groups", "weights"):
        if name in required:
            required[name] = ", ".join(f"{gene}: {value}" for gene, value in required[name].items())
    return {"include": ", ".join(spec.include), "exclude": ", ".join(spec.exclude), **required}
