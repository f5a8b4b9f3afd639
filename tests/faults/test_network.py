"""A node on a network of its own, whose link goes down and comes back."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import printed, ray_actors, running_mmlab, wait_for, wait_until
from reference_study import assert_complete, run_study, write_study
from servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.long]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
#: Addresses of the head and of the node, in a private network.
HEAD, NODE = "10.77.0.1", "10.77.0.2"


@dataclass(frozen=True)
class Link:
    """A network namespace, and the interface that connects this machine with it."""

    namespace: str
    interface: str

    def set(self, state: str) -> None:
        """Bring the interface ``up``, or ``down``."""
        ip("link", "set", self.interface, state)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def link() -> Iterator[Link]:
    """A link with two addresses; the test is skipped where that is not possible."""
    if shutil.which("ip") is None or os.getuid() != 0:
        pytest.skip("needs the program ip, of iproute2, and root")
    link, peer = Link(f"mmlab-{os.getpid()}", f"mm{os.getpid()}"), f"mp{os.getpid()}"
    try:
        ip("netns", "add", link.namespace)
    except subprocess.CalledProcessError:
        pytest.skip("this machine allows no network namespaces")
    try:
        ip("link", "add", link.interface, "type", "veth", "peer", "name", peer)
        ip("link", "set", peer, "netns", link.namespace)
        ip("address", "add", f"{HEAD}/24", "dev", link.interface)
        ip("-n", link.namespace, "address", "add", f"{NODE}/24", "dev", peer)
        ip("-n", link.namespace, "link", "set", peer, "up")
        ip("-n", link.namespace, "link", "set", "lo", "up")
        link.set("up")
        yield link
    finally:
        ip("netns", "delete", link.namespace)


@contextmanager
def ray_node(folder: Path, name: str, prefix: list[str], *options: str) -> Iterator[psutil.Process]:
    """Run a node with one CPU; ``prefix`` is the command that runs it elsewhere."""
    command = [*prefix, *RAY, "start", "--block", "--num-cpus=1", f"--node-name={name}", *options]
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = psutil.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield process
    finally:
        processes = [*process.children(recursive=True), process]
        for each in processes:
            each.terminate()
        for each in psutil.wait_procs(processes, timeout=20)[1]:
            each.kill()
        process.wait()


@pytest.mark.parametrize("seconds", [5, 40])
def test_a_link_that_goes_down_and_comes_back(
    reference: dict[str, Any],
    link: Link,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    """After a long time the trials of the node run elsewhere; none is lost or counted twice."""
    write_study(tmp_path)
    (tmp_path / "token").write_text(secrets.token_hex(32))
    (tmp_path / "token").chmod(0o600)
    # The second one, which mmlab sets for a local Ray, would bind the head to loopback.
    for name in ("RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    address = f"{HEAD}:{free_port()}"
    head = [f"--node-ip-address={HEAD}", f"--port={address.split(':')[1]}", "--head"]
    head += ["--include-dashboard=false"]
    elsewhere = ["ip", "netns", "exec", link.namespace]
    with ExitStack() as running:
        # Ray puts sockets into it, whose paths must be short.
        folder = running.enter_context(tempfile.TemporaryDirectory(dir="/tmp"))
        running.enter_context(ray_node(tmp_path, "head", [], *head, f"--temp-dir={folder}"))
        join = [f"--address={address}", f"--node-ip-address={NODE}"]
        node = running.enter_context(ray_node(tmp_path, "node", elsewhere, *join))
        driver = running.enter_context(
            running_mmlab(tmp_path, "run", "study.yaml", "--address", address)
        )
        wait_for(tmp_path, driver, r"\[2/")
        wait_until(lambda: bool(ray_actors(node.pid)), driver, tmp_path)
        link.set("down")
        time.sleep(seconds)
        link.set("up")
        assert driver.wait(timeout=300) == 0, printed(tmp_path)
    assert_complete(f"sqlite:///{tmp_path}/mlflow.db", reference, run_study(tmp_path))
