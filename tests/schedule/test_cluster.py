"""Ray on this machine: its processes are unreachable from others, and leftovers do not matter."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from processes import LOOPBACK, listening_sockets, running_mmlab

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STUDY = """
study: benchmark
data: {name: pbmc68k_reduced}
n_markers: [10]
replicates: 4
methods: [random, scanpy_t_test]
"""


def test_a_local_run_listens_on_the_loopback_interface_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is in no file; RAY_ADDRESS of a dead cluster is not followed."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RAY_ADDRESS", "10.255.255.1:6379")
    (tmp_path / "study.yaml").write_text(STUDY)
    listening: set[tuple[str, str]] = set()
    with running_mmlab(tmp_path, "run", "study.yaml", "--json") as driver:
        deadline = time.monotonic() + 300
        while driver.poll() is None:
            assert time.monotonic() < deadline, (tmp_path / "stderr").read_text()
            listening |= listening_sockets(driver.pid)
            time.sleep(0.2)
        assert driver.returncode == 0, (tmp_path / "stderr").read_text()
    names = {name.split("::")[0] for name, _ in listening}
    assert {"gcs_server", "raylet", "ray"} <= names
    assert {address for _, address in listening} <= LOOPBACK
    assert not list(home.rglob("auth_token"))
