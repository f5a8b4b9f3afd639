"""The statements of SECURITY.md that no other test checks."""

from __future__ import annotations

import ast
import os
import re
import time
from pathlib import Path

import pytest
from processes import listening_sockets, running_mmlab

import mmlab

ROOT = Path(__file__).parents[1]
SELECT = ("select", "--dataset", "pbmc68k_reduced", "--method", "random", "-k", "5", "--json")
#: Modules and functions that execute what a file contains.
EXECUTING = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
EXECUTING_CALLS = {"eval", "exec", "torch.load", "yaml.load", "np.load", "pd.read_pickle"}


def test_every_statement_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) >= 20
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_no_module_reads_pickles() -> None:
    for path in Path(mmlab.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").split(".")[0]}
            elif isinstance(node, ast.Call):
                names = {ast.unparse(node.func)}
            else:
                continue
            assert not names & (EXECUTING | EXECUTING_CALLS), f"{path}, line {node.lineno}"


def test_no_usage_statistics_are_sent() -> None:
    import mmlab.schedule
    import mmlab.tracking  # noqa: F401

    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.slow
def test_select_listens_on_nothing_and_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name).mkdir(mode=0o700)
    umask = os.umask(0o077)
    try:
        with running_mmlab(tmp_path, *SELECT) as process:
            listening = set()
            while process.poll() is None:
                listening |= listening_sockets(process.pid)
                time.sleep(0.1)
    finally:
        os.umask(umask)
    assert process.returncode == 0, (tmp_path / "stderr").read_text()
    assert not listening
    files = list(tmp_path.rglob("*"))
    assert {"mlflow.db", "panel.csv"} <= {path.name for path in files}
    assert [path for path in files if path.stat().st_mode & 0o077] == []
