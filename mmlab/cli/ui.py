"""`mmlab ui`: the MLflow UI on a tracking store."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mmlab.cli.console import print_message, print_text, program_name
from mmlab.cli.shared_options import TrackingOption
from mmlab.cli.tracking_store import UI_HOST, UI_PORT, open_store
from mmlab.cli.ui_hosts import (
    HOSTS_VARIABLE,
    bracketed,
    check_address,
    host_variables,
    own_names,
    parse_hosts,
)
from mmlab.errors import UserError


def ui(
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for other "
            "machines too. There is no login: who reaches the port can change and delete runs."
        ),
    ] = UI_HOST,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = UI_PORT,
    allowed_hosts: Annotated[
        str,
        typer.Option(
            envvar=HOSTS_VARIABLE,
            help="Names under which browsers open the UI, comma-separated, for example "
            "lab.example.org or *.example.org; others get the error 403 'Invalid Host header'. "
            "Needed behind a proxy or a DNS name; localhost, this machine's host name and the "
            "addresses that it listens on are always allowed.",
        ),
    ] = "",
    tracking_uri: TrackingOption = None,
) -> None:
    """Serve the MLflow UI; Ctrl-C stops it.

    The printed address opens the latest study, its runs sorted by score.
    """
    from mmlab.tracking import close_abandoned, latest_study_page

    names = parse_hosts(allowed_hosts)
    store = open_store(tracking_uri)
    if store.uri.startswith("http"):
        page = latest_study_page(store)
        print_text(f"the tracking server serves the UI itself: open {_address(store.uri, page)}")
        return
    if not store.exists:
        raise UserError(
            f"there is no tracking store at {store.uri}: run a study first, or pass the "
            "--tracking-uri of one."
        )
    check_address(host, port)
    store.initialise()
    close_abandoned(store)
    page = latest_study_page(store)
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    address = _address(f"http://{bracketed(local)}:{port}", page)
    print_message(f"MLflow UI: {address} (it answers in some seconds; Ctrl-C stops it)")
    own = own_names(host)
    if own:
        print_message(_exposed_hint(host, port, [*own, *names], named=bool(names)))
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    # Without a line for each request of the browser: the address stays in sight.
    command += ["--uvicorn-opts", "--log-level warning"]
    # MLflow's job workers take 2 GB of memory and half a minute to start; mmlab uses none.
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Not an option: all users of the machine see the command lines of processes.
        "MLFLOW_BACKEND_STORE_URI": store.connection_uri,
        "MLFLOW_REGISTRY_STORE_URI": store.connection_uri,
        # Libraries warn of each other's outdated calls, which no user can change.
        "PYTHONWARNINGS": "ignore",
    }
    os.execve(command[0], command, environment | host_variables([*own, *names]))


def _address(server: str, page: str | None) -> str:
    """Return the address of the latest study's page, or of the list of experiments."""
    from mmlab.tracking import page_address

    return page_address(server, "#/experiments" if page is None else page)


def _exposed_hint(host: str, port: int, names: list[str], *, named: bool) -> str:
    """Say who can reach the UI, under which addresses, and how to add another name."""
    shown = [name if ":" in name.rpartition("]")[2] else f"{name}:{port}" for name in names]
    text = (
        f"Other machines can open, change and delete all runs: there is no login. Allowed "
        f"addresses: {', '.join(f'http://{name}' for name in shown)}."
    )
    if named:
        return text
    return (
        f"{text} For another name, such as that of a proxy: {program_name()} ui --host {host} "
        "--allowed-hosts lab.example.org"
    )
