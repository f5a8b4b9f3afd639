"""Addresses at which no Ray cluster responds, or one that does not take this driver."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import SMALL, keep_ray_token, run_mmlab
from servers import free_port

from mmlab.errors import UserError
from mmlab.schedule import cluster_address
from mmlab.schedule.cluster_watch import responds

pytestmark = pytest.mark.cluster


@pytest.fixture
def other_server() -> Iterator[str]:
    """The address of a server that is none of Ray."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_head_that_hangs_takes_connections_but_does_not_answer(other_server: str) -> None:
    assert responds(other_server)
    assert not responds(f"127.0.0.1:{free_port()}")
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        assert not responds(f"127.0.0.1:{hung.getsockname()[1]}", timeout=0.2)


def test_nothing_listens_there() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UserError, match=f"no Ray cluster responds at {address}.*refused"):
        cluster_address.require_cluster(address)


@pytest.mark.parametrize("address", ["nonsense", "host:", ":6379", "host:0", "host:99999", "h:x"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match=r"must be HOST:PORT, such as 10\.0\.0\.1:6379, or auto"):
        cluster_address.require_cluster(address)


def test_an_address_of_the_ray_client() -> None:
    with pytest.raises(UserError, match=r"no study runs\. Run the command on a machine of the"):
        cluster_address.require_cluster("ray://127.0.0.1:10001")


def test_a_server_that_is_not_ray(other_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_address, "_TIMEOUT", 1.0)
    keep_ray_token()
    with pytest.raises(UserError, match=f"what responds at {other_server} is not a Ray cluster"):
        cluster_address.require_cluster(other_server)


@pytest.mark.long
def test_a_cluster_takes_a_driver_with_its_token_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written by a driver that is refused."""
    # That of this process: a client of the test before may not have read it yet.
    keep_ray_token()
    token = os.environ["RAY_AUTH_TOKEN"]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    address = f"127.0.0.1:{free_port()}"
    head = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    head += ["--port", address.rpartition(":")[2], "--num-cpus", "1"]
    # The paths of sockets must be short.
    folder = tempfile.mkdtemp()
    head += ["--include-dashboard", "false", "--temp-dir", folder]
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with (tmp_path / "head").open("w") as output:
        cluster = subprocess.Popen(head, stdout=output, stderr=output)
    try:
        command = ["tune", *SMALL, "--trials", "1", "--epochs", "1", "--address", address]
        done = run_mmlab(tmp_path, *command)
        for _ in range(30):
            if "no Ray cluster responds" not in done.stderr:
                break
            assert cluster.poll() is None, (tmp_path / "head").read_text()
            done = run_mmlab(tmp_path, *command)
        assert done.returncode == 0, done.stderr
        (tmp_path / "other").mkdir()
        for other in ("", token[::-1]):
            monkeypatch.setenv("RAY_AUTH_TOKEN", other)
            refused = run_mmlab(tmp_path / "other", *command)
            assert refused.returncode == 2
            assert refused.stderr.strip().splitlines()[-1] == (
                f"Error: the Ray cluster at {address} requires the token of its head: set "
                "RAY_AUTH_TOKEN to it, or RAY_AUTH_TOKEN_PATH to a file with it."
            )
            assert not list((tmp_path / "other").iterdir())
    finally:
        cluster.terminate()
        cluster.wait(timeout=60)
        shutil.rmtree(folder)
