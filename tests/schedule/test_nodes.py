"""A cluster of two nodes, one of which cannot import mmlab."""

from __future__ import annotations

import importlib
import os
import secrets
from pathlib import Path

import pytest
from processes import SMALL, run_mmlab, tune

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


def test_node_without_mmlab_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trial fails, and the node is named with the reason."""
    importlib.import_module("mmlab.schedule")  # sets what Ray reads when it is imported
    from ray.cluster_utils import Cluster

    broken = tmp_path / "broken" / "mmlab"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no mmlab on this node')\n")
    # Ray keeps the first token of a process: later tests of the same process need it, too.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.chdir(tmp_path)
    environment = {"PYTHONPATH": str(broken.parent)}
    head = {"num_cpus": 2, "node_name": "bare", "env_vars": environment}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        options = [*SMALL, "--epochs", "3", "--address", cluster.address]
        done = run_mmlab(tmp_path, "tune", *options, "--trials", "2")
        assert done.returncode == 2, done.stderr
        assert "can run trials: bare (ImportError: no mmlab on this node)." in done.stderr
        assert "Traceback" not in done.stderr

        cluster.add_node(num_cpus=1, node_name="equipped")
        content = tune(tmp_path, *options, "--trials", "3")
        assert len(content["trials"]) == 3
        assert {trial["status"] for trial in content["trials"]} <= {"complete", "stopped"}
        assert content["best"] is not None
    finally:
        cluster.shutdown()
