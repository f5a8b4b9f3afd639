"""Axes of a comparison, its trials, and invalid specifications."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from mmlab.errors import UserError
from mmlab.spec.comparison import AnyStudy, ComparisonSpec
from mmlab.spec.trial import LabelNoise
from mmlab.spec.yaml import parse_spec

BASE: dict[str, Any] = {"data": {"name": "zeisel"}, "methods": ["smash"]}


def spec(**content: Any) -> ComparisonSpec:
    return parse_spec(ComparisonSpec, BASE | content, "spec.yaml")


def test_noise_levels_are_sorted_and_shown_in_percent() -> None:
    study = spec(study="robustness", levels=[0.5, 0, 0.125], noise="pairwise")
    assert [s.name for s in study.settings] == ["noise 0 %", "noise 12.5 %", "noise 50 %"]
    assert [s.step for s in study.settings] == [0, 12, 50]
    trial = study.trial(study.methods[0], study.settings[2], 3)
    assert trial.noise == LabelNoise(level=0.5, kind="pairwise")
    assert trial.first_replicate == 3


def test_the_parameter_of_a_sweep_overrides_that_of_the_method() -> None:
    method = {"selector": "markermap_joint", "params": {"beta": 0.9, "hidden_size": 32}}
    study = spec(study="sweep", methods=[method], over={"hidden_size": [64, 128]}, n_markers=[20])
    trials = [study.trial(study.methods[0], setting, 0) for setting in study.settings]
    assert [trial.params for trial in trials] == [
        {"beta": 0.9, "hidden_size": 64},
        {"beta": 0.9, "hidden_size": 128},
    ]
    assert {trial.n_markers for trial in trials} == {20}


def test_umap_does_not_change_the_digest() -> None:
    assert spec(umap=True).digest("ab") == spec().digest("ab")
    assert spec(seed=1).digest("ab") != spec().digest("ab")


@pytest.mark.parametrize("content", [{}, {"study": "robustness", "levels": [0, 1]}])
def test_a_study_survives_a_json_round_trip(content: dict[str, Any]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyStudy)
    study = spec(**content)
    assert adapter.validate_json(study.model_dump_json()) == study


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"levels": [0, 0.5]}, "levels are valid only for the study robustness, not benchmark"),
        ({"study": "robustness"}, "the study robustness requires levels"),
        ({"study": "robustness", "levels": [0.1, 0.5]}, "levels must include 0"),
        ({"study": "robustness", "levels": [0, 0.5, 0.5]}, "levels contains duplicate values"),
        ({"study": "robustness", "levels": [0, 1.5]}, "less than or equal to 1, got 1.5"),
        (
            {"study": "robustness", "levels": [0, 1], "n_markers": [10, 20]},
            "only one axis can vary: with noise",
        ),
        (
            {"study": "robustness", "levels": [0, 1], "noise": "class_dependent"},
            "requires a matrix",
        ),
        ({"over": {"beta": [0.9, 0.95]}}, "over is valid only for the study sweep, not benchmark"),
        (
            {"study": "sweep", "over": {"beta": [0.9], "seed": [1]}},
            "over can vary only one parameter, got beta, seed",
        ),
        ({"study": "sweep", "over": {"beta": []}}, "over.beta"),
        ({"noise": "pairwise"}, "valid only for the study robustness"),
        ({"n_markers": []}, "n_markers"),
        ({"n_markers": [10, 10]}, "n_markers contains duplicate values"),
    ],
)
def test_an_invalid_comparison_is_rejected(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        spec(**content)
