"""Check that the nodes of a cluster can run trials; those that cannot are left out."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mmlab
import mmlab.schedule.actor
from mmlab.schedule.node_facts import NodeFacts, node_facts
from mmlab.spec.protocol import PROTOCOL_NUMBER
from mmlab.system.words import count

#: Seconds in which a node has to answer; it imports torch.
_TIMEOUT = 120.0
#: Seconds by which the clock of a node may differ.
_CLOCK_TOLERANCE = 30.0
#: Memory and disk space in GB below which no trial of a small dataset runs.
_MIN_MEMORY_GB, _MIN_DISK_GB = 0.5, 0.5


@dataclass(frozen=True)
class NodeReport:
    """What is known of a node.

    Attributes
    ----------
    node_id, name, address
        As Ray reports them.
    resources
        Resources that Ray hands out on the node, such as CPU and GPU.
    facts
        What the node says of itself; None if it did not answer.
    clock_seconds
        By how much the node's clock is ahead, at least; 0 if it may be right.
    unusable
        Why no trial can run on the node; empty if trials can.
    unusable_gpus
        Why its GPUs cannot be used; empty if they can, or if it has none.
    warnings
        Other problems.
    """

    node_id: str
    name: str
    address: str
    resources: dict[str, float]
    facts: NodeFacts | None = None
    clock_seconds: float = 0.0
    unusable: str = ""
    unusable_gpus: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All problems of the node."""
        return [text for text in (self.unusable, self.unusable_gpus, *self.warnings) if text]


# The process ends afterwards: it would keep memory of the GPUs that it has tried.
@ray.remote(num_cpus=0, max_retries=0, max_calls=1)
def _inspect() -> dict[str, Any]:
    """Return the facts of a node; this module, and with it the actors, has to be imported there."""
    return node_facts()


def check_nodes(*, gpus: bool = False) -> dict[str, str]:
    """Return the nodes that cannot run trials: their ids, with name and reason.

    A node without mmlab, or with another version of it, fails each of its trials in a second, and
    so would be given one after the other. With ``gpus``, trials need a GPU.
    """
    excluded = {}
    for report in inspect_nodes():
        reason = report.unusable or (report.unusable_gpus if gpus else "")
        if reason:
            excluded[report.node_id] = f"{report.name} ({reason})"
    return excluded


def inspect_nodes() -> list[NodeReport]:
    """Return a report on each node that is alive, in the order of Ray."""
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    sent = time.time()
    answers = {
        node_id: _inspect.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote()
        for node_id in nodes
    }
    ready, _ = ray.wait(list(answers.values()), num_returns=len(answers), timeout=_TIMEOUT)
    received = time.time()
    return [
        _report(node, answers[node_id] if answers[node_id] in ready else None, sent, received)
        for node_id, node in nodes.items()
    ]


def _report(node: dict[str, Any], answer: Any, sent: float, received: float) -> NodeReport:
    """Return the report of a node from its answer; None is none in time."""
    known: dict[str, Any] = {
        "node_id": node["NodeID"],
        "name": node["NodeName"],
        "address": node["NodeManagerAddress"],
        "resources": node["Resources"],
    }
    if answer is None:
        return NodeReport(**known, unusable=f"no answer in {_TIMEOUT:.0f} seconds")
    try:
        content = ray.get(answer)
        facts = NodeFacts(**content)
    except ray.exceptions.RayError as error:
        return NodeReport(**known, unusable=error_line(str(error)))
    except TypeError:
        return NodeReport(**known, unusable=f"another mmlab than {mmlab.__version__}")
    # The node took its time between these two moments.
    clock = max(facts.time - received, 0.0) - max(sent - facts.time, 0.0)
    return NodeReport(
        **known,
        facts=facts,
        clock_seconds=clock,
        unusable=_version_problem(facts),
        unusable_gpus=_gpu_problem(facts, node["Resources"].get("GPU", 0.0)),
        warnings=_warnings(facts, clock),
    )


def _version_problem(facts: NodeFacts) -> str:
    """Return how a node's mmlab differs from this one; empty if it does not."""
    if (facts.mmlab, facts.protocol) == (mmlab.__version__, PROTOCOL_NUMBER):
        return ""
    return (
        f"mmlab {facts.mmlab} with protocol {facts.protocol}, here {mmlab.__version__} with "
        f"protocol {PROTOCOL_NUMBER}"
    )


def _gpu_problem(facts: NodeFacts, handed_out: float) -> str:
    """Return why torch cannot use the GPUs that Ray hands out on a node; empty if it can."""
    if len(facts.gpus) >= handed_out:
        return ""
    reason = f": {facts.gpu_error}" if facts.gpu_error else ""
    return (
        f"Ray has {count(int(handed_out), 'GPU')}, of which torch can use {len(facts.gpus)}{reason}"
    )


def _warnings(facts: NodeFacts, clock: float) -> list[str]:
    """Return the problems of a node that do not keep trials from it."""
    warnings = []
    if facts.cache_error:
        warnings.append(facts.cache_error)
    if facts.memory_gb < _MIN_MEMORY_GB:
        warnings.append(f"only {facts.memory_gb:.1f} GB of memory are free")
    if facts.disk_gb < _MIN_DISK_GB:
        warnings.append(f"only {facts.disk_gb:.1f} GB are free in {facts.cache}")
    if abs(clock) > _CLOCK_TOLERANCE:
        direction = "ahead" if clock > 0 else "behind"
        warnings.append(f"its clock is {abs(clock):.0f} seconds {direction}")
    return warnings


def error_line(text: str) -> str:
    """Return the line of a traceback that names the error; its first line if there is none."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named[-1] if named else lines[0] if lines else "").rstrip(".")
