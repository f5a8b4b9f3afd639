"""`mmlab ui` serves what was written, and a server can be written to."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from processes import LOOPBACK, listening_sockets
from servers import free_port, is_ready

from mmlab.tracking import TrackingStore

pytestmark = pytest.mark.slow


def run_select(folder: Path, *arguments: str) -> dict[str, object]:
    options = ["--dataset", "pbmc68k_reduced", "--method", "random", "-k", "5", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "mmlab", "select", *options, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, object] = json.loads(done.stdout)
    return content


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, int, Path]]:
    """Address of the UI on a store, id of a run written to it before, process number, output."""
    folder = tmp_path_factory.mktemp("service")
    run_id = str(run_select(folder)["run_id"])
    port = free_port()
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmlab", "ui", "--port", str(port)],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not is_ready(port):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.3)
        yield address, run_id, process.pid, output
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def server(ui: tuple[str, str, int, Path]) -> tuple[str, str]:
    """Address of the UI on a store, and the id of a run that was written to it before."""
    return ui[:2]


def test_the_ui_listens_on_the_loopback_interface(ui: tuple[str, str, int, Path]) -> None:
    process = psutil.Process(ui[2])
    addresses = {address for _, address in listening_sockets(process.pid)}
    assert addresses
    assert addresses <= LOOPBACK
    lines = [" ".join(p.cmdline()) for p in [process, *process.children(recursive=True)]]
    assert not [line for line in lines if "mlflow.db" in line]


def test_ui_serves_the_runs_of_the_store(server: tuple[str, str], tmp_path: Path) -> None:
    address, run_id = server
    client = TrackingStore(address).client
    assert client.get_run(run_id).data.params["selector"] == "random"
    panel = Path(client.download_artifacts(run_id, "panel.csv", str(tmp_path)))
    assert panel.read_text().startswith("rank,gene,gene_index,score\n")
    with urllib.request.urlopen(address) as page:
        assert b"MLflow" in page.read()


def test_the_printed_address_stays_in_sight(ui: tuple[str, str, int, Path]) -> None:
    """No request of the browser and no warning of a library adds a line to it."""
    address, _, _, output = ui
    for path in ("", "/version", "/missing"):
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(address + path).close()
    lines = output.read_text().splitlines()
    assert lines[0].startswith(f"MLflow UI: {address}/#/experiments")
    assert [line for line in lines[1:] if not line.startswith("[MLflow] Security")] == []


def test_runs_and_artifacts_can_be_sent_to_a_server(
    server: tuple[str, str], tmp_path: Path
) -> None:
    address, _ = server
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    run_id = str(run_select(folder, "--tracking-uri", address)["run_id"])
    client = TrackingStore(address).client
    assert client.get_run(run_id).info.status == "FINISHED"
    files = {file.path for file in client.list_artifacts(run_id)}
    assert {"markers.parquet", "replicates.parquet", "trial.json"} <= files
    assert list(folder.iterdir()) == []
