"""Specifications: defaults, digests, validation, and reading from YAML."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmlab.errors import UserError, unknown_name
from mmlab.spec import trial as trial_spec
from mmlab.spec.base import canonical_json
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.constraints import Constraints
from mmlab.spec.search import Range, SearchSpace, SearchSpec
from mmlab.spec.trial import DataSpec, LabelNoise, TrialSpec
from mmlab.spec.yaml import parse_spec, read_spec

FINGERPRINT = "ab" * 32


def trial(**changes: Any) -> TrialSpec:
    fields: dict[str, Any] = {
        "data": DataSpec(name="zeisel"),
        "selector": "markermap_supervised",
        "params": {"beta": 0.9, "hidden_size": 64},
    }
    return TrialSpec(**(fields | changes))


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_default_values_of_a_trial() -> None:
    spec = TrialSpec(data=DataSpec(name="zeisel"), selector="random")
    assert spec.model_dump(exclude={"data"}) == {
        "selector": "random",
        "params": {},
        "n_markers": 50,
        "recipe": "train_only",
        "protocol": "paper",
        "noise": {"level": 0.0, "kind": "uniform", "matrix": {}},
        "include": [],
        "exclude": [],
        "replicates": 1,
        "first_replicate": 0,
        "seed": 0,
    }


@pytest.mark.parametrize("field", sorted(TrialSpec.model_fields))
def test_a_trial_is_frozen(field: str) -> None:
    spec = trial()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(spec, field, getattr(spec, field))


def test_trials_do_not_share_default_params() -> None:
    one, other = (TrialSpec(data=DataSpec(name="zeisel"), selector="random") for _ in range(2))
    one.params["beta"] = 0.5
    assert other.params == {}


def test_the_digest_is_unchanged() -> None:
    # Finished trials are found by their digest: a change of it requires a new PROTOCOL_NUMBER.
    assert trial().digest(FINGERPRINT) == (
        "42472ce60508091c57b4cb6156250fd3e1a8164639e11dd916a71a83bc728615"
    )


def test_digest_does_not_depend_on_the_location_of_the_data() -> None:
    named = trial().digest(FINGERPRINT)
    for path in ("a.h5ad", "/elsewhere/b.h5ad"):
        in_file = trial(data=DataSpec(path=path, label_key="type", layer="counts"))
        assert in_file.digest(FINGERPRINT) == named


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    reordered = trial(params={"hidden_size": 64, "beta": 0.9})
    assert list(reordered.params) != list(trial().params)
    assert reordered.digest(FINGERPRINT) == trial().digest(FINGERPRINT)


CHANGES: dict[str, Any] = {
    "selector": "markermap_joint",
    "params": {"beta": 0.9, "hidden_size": 65},
    "n_markers": 49,
    "recipe": "paper",
    "protocol": "search",
    "noise": LabelNoise(level=0.1),
    "include": ["gene_3"],
    "exclude": ["gene_4"],
    "constraints": Constraints(min_per_type=1),
    "replicates": 2,
    "first_replicate": 1,
    "seed": 1,
}


def test_changes_cover_every_field_except_data() -> None:
    assert set(CHANGES) == set(TrialSpec.model_fields) - {"data"}


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_digest_depends_on_every_field(field: str) -> None:
    changed = trial(**{field: CHANGES[field]})
    assert changed.digest(FINGERPRINT) != trial().digest(FINGERPRINT)


def test_digest_depends_on_the_kind_of_the_noise() -> None:
    one, other = (
        trial(noise=LabelNoise.model_validate({"level": 0.1, "kind": kind}))
        for kind in ("uniform", "pairwise")
    )
    assert one.digest(FINGERPRINT) != other.digest(FINGERPRINT)


def test_digest_depends_on_the_content_of_the_data() -> None:
    assert trial().digest("cd" * 32) != trial().digest(FINGERPRINT)


def test_digest_depends_on_the_protocol_number(monkeypatch: pytest.MonkeyPatch) -> None:
    before = trial().digest(FINGERPRINT)
    monkeypatch.setattr(trial_spec, "PROTOCOL_NUMBER", trial_spec.PROTOCOL_NUMBER + 1)
    assert trial().digest(FINGERPRINT) != before


def test_digest_survives_a_json_round_trip() -> None:
    again = TrialSpec.model_validate_json(trial().model_dump_json())
    assert again == trial()
    assert again.digest(FINGERPRINT) == trial().digest(FINGERPRINT)


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_canonical_json_is_equal_for_equal_content(content: dict[str, Any]) -> None:
    backwards = dict(reversed(content.items()))
    assert canonical_json(content) == canonical_json(backwards)


def test_seed_zero_is_valid() -> None:
    assert trial(seed=0).seed == 0
    assert trial(seed=0).digest(FINGERPRINT) != trial(seed=1).digest(FINGERPRINT)


def test_trials_of_a_search_do_not_use_the_held_out_test_set() -> None:
    study = SearchSpec(
        data=DataSpec(name="zeisel"),
        search=SearchSpace(
            selector="markermap_supervised", parameters={"beta": Range(low=0.1, high=0.9)}
        ),
        trials=3,
        n_markers=20,
        replicates=4,
        seed=5,
    )
    spec = study.trial("markermap_supervised", {"beta": 0.5})
    assert spec.protocol == "search"
    assert spec == TrialSpec(
        data=DataSpec(name="zeisel"),
        selector="markermap_supervised",
        params={"beta": 0.5},
        n_markers=20,
        protocol="search",
        replicates=4,
        seed=5,
    )


@pytest.mark.parametrize(
    ("given_spec", "title"),
    [
        (DataSpec(name="zeisel"), "zeisel"),
        (DataSpec(path="/data/my cells.h5ad", label_key="type"), "my cells"),
    ],
)
def test_title_of_the_data(given_spec: DataSpec, title: str) -> None:
    assert given_spec.title == title


def test_a_valid_file_is_read(tmp_path: Path) -> None:
    path = yaml_file(
        tmp_path,
        """
        data: {name: zeisel}
        selector: markermap_joint
        params: {beta: 0.5, hidden_size: 32}
        noise: {level: 0.2}
        seed: 0
        """,
    )
    assert read_spec(path, TrialSpec) == trial(
        selector="markermap_joint",
        params={"beta": 0.5, "hidden_size": 32},
        noise=LabelNoise(level=0.2),
        seed=0,
    )


def test_all_mistakes_of_a_file_are_in_one_error(tmp_path: Path) -> None:
    path = yaml_file(
        tmp_path,
        """
        data: {name: zeisel}
        n_markers: 0
        noise: {level: 1.5}
        protocol: nature
        replicates: many
        seed: -1
        sead: 3
        """,
    )
    with pytest.raises(UserError) as caught:
        read_spec(path, TrialSpec)
    message = str(caught.value)
    assert message.startswith(str(path))
    for part in (
        "selector is missing",
        "n_markers: ",
        "got 0",
        "noise.level: ",
        "got 1.5",
        "protocol: ",
        "'nature'",
        "replicates: ",
        "'many'",
        "seed: ",
        "got -1",
        "sead is not a known key",
    ):
        assert part in message
    assert "\n" not in message


def test_an_unknown_key_in_a_nested_block_is_named_with_its_path() -> None:
    content = {"data": {"name": "zeisel"}, "selector": "random", "noise": {"lebel": 0.1}}
    with pytest.raises(UserError, match=r"^spec\.yaml: noise\.lebel is not a known key\.$"):
        parse_spec(TrialSpec, content, "spec.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "give either the name of a dataset or the path"),
        ({"name": "zeisel", "path": "a.h5ad"}, "give either the name of a dataset or the path"),
        ({"path": "a.h5ad"}, "a file requires label_key"),
        ({"name": "zeisel", "label_key": "type"}, "only a file can have label_key, not a named"),
        ({"name": "zeisel", "layer": "counts"}, "only a file can have layer, not a named"),
        (
            {"name": "zeisel", "drop_unlabelled": True, "gene_names": "symbol"},
            "only a file can have drop_unlabelled, gene_names, not a named",
        ),
    ],
)
def test_data_have_exactly_one_source(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"data: {message}"):
        parse_spec(TrialSpec, {"data": data, "selector": "random"}, "spec.yaml")


def search(**parameters: Any) -> dict[str, Any]:
    return {"selector": "markermap_supervised", "parameters": parameters}


@pytest.mark.parametrize("low", [0, -1])
def test_a_log_range_requires_a_positive_low(low: float) -> None:
    with pytest.raises(UserError) as caught:
        parse_spec(SearchSpace, search(beta={"low": low, "high": 1, "log": True}), "spec.yaml")
    assert str(caught.value) == (
        f"spec.yaml: parameters.beta: a log range requires low > 0, got {float(low)}."
    )


@pytest.mark.parametrize("high", [float("inf"), float("nan")])
def test_a_range_requires_finite_bounds(high: float) -> None:
    with pytest.raises(UserError, match="beta"):
        parse_spec(SearchSpace, search(beta={"low": 0, "high": high}), "spec.yaml")


def test_an_integer_range_requires_integer_bounds() -> None:
    with pytest.raises(UserError, match="hidden_size"):
        parse_spec(
            SearchSpace, search(hidden_size={"low": 0.5, "high": 2.5, "integer": True}), "spec.yaml"
        )


def test_a_misspelt_key_of_a_range_is_reported_with_the_missing_key() -> None:
    with pytest.raises(UserError) as caught:
        parse_spec(SearchSpace, search(beta={"low": 0, "hihg": 1}), "spec.yaml")
    assert str(caught.value) == (
        "spec.yaml: parameters.beta.high is missing; parameters.beta.hihg is not a known key."
    )


def test_a_value_that_is_not_a_scalar_is_reported_once() -> None:
    content = {"data": {"name": "zeisel"}, "selector": "random", "params": {"beta": [1]}}
    with pytest.raises(UserError) as caught:
        parse_spec(TrialSpec, content, "spec.yaml")
    assert str(caught.value).count("params.beta") == 1


def test_choices_must_not_be_empty() -> None:
    with pytest.raises(UserError, match=r"parameters\.beta\.choices: "):
        parse_spec(SearchSpace, search(beta={"choices": []}), "spec.yaml")


def test_a_search_space_requires_a_parameter() -> None:
    with pytest.raises(UserError, match="parameters: "):
        parse_spec(SearchSpace, search(), "spec.yaml")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_must_be_finite(value: float) -> None:
    content = {"data": {"name": "zeisel"}, "selector": "random", "params": {"beta": value}}
    with pytest.raises(UserError, match="beta"):
        parse_spec(TrialSpec, content, "spec.yaml")


@pytest.mark.parametrize("value", [2**63, -(2**63), pytest.param(10**9999, id="long")])
def test_an_integer_fits_into_64_bits(value: int) -> None:
    with pytest.raises(UserError, match="integers must fit into 64 bits"):
        content = {"data": {"name": "tiny"}, "selector": "random", "params": {"hidden_size": value}}
        parse_spec(TrialSpec, content, "options")


def test_an_integer_of_very_many_digits_is_described_by_its_bits() -> None:
    content = {"data": {"name": "tiny"}, "selector": "random", "seed": 2**60_000}
    with pytest.raises(UserError, match="got an integer of 60001 bits"):
        parse_spec(TrialSpec, content, "options")


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ({"selector": "random", "label": "x" * 101}, "label: string should have at most 100"),
        ({"selector": ""}, "selector: string should have at least 1 character, got ''"),
        ({"selector": "random", "params": {"": 1}}, "should have at least 1 character, got ''"),
    ],
)
def test_names_and_labels_of_methods_have_a_valid_length(
    method: dict[str, Any], problem: str
) -> None:
    content = {"study": "benchmark", "data": {"name": "tiny"}, "methods": [method]}
    with pytest.raises(UserError) as caught:
        parse_spec(ComparisonSpec, content, "options")
    assert problem in str(caught.value)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", "+1e-4"])
def test_scientific_notation_is_read_as_a_number(tmp_path: Path, text: str) -> None:
    path = yaml_file(
        tmp_path,
        f"""
        selector: markermap_supervised
        parameters:
          learning_rate: {{low: {text}, high: 1, log: true}}
          kl_weight: {{choices: [{text}, 1]}}
        fixed: {{beta: {text}}}
        """,
    )
    spec = read_spec(path, SearchSpace)
    learning_rate = spec.parameters["learning_rate"]
    assert isinstance(learning_rate, Range)
    assert learning_rate.low == 1e-4
    assert spec.parameters["kl_weight"].model_dump() == {"choices": [1e-4, 1]}
    assert spec.fixed == {"beta": 1e-4}


def test_strings_that_resemble_numbers_stay_strings(tmp_path: Path) -> None:
    path = yaml_file(
        tmp_path,
        """
        data: {name: zeisel}
        selector: random
        params: {a: e4, b: "1e-4", c: 1e-4x, d: "12"}
        """,
    )
    assert read_spec(path, TrialSpec).params == {"a": "e4", "b": "1e-4", "c": "1e-4x", "d": "12"}


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.yaml"
    with pytest.raises(UserError, match=f"cannot read {re.escape(str(path))}: No such file"):
        read_spec(path, TrialSpec)


def test_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_spec(tmp_path, TrialSpec)


@pytest.mark.parametrize(
    "text",
    [
        "data: [",
        "a: b: c",
        "\tdata: x",
        "data: 2024-99-99",
        "data: !!python/object/apply:os.getcwd []",
        "data: !!python/name:os.system",
        "data: {name: zeisel}\nselector: random\nseed: 1\nseed: 2",
    ],
)
def test_invalid_or_unsafe_yaml_is_rejected(tmp_path: Path, text: str) -> None:
    path = yaml_file(tmp_path, text)
    with pytest.raises(UserError, match="is not valid YAML") as caught:
        read_spec(path, TrialSpec)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_content_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(b"\xff\xfe\x00\x9f")
    with pytest.raises(UserError, match="is not valid YAML"):
        read_spec(path, TrialSpec)


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("[1, 2]", "list"), ("x", "str")])
def test_a_file_without_a_mapping_is_rejected_with_its_type(
    tmp_path: Path, text: str, kind: str
) -> None:
    with pytest.raises(UserError, match=rf"must contain a mapping .*; it contains {kind}\.$"):
        read_spec(yaml_file(tmp_path, text), TrialSpec)


def test_the_error_for_an_unknown_name_lists_known_names_and_suggests_the_nearest() -> None:
    error = unknown_name("dataset", "zeissel", ["paul", "zeisel", "citeseq"])
    assert isinstance(error, UserError)
    assert str(error) == (
        "dataset 'zeissel' is not among citeseq, paul, zeisel. Did you mean 'zeisel'?"
    )
    assert "Did you mean" not in str(unknown_name("dataset", "qqq", ["paul"]))
