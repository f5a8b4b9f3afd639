"""`mmlab doctor`: versions, hardware and the tracking store."""

from __future__ import annotations

from typing import Any

from mmlab.cli.console import print_json
from mmlab.cli.shared_options import JsonOption, TrackingOption


def doctor(tracking_uri: TrackingOption = None, as_json: JsonOption = False) -> None:
    """Show versions and hardware, and check the tracking store."""
    from mmlab.datasets import DATASETS
    from mmlab.system.environment import describe_environment
    from mmlab.tracking import TrackingStore

    store = TrackingStore(tracking_uri)
    content: dict[str, Any] = {
        **describe_environment(),
        "tracking_uri": store.uri,
        "tracking_store": "exists" if store.exists else "not created yet",
        "datasets": list(DATASETS),
    }
    if as_json:
        print_json(content)
        return
    for key, value in content.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {number}" for name, number in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        print(f"{key}: {value}")
