"""`mmlab ui`: the MLflow UI on a tracking store."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mmlab.cli.console import print_message, print_text
from mmlab.cli.shared_options import TrackingOption
from mmlab.cli.tracking_store import open_store
from mmlab.errors import UserError


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    tracking_uri: TrackingOption = None,
) -> None:
    """Serve the MLflow UI; Ctrl-C stops it."""
    from mmlab.tracking import close_abandoned

    store = open_store(tracking_uri)
    if store.uri.startswith("http"):
        print_text(f"the tracking server serves the UI itself: open {store.uri}")
        return
    if not store.exists:
        raise UserError(
            f"there is no tracking store at {store.uri}: run a study first, or pass the "
            "--tracking-uri of one."
        )
    store.initialise()
    close_abandoned(store)
    address = f"http://{host}:{port}/#/?workflowType=machine_learning"
    print_message(f"MLflow UI: {address} (Ctrl-C stops it)")
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # MLflow's job workers take 2 GB of memory and half a minute to start; mmlab uses none.
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Not an option: all users of the machine see the command lines of processes.
        "MLFLOW_BACKEND_STORE_URI": store.connection_uri,
    }
    os.execve(command[0], command, environment)
