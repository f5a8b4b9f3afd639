"""YAML of bounded size: text that would hang or crash a reader is refused, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import mistake

from mmlab.errors import UserError
from mmlab.spec import yaml_text
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.search import SearchSpace
from mmlab.spec.yaml import read_spec
from mmlab.spec.yaml_text import parse_value, parse_yaml

STUDY = "data: {name: zeisel}\nmethods: [random]\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "line 6 stands for more than 1000000 values once its aliases are replaced"),
        ("<<: &a\n  x: *a\n", "line 1 contains itself"),
        ("[" * 100_000, "line 1 is nested more than 20 levels deep"),
        ("\n".join(" " * i + f"k{i}:" for i in range(2000)), "line 21 is nested more than 20"),
        ("a: 1\na: 2\n", "duplicate key 'a'"),
        ("a: " + "9" * 5000, "integers must fit into 64 bits"),
    ],
)
def test_hostile_text_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"study.yaml is not valid YAML: .*{reason}"):
        read_spec(path, ComparisonSpec)


def test_aliases_and_merges_of_usual_size_are_read() -> None:
    text = "base: &base {a: 1, b: [2, 3]}\nmore: {<<: *base, a: 4}\nlist: [*base, *base]\n"
    base = {"a": 1, "b": [2, 3]}
    assert parse_yaml(text) == {"base": base, "more": base | {"a": 4}, "list": [base, base]}
    assert parse_yaml("") is None


def test_a_long_text_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MAX_LENGTH", 10)
    with pytest.raises(ValueError, match="it has 11 characters, at most 10 are read"):
        parse_yaml("[" * 11)


def test_huge_numbers_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    for line, reason in {
        "replicates: 1000000000": "replicates: input should be less than or equal to 10000",
        "n_markers: [100000000000]": "n_markers.0: input should be less than or equal to 2",
        f"seed: {2**63 - 1}0": "integers must fit into 64 bits, with their sign",
    }.items():
        (tmp_path / "study.yaml").write_text(STUDY + line)
        assert reason in mistake("run", str(tmp_path / "study.yaml"))
    listed = ", ".join(map(str, range(1, 2001)))
    (tmp_path / "study.yaml").write_text(STUDY + f"replicates: 10000\nn_markers: [{listed}]")
    assert "the study has 20000000 trials, but mmlab runs at most 20000" in mistake(
        "run", str(tmp_path / "study.yaml"), "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"
    )
    assert not (tmp_path / "mlflow.db").exists()


def test_a_long_value_is_shortened_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY + f"seed: {'x' * 100_000}\n")
    message = mistake("run", str(tmp_path / "study.yaml"))
    assert len(message) < 600
    assert "..." in message


def test_a_search_of_very_many_rungs_is_refused(tmp_path: Path) -> None:
    space = "selector: markermap_supervised\nparameters: {hidden_size: {low: 16, high: 64}}\n"
    for factor in ("1.0000000001", ".inf", ".nan"):
        (tmp_path / "space.yaml").write_text(space + f"reduction_factor: {factor}\n")
        with pytest.raises(UserError, match="reduction_factor: input should be"):
            read_spec(tmp_path / "space.yaml", SearchSpace)
    (tmp_path / "space.yaml").write_text(space + "reduction_factor: 1.01\n")
    assert len(read_spec(tmp_path / "space.yaml", SearchSpace).rungs(10**9)) < 2100


@pytest.mark.parametrize("value", ["[", "{a: 1", "*x", "[" * 50])
def test_values_of_options_that_are_no_yaml(value: str) -> None:
    data = ("--dataset", "pbmc68k_reduced")
    message = mistake("select", *data, "--method", "random", "--param", f"x={value}")
    assert "is not a number, true, false or plain text" in message
    assert "is not a number" in mistake("sweep", f"hidden_size={value}", *data)


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "0b" + "1" * 9000, "7" * 5000, str(2**63)])
def test_integers_that_do_not_fit_into_64_bits(tmp_path: Path, number: str) -> None:
    (tmp_path / "study.yaml").write_text(STUDY + f"over: {{hidden_size: [64, {number}]}}\n")
    message = mistake("run", str(tmp_path / "study.yaml"))
    assert "integers must fit into 64 bits" in message
    assert len(message) < 400
    data = ("--dataset", "pbmc68k_reduced")
    for command in (("select", *data, "--param"), ("sweep", *data)):
        message = mistake(*command, f"hidden_size={number}")
        assert "integers must fit into 64 bits" in message
        assert len(message) < 200


@pytest.mark.parametrize("number", ["0x" + "f" * 15, str(2**63 - 1), str(-(2**63) + 1), "1_0"])
def test_integers_of_64_bits_are_read(number: str) -> None:
    assert parse_value(number, "--param x") == int(number, 0)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            r'data: {path: "a\0b", label_key: x}',
            "data.path: text must not contain a null character",
        ),
        (r'data: {name: zeisel, layer: "\ud800"}', "data.layer: text must be valid UTF-8"),
        (r'include: ["a", "\udcff"]', "include.1: text must be valid UTF-8"),
        (r'constraints: {groups: {"\0": "a"}}', "a key of constraints.groups: text must not"),
    ],
)
def test_text_that_no_file_can_hold(tmp_path: Path, line: str, problem: str) -> None:
    study = "\n".join(row for row in STUDY.splitlines() if not row.startswith(line[:4]))
    (tmp_path / "study.yaml").write_text(f"{study}\n{line}\n")
    assert problem in mistake("run", str(tmp_path / "study.yaml"))
