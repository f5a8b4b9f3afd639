"""A study through a real tracking server: nginx, MLflow, PostgreSQL and S3, as in `tracking/`."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from collections import Counter
from contextlib import ExitStack

import psutil
import pytest
from processes import mmlab_command
from promotions import SEARCH, SELECTOR
from tiny import as_cells, simulate_cells
from tracking_stack import TrackingStack

from mmlab.spec.trial import TrialSpec
from mmlab.tracking import EndedTrial, Outbox, TrackingStore, create_study, outbox
from mmlab.trial.outcome import Outcome
from mmlab.trial.run import run_trial

#: Requests for a finished trial of a search, without heartbeats and epochs.
REQUESTS_PER_TRIAL = 5
TRIALS = 2
TUNE = ["tune", "--dataset", "citeseq", "--quick", "--replicates", "1", "--epochs", "3"]
TUNE += ["--trials", str(TRIALS), "--max-concurrent", "1", "--json", "--name"]


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


def requests_of_trials(stack: TrackingStack, n_trials: int) -> Counter[str]:
    """Send finished trials of a search to the server, and return its requests without ids.

    The best trial so far has figures: it is sent beforehand.
    """
    cells = as_cells(simulate_cells())
    study = create_study(TrackingStore(), "after the backup", SEARCH, cells, {}, "")
    ended = []
    for seed in range(n_trials + 1):
        params = {"max_epochs": 4}
        spec = TrialSpec(
            data=SEARCH.data,
            selector=SELECTOR,
            n_markers=6,
            protocol="search",
            params=params,
            seed=seed,
        )
        result = run_trial(spec, cells)
        ended.append(
            EndedTrial(result.spec, result.digest, study.run_id, Outcome.COMPLETE, result, "", 1)
        )
    best, *others = sorted(ended, key=lambda trial: -trial.final_scores["score"])
    with Outbox(study, cells) as sender:
        sender.put(best)
        assert sender.drain() == 0
        since = len(stack.requests())
        for trial in others:
            sender.put(trial)
        assert sender.drain() == 0
    ids = re.compile(r"[0-9a-f]{32}")
    return Counter(f"{r[0]} {ids.sub('ID', r[1])}" for r in stack.requests()[since:])


def command_lines(process: psutil.Process) -> str:
    return "\n".join(
        " ".join(each.cmdline()) for each in [process, *process.children(recursive=True)]
    )


@pytest.mark.long
def test_a_study_backup_restore_and_prune_through_the_server(
    stack: TrackingStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack.script("secrets.sh").returncode == 0
    port, folder = str(stack.ports["database"]), stack.folder
    with stack.s3(), stack.database():
        admin = (f"--host={stack.database_folder}", f"--port={port}", "--username=postgres")
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
            assert {t["status"] for t in result["trials"]} <= {"complete", "stopped"}
            assert len(result["trials"]) == TRIALS
            # 404 is the answer that there is no experiment yet.
            assert {r[2] for r in stack.requests()} <= {"200", "404"}
            backup = stack.script("backup.sh", str(folder / "backup"))
            assert backup.returncode == 0, backup.stderr
            monkeypatch.setattr(outbox, "HEARTBEAT_INTERVAL", 1e6)
            for name, value in user.items():
                monkeypatch.setenv(name, value)
            requests = requests_of_trials(stack, 3)
            print(f"{sum(requests.values())} requests for 3 finished trials:")
            for request, n in requests.most_common():
                print(f"{n:5} {request}")
            milliseconds = 1000 * statistics.median(r[3] for r in stack.requests())
            print(f"median of all requests: {milliseconds:.0f} ms in the server")
            assert sum(requests.values()) == 3 * REQUESTS_PER_TRIAL
            busy = stack.script("restore.sh", str(folder / "backup"))
            assert (busy.returncode, "Stop the server" in busy.stderr) == (2, True)
    # The machines are lost.
    shutil.rmtree(folder / "s3")
    for content in stack.database_folder.iterdir():
        shutil.rmtree(content) if content.is_dir() else content.unlink()
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
