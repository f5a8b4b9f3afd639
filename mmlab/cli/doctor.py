"""`mmlab doctor`: versions, hardware and the tracking store."""

from __future__ import annotations

from typing import Any

from mmlab.cli.console import print_json, print_text
from mmlab.cli.shared_options import JsonOption, TrackingOption
from mmlab.errors import UserError


def doctor(tracking_uri: TrackingOption = None, as_json: JsonOption = False) -> None:
    """Show versions and hardware, and check the tracking store."""
    from mmlab.datasets import DATASETS
    from mmlab.system.environment import describe_environment
    from mmlab.tracking import TrackingStore

    store, problem = TrackingStore(tracking_uri), None
    try:
        store.require_reachable()
        state = "answers" if store.exists else "not created yet"
    except UserError as error:
        state, problem = "cannot be used", error
    content: dict[str, Any] = {
        **describe_environment(),
        "tracking_uri": store.uri,
        "tracking_uri_from": store.source,
        "tracking_store": state,
        "datasets": list(DATASETS),
    }
    if as_json:
        print_json(content)
    else:
        _print(content)
    if problem is not None:
        raise problem


def _print(content: dict[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        print_text(f"{key}: {value}")
