"""How many trials fit on the nodes of a cluster, and on those that an autoscaler can add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.core.generated.autoscaler_pb2 import ClusterConfig
from rich.console import Console

from mmlab.errors import UserError
from mmlab.schedule import elastic_limit, ray_cluster
from mmlab.schedule.elastic_limit import ElasticLimit
from mmlab.schedule.ray_cluster import RayCluster
from mmlab.schedule.trial_fit import NodeGroup, n_fitting, node_groups, require_fit
from mmlab.spec.resources import Resources
from mmlab.system.interruption import Interruption

SMALL, LARGE = {"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0}


@pytest.mark.parametrize(
    ("cpus", "gpus", "node", "fits"),
    [
        (1, 0, SMALL, 2),
        (1, 1, SMALL, 1),
        (1, 0.25, {"CPU": 8.0, "GPU": 1.0}, 4),
        (1, 0.1, {"CPU": 99.0, "GPU": 0.7}, 7),  # 0.7 / 0.1 is below 7 in floating point
        (3, 0, SMALL, 0),
        (1, 0.5, LARGE, 0),
    ],
)
def test_trials_on_a_node(cpus: int, gpus: float, node: dict[str, float], fits: int) -> None:
    assert n_fitting(Resources("x", cpus, gpus), node) == fits


@pytest.mark.parametrize(
    ("cpus", "gpus", "sentence"),
    [
        (1, 2, "requests 2 GPUs, but no node of the Ray cluster has more than 1. Lower --gpus"),
        (9, 0, "requests 9 CPUs, but no node of the Ray cluster has more than 8. Lower --cpus"),
        (4, 1, "requests 4 CPUs and 1 GPUs, but no node of the Ray cluster has both. Lower"),
    ],
)
def test_a_trial_that_no_single_node_can_run(cpus: int, gpus: float, sentence: str) -> None:
    """All nodes together have the resources, but a trial runs on one."""
    with pytest.raises(UserError) as error:
        require_fit(Resources("x", cpus, gpus), [SMALL, SMALL, LARGE], " Nodes left out: a.")
    assert sentence in str(error.value)
    assert str(error.value).endswith(". Nodes left out: a.")
    require_fit(Resources("x", cpus, gpus), [SMALL, {"CPU": 9.0, "GPU": 2.0}])


def test_the_nodes_that_an_autoscaler_can_add() -> None:
    config = ClusterConfig()
    for maximum in (3, -1, 0):
        group = config.node_group_configs.add(max_count=maximum)
        group.resources["CPU"] = 16

    class Client:
        answer: bytes | None = config.SerializeToString()

        def internal_kv_get(self, *_: Any) -> bytes | None:
            return self.answer

    limited, unlimited = node_groups(Client(), 1.0)
    assert limited == NodeGroup({"CPU": 16.0}, 3)
    assert unlimited.max_nodes >= 1000
    Client.answer = None
    assert node_groups(Client(), 1.0) == []


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Nodes that Ray reports: two that are alive, one that is not."""
    known = [
        {"NodeID": name, "Alive": name != "c", "Resources": {"CPU": 2.0}}
        for name in ("a", "b", "c")
    ]
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: known)
    return known


def connected(resources: Resources, groups: list[NodeGroup], **options: Any) -> RayCluster:
    class Grown(RayCluster):
        def _groups(self) -> list[NodeGroup]:
            return groups

    return Grown(resources, Path(), Interruption(), Console(), **options)


def test_as_many_trials_run_as_fit_on_the_nodes_that_are_there(
    nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(elastic_limit.time, "monotonic", lambda: now[0])
    limit = ElasticLimit(connected(Resources("x"), [], excluded={"b": "broken"}))
    assert limit.search_algorithm.max_concurrent == 2
    nodes[2]["Alive"] = True
    for seconds, expected in ((1.0, 2), (6.0, 4)):
        now[0] = seconds
        limit.on_step_begin(1, [])
        assert limit.search_algorithm.max_concurrent == expected
    for node in nodes:
        node["Alive"] = False
    now[0] = 20.0
    limit.on_step_begin(2, [])
    assert limit.search_algorithm.max_concurrent == 1  # it waits for a node


@pytest.mark.parametrize(("maximum", "expected"), [(None, 15), (6, 6)])
def test_trials_wait_for_the_nodes_that_an_autoscaler_adds(
    maximum: int | None, expected: int, nodes: list[dict[str, Any]]
) -> None:
    groups = [NodeGroup({"CPU": 5.0}, 3)]
    cluster = connected(Resources("x", max_concurrent=maximum), groups)
    assert (cluster.slots, cluster.max_slots) == (4, expected)
    connected(Resources("x", cpus_per_trial=5), groups).require_size()
    with pytest.raises(UserError, match="no node of the Ray cluster has more than 5"):
        connected(Resources("x", cpus_per_trial=6), groups).require_size()
