"""`mmlab doctor`: versions, hardware, the tracking store and a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.console import print_json, print_text
from mmlab.cli.shared_options import JsonOption, TrackingOption
from mmlab.errors import UserError
from mmlab.system.words import count

if TYPE_CHECKING:
    from mmlab.tracking import TrackingStore


def doctor(
    address: Annotated[
        str | None,
        typer.Option(help="Also check a Ray cluster: HOST:PORT of its head, or auto."),
    ] = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show versions and check the tracking store and a cluster.

    A tracking server is asked for its experiments, with the credentials of the environment. `mmlab
    cluster check` checks every node of a cluster.
    """
    from mmlab.datasets import DATASETS
    from mmlab.system.environment import describe_environment
    from mmlab.tracking import TrackingStore

    store = TrackingStore(tracking_uri)
    checks: dict[str, Callable[[], str]] = {"tracking_store": lambda: _check_store(store)}
    if address is not None:
        checks["cluster"] = lambda: _check_cluster(address)
    # In parallel, because each can last ten seconds.
    with ThreadPoolExecutor() as pool:
        running = {name: pool.submit(_state, check) for name, check in checks.items()}
        states = {name: state.result() for name, state in running.items()}
    content: dict[str, Any] = {
        **describe_environment(),
        "tracking_uri": store.uri,
        "tracking_uri_from": store.source,
        **{name: state for name, (state, _) in states.items()},
        "datasets": list(DATASETS),
    }
    if as_json:
        print_json(content)
    else:
        _print(content)
    problems = [str(problem) for _, problem in states.values() if problem is not None]
    if problems:
        raise UserError(" ".join(problems))


def _state(check: Callable[[], str]) -> tuple[str, UserError | None]:
    """Return what a check found, and its problem."""
    try:
        return check(), None
    except UserError as error:
        return "cannot be used", error


def _check_store(store: TrackingStore) -> str:
    store.require_reachable()
    return "answers" if store.exists else "not created yet"


def _check_cluster(address: str) -> str:
    """Return the size of a cluster.

    Raises
    ------
    UserError
        It does not answer, or this machine is none of its nodes.
    """
    from mmlab.schedule.cluster_address import require_cluster

    found = require_cluster(address)
    found.require_node()
    sizes = [sum(node.get(kind, 0.0) for node in found.nodes.values()) for kind in ("CPU", "GPU")]
    return f"{count(len(found.nodes), 'node')}, {sizes[0]:g} CPUs, {sizes[1]:g} GPUs"


def _print(content: dict[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        print_text(f"{key}: {value}")
