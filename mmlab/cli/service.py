"""`mmlab ui` and `mmlab doctor`: look at the results, and at the installation."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from mmlab.cli.options import JsonOption, TrackingOption, print_json, stderr
from mmlab.errors import UserError


def ui(
    tracking_uri: TrackingOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
) -> None:
    """Open the MLflow UI on the results; Ctrl-C ends it."""
    from mmlab.tracking import TrackingStore, close_abandoned

    store = TrackingStore(tracking_uri)
    if store.uri.startswith("http"):
        print(f"the tracking server has the UI itself: open {store.uri}")
        return
    if not store.exists:
        raise UserError(f"there is no tracking store at {store.uri}: run a study there first.")
    store.initialise()
    close_abandoned(store)
    stderr().print(
        f"MLflow UI: http://{host}:{port}/#/?workflowType=machine_learning (Ctrl-C ends it)",
        highlight=False,
        soft_wrap=True,
    )
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # Job workers would take 2 GB and half a minute; nothing here uses them.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.execve(command[0], command, environment)


def doctor(tracking_uri: TrackingOption = None, as_json: JsonOption = False) -> None:
    """Tell what is installed, and whether the store answers.

    Also which devices there are, and what the processor calculates with.
    """
    from mmlab.datasets import DATASETS
    from mmlab.system.environment import describe_environment
    from mmlab.tracking import TrackingStore

    store = TrackingStore(tracking_uri)
    content: dict[str, Any] = {
        **describe_environment(),
        "tracking_uri": store.uri,
        "tracking_store": "there" if store.exists else "not created yet",
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
