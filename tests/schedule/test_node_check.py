"""Reports on the nodes of a cluster, from what they say of themselves."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import mmlab
from mmlab.schedule import node_check, node_facts
from mmlab.schedule.node_check import NodeReport
from mmlab.schedule.node_facts import NodeFacts
from mmlab.spec.protocol import PROTOCOL_NUMBER

SENT, RECEIVED = 1000.0, 1010.0
GOOD = NodeFacts(mmlab.__version__, PROTOCOL_NUMBER, "3.11.7", [], "", 8.0, "/c", "", 99.0, 1005.0)
NODE = {"NodeID": "id", "NodeName": "n1", "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 4}}


def report_of(
    monkeypatch: pytest.MonkeyPatch, facts: NodeFacts, resources: dict[str, float] | None = None
) -> NodeReport:
    monkeypatch.setattr(node_check.ray, "get", lambda answer: answer)
    node: dict[str, Any] = NODE | {"Resources": resources or {"CPU": 4}}
    return node_check._report(node, asdict(facts), SENT, RECEIVED)


def test_a_good_node(monkeypatch: pytest.MonkeyPatch) -> None:
    report = report_of(monkeypatch, GOOD)
    assert (report.name, report.address, report.facts) == ("n1", "10.0.0.2", GOOD)
    assert report.problems == []
    assert report.clock_seconds == 0


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"protocol": PROTOCOL_NUMBER - 1}, f"with protocol {PROTOCOL_NUMBER - 1}, here"),
        ({"mmlab": "0.0.9"}, "mmlab 0.0.9 with"),
        ({"memory_gb": 0.2}, "only 0.2 GB of memory are free"),
        ({"disk_gb": 0.1}, "only 0.1 GB are free in /c"),
        ({"cache_error": "mmlab's folder /c cannot be used"}, "mmlab's folder /c cannot be used"),
        ({"time": RECEIVED + 3600}, "its clock is 3600 seconds ahead"),
        ({"time": SENT - 60}, "its clock is 60 seconds behind"),
    ],
)
def test_a_problem_is_named(
    changed: dict[str, Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = report_of(monkeypatch, replace(GOOD, **changed)).problems
    assert problem in found


def test_only_another_version_keeps_trials_from_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [
        report_of(monkeypatch, replace(GOOD, mmlab="0.0.9")),
        report_of(monkeypatch, replace(GOOD, memory_gb=0.1)),
        report_of(monkeypatch, replace(GOOD, gpu_error="CUDA error"), {"CPU": 4, "GPU": 1}),
    ]
    names = [replace(report, node_id=str(i)) for i, report in enumerate(reports)]
    monkeypatch.setattr(node_check, "inspect_nodes", lambda: names)
    assert list(node_check.check_nodes()) == ["0"]
    # The GPU that torch cannot use matters to trials that need one.
    excluded = node_check.check_nodes(gpus=True)
    assert list(excluded) == ["0", "2"]
    assert "Ray has 1 GPU, of which torch can use 0: CUDA error" in excluded["2"]


def test_answers_that_do_not_come_or_are_of_another_mmlab(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no answer" in node_check._report(NODE, None, SENT, RECEIVED).unusable
    monkeypatch.setattr(node_check.ray, "get", lambda answer: answer)
    other = node_check._report(NODE, {"version": 1}, SENT, RECEIVED)
    assert "another mmlab than" in other.unusable


def test_the_facts_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMLAB_CACHE", str(tmp_path / "cache"))
    facts = NodeFacts(**node_facts.node_facts())
    assert (facts.mmlab, facts.cache, facts.cache_error) == (
        mmlab.__version__,
        str(tmp_path / "cache"),
        "",
    )
    assert facts.memory_gb > 0
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMLAB_CACHE", str(tmp_path / "file" / "cache"))
    facts = NodeFacts(**node_facts.node_facts())
    assert "Set the environment variable MMLAB_CACHE" in facts.cache_error
