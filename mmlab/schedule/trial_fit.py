"""How many trials fit on the nodes of a Ray cluster, and on those that its autoscaler can add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray._raylet import (  # type: ignore[attr-defined]
    GCS_AUTOSCALER_CLUSTER_CONFIG_KEY,
    GCS_AUTOSCALER_STATE_NAMESPACE,
)
from ray.core.generated.autoscaler_pb2 import ClusterConfig  # type: ignore[attr-defined]

from mmlab.errors import UserError
from mmlab.spec.resources import Resources

#: Number of nodes that stands for "any number" in the configuration of an autoscaler, and ours.
_ANY_NUMBER, _MANY_NODES = -1, 1000


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind that an autoscaler starts when trials wait for them.

    Attributes
    ----------
    resources
        Resources of a node, such as CPU and GPU.
    max_nodes
        How many of them there may be.
    """

    resources: Mapping[str, float]
    max_nodes: int


def node_groups(client: Any, timeout: float) -> list[NodeGroup]:
    """Return the groups of nodes of a cluster's autoscaler; none if it has no autoscaler.

    Parameters
    ----------
    client
        ``GcsClient`` of the cluster.
    timeout
        Seconds in which the cluster has to answer.
    """
    key = GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode()
    namespace = GCS_AUTOSCALER_STATE_NAMESPACE.encode()
    serialized = client.internal_kv_get(key, namespace, timeout)
    if not serialized:
        return []
    groups = ClusterConfig.FromString(serialized).node_group_configs
    return [
        NodeGroup(
            dict(group.resources),
            _MANY_NODES if group.max_count == _ANY_NUMBER else int(group.max_count),
        )
        for group in groups
        if group.max_count
    ]


def n_fitting(resources: Resources, node: Mapping[str, float]) -> int:
    """Return how many trials fit on a node with the given resources."""
    return min(
        int(node.get(kind, 0.0) / amount + 1e-9) for kind, amount in _requested(resources).items()
    )


def require_fit(
    resources: Resources, nodes: Iterable[Mapping[str, float]], left_out: str = ""
) -> None:
    """Check that at least one node has the resources of a trial.

    Parameters
    ----------
    nodes
        Resources of the nodes that exist, and of those that an autoscaler can start.
    left_out
        A sentence on other nodes, for the message.

    Raises
    ------
    UserError
        No node has them.
    """
    known = list(nodes)
    if any(n_fitting(resources, node) for node in known):
        return
    requested = _requested(resources)
    for kind, amount in requested.items():
        largest = max((node.get(kind, 0.0) for node in known), default=0.0)
        if amount > largest:
            raise UserError(
                f"a trial requests {amount:g} {kind}s, but no node of the Ray cluster has more "
                f"than {largest:g}. Lower --{kind.lower()}s-per-trial.{left_out}"
            )
    listed = " and ".join(f"{amount:g} {kind}s" for kind, amount in requested.items())
    raise UserError(
        f"a trial requests {listed}, but no node of the Ray cluster has both. Lower "
        f"--cpus-per-trial or --gpus-per-trial.{left_out}"
    )


def _requested(resources: Resources) -> dict[str, float]:
    """Return the positive amounts of each kind of resource that a trial requests."""
    amounts = {"CPU": float(resources.cpus_per_trial), "GPU": resources.gpus_per_trial}
    return {kind: amount for kind, amount in amounts.items() if amount}
