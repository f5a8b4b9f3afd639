"""Names under which the UI may be opened, judged by the checks of the installed MLflow."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from commands import mistake
from mlflow.server.security_utils import (
    get_allowed_hosts_from_env,
    get_allowed_origins_from_env,
    get_default_allowed_hosts,
    is_allowed_host_header,
    should_block_cors_request,
)

from mmlab.cli import ui as command
from mmlab.cli.ui_hosts import check_address, host_variables, own_names, parse_hosts
from mmlab.errors import UserError
from mmlab.tracking import TrackingStore


def opens(names: list[str], host: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether MLflow serves a page to a browser under ``host``, and its searches for runs."""
    for variable, value in host_variables(names).items():
        monkeypatch.setenv(variable, value)
    hosts = get_allowed_hosts_from_env() or get_default_allowed_hosts()
    origins = get_allowed_origins_from_env()
    blocked = should_block_cors_request(f"{scheme}://{host}", "POST", origins)
    return is_allowed_host_header(hosts, host) and not blocked


@pytest.mark.parametrize(
    ("names", "host", "scheme", "expected"),
    [
        ("", "lab.example.org:5000", "http", False),
        ("", "localhost:5000", "http", True),
        # A page that MLflow alone would open without its runs.
        ("10.0.0.5", "10.0.0.5:5000", "http", True),
        ("lab.example.org", "lab.example.org:5000", "http", True),
        ("lab.example.org", "lab.example.org", "https", True),
        ("Lab.Example.ORG", "lab.example.org", "http", True),
        ("lab.example.org", "localhost:5000", "http", True),
        ("lab.example.org", "[::1]:5000", "http", True),
        ("lab.example.org", "evil.example.com", "http", False),
        ("lab.example.org", "lab.example.org.evil.com", "http", False),
        ("lab.example.org", "notlab.example.org", "http", False),
        ("lab.example.org:5000", "lab.example.org:5000", "http", True),
        ("lab.example.org:5000", "lab.example.org:80", "http", False),
        ("a.org, *.example.org", "deep.lab.example.org:8443", "https", True),
        ("a.org, *.example.org", "example.org", "http", False),
        ("[2001:db8::5]", "[2001:db8::5]:5000", "http", True),
        ("[2001:db8::5]", "[2001:db8::6]:5000", "http", False),
        ("*", "anything.net", "http", True),
    ],
)
def test_a_browser_opens_the_allowed_names_alone(
    names: str, host: str, scheme: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opens(parse_hosts(names), host, scheme, monkeypatch) is expected


def test_names_add_to_what_mlflow_and_the_user_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "https://other.org")
    variables = host_variables(["lab.example.org"])
    assert set(get_default_allowed_hosts()) <= set(
        variables["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    )
    assert "https://other.org" in variables["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")


@pytest.mark.parametrize("name", ["http://lab.example.org", "lab.example.org/mlflow", "a b", "a:x"])
def test_an_address_is_no_name(name: str) -> None:
    text = mistake("ui", "--allowed-hosts", f"good.org,{name}")
    assert text.startswith(f"--allowed-hosts: {name!r} is not the name of a host.")


def test_a_machine_is_known_by_its_name_and_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    def address(family: int, text: str) -> object:
        return SimpleNamespace(family=family, address=text)

    networks = {
        "lo": [address(socket.AF_INET, "127.0.0.1"), address(socket.AF_INET6, "::1")],
        "eth0": [
            address(socket.AF_INET, "10.0.0.5"),
            address(socket.AF_INET6, "2001:db8::5"),
            address(socket.AF_INET6, "fe80::1%eth0"),
            address(psutil.AF_LINK, "02:42:ac:11:00:02"),
        ],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: networks)
    monkeypatch.setattr(socket, "gethostname", lambda: "Node7")
    assert own_names("127.0.0.1") == own_names("localhost") == own_names("::1") == []
    assert own_names("0.0.0.0") == ["node7", "10.0.0.5"]
    assert own_names("::") == ["node7", "10.0.0.5", "[2001:db8::5]"]
    assert own_names("10.0.0.5") == ["node7", "10.0.0.5"]


class Started(BaseException):
    """Raised instead of the start of the server."""


@pytest.mark.parametrize("allowed", ["", "lab.example.org"])
def test_ui_says_who_can_reach_it_and_prints_the_latest_study(
    allowed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started: dict[str, str] = {}

    def start(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        started.update(environment)
        raise Started

    monkeypatch.setattr(command.os, "execve", start)
    monkeypatch.setattr(command, "check_address", lambda host, port: None)
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.chdir(tmp_path)
    store = TrackingStore()
    store.initialise()
    experiment = store.experiment("tiny")
    run_id = store.create_run(experiment, "study", {"mmlab.kind": "study"})
    store.close(run_id, "FINISHED")
    with pytest.raises(Started):
        command.ui(host="0.0.0.0", port=5001, allowed_hosts=allowed)
    text = capsys.readouterr().err
    assert f"MLflow UI: http://127.0.0.1:5001/#/experiments/{experiment}/runs?" in text
    assert run_id in text
    assert "there is no login" in text
    assert "http://node7:5001" in text
    assert ("http://lab.example.org:5001" in text) == bool(allowed)
    assert ("--host 0.0.0.0 --allowed-hosts" in text) == (not allowed)
    assert "node7:*" in started["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")

    with pytest.raises(Started):
        command.ui()
    assert "login" not in capsys.readouterr().err


@pytest.mark.parametrize("host", ["[/red]", "999.1.1.1", "nohost.invalid", "::1x", "", "a" * 300])
def test_ui_announces_no_host_that_cannot_be_found(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    TrackingStore().initialise()
    assert "cannot be found: " in mistake("ui", "--host", host)
    assert "MLflow UI" not in capsys.readouterr().err


def test_ui_listens_on_free_addresses_of_this_machine_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port} of 127\.0\.0\.1 is in use"):
            check_address("127.0.0.1", port)
    for host in ("127.0.0.1", "localhost", "0.0.0.0"):
        check_address(host, port)
    # An address of documentation (RFC 5737), which no machine has.
    with pytest.raises(UserError, match=r"nothing can listen on --host 192\.0\.2\.1"):
        check_address("192.0.2.1", port)
