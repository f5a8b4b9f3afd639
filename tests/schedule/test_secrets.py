"""The password of a tracking server is in nothing that a study writes or prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import run_mmlab
from servers import free_port, server

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SECRET = "s3cr3tPassw0rd"
STUDY = """
study: benchmark
data: {name: pbmc68k_reduced}
n_markers: [10]
replicates: 2
methods: [random]
"""


@pytest.mark.long
def test_a_password_is_in_no_record_and_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "study.yaml").write_text(STUDY)
    port = free_port()
    uri = f"http://user:{SECRET}@127.0.0.1:{port}"
    commands = [
        ("run", "study.yaml", "--json", "-o", "tables", "--rows", "rows.parquet"),
        ("doctor",),
        ("report", "unknown", "-o", "report"),
        ("select", "--dataset", "pbmc68k_reduced", "--method", "random", "--param", "x=1"),
    ]
    outputs = []
    with server(tmp_path, port):
        for command in commands:
            done = run_mmlab(tmp_path, *command, "--tracking-uri", uri)
            outputs.append(done.stdout + done.stderr)
            assert "Traceback" not in done.stderr
    outputs.append(run_mmlab(tmp_path, "ui", "--tracking-uri", uri).stderr)
    for output in outputs:
        assert SECRET not in output
    assert f"http://user:***@127.0.0.1:{port}" in outputs[0]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"server.db", "benchmark.md", "rows.parquet", "owner"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
