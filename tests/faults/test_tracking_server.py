"""Faults of the parts of a tracking server, and of drivers that share one."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from processes import mmlab_command, printed, run_mmlab, running_mmlab, wait_for
from reference_study import assert_complete, run_study, write_study
from servers import free_port, server
from tracking_stack import TrackingStack, family

from mmlab.tracking import TrackingStore

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.long]


def test_a_database_that_is_killed_and_artifacts_that_are_away(
    reference: dict[str, Any],
    stack: TrackingStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL is killed; then S3 first does not answer, and is killed, too."""
    write_study(tmp_path)
    assert stack.script("secrets.sh").returncode == 0
    admin = [f"--host={stack.database_folder}", f"--port={stack.ports['database']}"]
    with ExitStack() as running:
        s3, database = ExitStack(), ExitStack()
        for parts in (s3, database):
            running.callback(parts.close)
        weed = s3.enter_context(stack.s3())
        postgres = database.enter_context(stack.database())
        assert stack.script("database.sh", *admin, "--username=postgres").returncode == 0
        password = stack.script("user.sh", "ann").stdout.strip()
        for name, value in stack.credentials("ann", password).items():
            monkeypatch.setenv(name, value)
        running.enter_context(stack.server())
        running.enter_context(stack.proxy())
        driver = running.enter_context(running_mmlab(tmp_path, "run", "study.yaml"))
        wait_for(tmp_path, driver, r"\[2/")
        for process in family(postgres):
            process.kill()
        time.sleep(12)
        database.close()
        database.enter_context(stack.database())
        wait_for(tmp_path, driver, r"\[8/")
        weed.send_signal(signal.SIGSTOP)
        time.sleep(12)
        weed.kill()
        s3.close()
        s3.enter_context(stack.s3())
        assert driver.wait(timeout=300) == 0, printed(tmp_path)
        assert_complete(stack.uri, reference, run_study(tmp_path))
        store = TrackingStore(stack.uri)
        for run in store.search({"mmlab.kind": "trial"}):
            files = {file.path for file in store.client.list_artifacts(run.info.run_id)}
            assert "panel.csv" in files


def test_a_driver_that_is_killed_is_followed_by_one_on_another_host(
    reference: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod that restarts has another name, and none of the files of the first."""
    write_study(tmp_path)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with server(tmp_path, port):
        options = ["run", "study.yaml", "--json", "--tracking-uri", uri]
        with running_mmlab(tmp_path, *options) as driver:
            wait_for(tmp_path, driver, r"\[5/")
            driver.kill()
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
        elsewhere = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
        started = time.monotonic()
        command = [*elsewhere, *mmlab_command(*options)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        if "Operation not permitted" in done.stderr:
            pytest.skip("this machine allows no host name of its own")
        print(f"{time.monotonic() - started:.0f} seconds")
        assert done.returncode == 0, done.stderr
        assert "was not closed by" in done.stderr
        assert_complete(uri, reference, json.loads(done.stdout))
        (study,) = TrackingStore(uri).search({"mmlab.kind": "study"})
        assert study.data.tags["mmlab.host"] == "elsewhere"


def test_results_in_a_bucket_outlive_the_machine_of_the_driver(
    reference: dict[str, Any],
    stack: TrackingStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tracking server is lost, then the driver's machine; nothing is computed again."""
    write_study(tmp_path)
    port = free_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", stack.keys["access"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stack.keys["secret"])
    bucket = f"s3://mmlab/waiting?endpoint_override=127.0.0.1:{stack.ports['s3']}&scheme=http"
    options = ["--tracking-uri", f"http://127.0.0.1:{port}", "--storage", bucket]
    with stack.s3():
        first = ExitStack()
        first.enter_context(server(tmp_path, port))
        with running_mmlab(tmp_path, "run", "study.yaml", *options) as driver:
            wait_for(tmp_path, driver, r"\[5/")
            first.close()
            assert driver.wait(timeout=300) == 75, printed(tmp_path)
        assert "kept in s3://mmlab/waiting/" in printed(tmp_path)
        assert [name for name in stack.objects() if name.endswith(".json")]
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
        with server(tmp_path, port):
            done = run_mmlab(tmp_path, "run", "study.yaml", "--json", *options[:2])
            assert done.returncode == 0, done.stderr
            assert "trials to compute" not in done.stderr
            assert_complete(options[1], reference, json.loads(done.stdout))
        # pyarrow leaves empty objects in place of folders.
        assert [name for name in stack.objects() if not name.endswith("/")] == []


def test_six_commands_at_once_create_a_database_and_write_to_it(tmp_path: Path) -> None:
    command = ["select", "--dataset", "pbmc68k_reduced", "-k", "5", "--method", "scanpy_t_test"]
    commands = [
        subprocess.Popen(
            mmlab_command(*command, "--seed", str(seed), "-o", f"{seed}.csv"),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(6)
    ]
    for each in commands:
        _, errors = each.communicate(timeout=500)
        assert each.returncode == 0, errors
    runs = list(TrackingStore(f"sqlite:///{tmp_path}/mlflow.db").search({}))
    assert len({run.data.params["seed"] for run in runs}) == 6
    assert {run.info.status for run in runs} == {"FINISHED"}
