"""Check that the nodes of a cluster can run trials; the others are left out."""

from __future__ import annotations

import re
import tempfile
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mmlab
from mmlab.spec.protocol import PROTOCOL_NUMBER

#: Seconds in which a node has to answer; it imports torch.
_TIMEOUT = 120.0
#: Bytes that a node must be able to write to its temporary folder.
_N_BYTES = 10_000_000


@ray.remote(num_cpus=0, max_retries=0)
def _inspect() -> tuple[str, int]:
    """Return mmlab's version and protocol number on a node; this module's import is the test."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(_N_BYTES))
    return mmlab.__version__, PROTOCOL_NUMBER


def check_nodes() -> dict[str, str]:
    """Return the nodes that cannot run trials: their ids, with name and reason.

    A node without mmlab, or with another version of it, fails each of its trials in a second, and
    so would be given one after the other.
    """
    nodes = {node["NodeID"]: node["NodeName"] for node in ray.nodes() if node["Alive"]}
    answers = {
        _inspect.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(): node_id
        for node_id in nodes
    }
    ready, _ = ray.wait(list(answers), num_returns=len(answers), timeout=_TIMEOUT)
    excluded = {}
    for answer, node_id in answers.items():
        reason = _problem(answer) if answer in ready else f"no answer in {_TIMEOUT:.0f} seconds"
        if reason:
            excluded[node_id] = f"{nodes[node_id]} ({reason})"
    return excluded


def _problem(answer: Any) -> str:
    """Return why a node cannot run trials; empty if it can."""
    try:
        version, protocol = ray.get(answer)
    except ray.exceptions.RayError as error:
        return error_line(str(error))
    if (version, protocol) == (mmlab.__version__, PROTOCOL_NUMBER):
        return ""
    return (
        f"mmlab {version} with protocol {protocol}, here {mmlab.__version__} with protocol "
        f"{PROTOCOL_NUMBER}"
    )


def error_line(text: str) -> str:
    """Return the line of a traceback that names the error; its first line if there is none."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named[-1] if named else lines[0] if lines else "").rstrip(".")
