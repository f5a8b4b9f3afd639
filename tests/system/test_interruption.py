"""Signals during a study: one orderly end, whatever comes after the first."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

#: A study that closes its runs for `sys.argv[1]` seconds once it is interrupted.
STUDY = """
import signal, sys, time
# Tests may run in the background, where Ctrl-C is ignored.
for number in map(int, sys.argv[2:]):
    signal.signal(number, signal.default_int_handler)
from mmlab.cli.interrupted import end_interrupted
from mmlab.system.interruption import StudyInterruptedError, interruptible

try:
    with interruptible() as interruption:
        try:
            print("started", flush=True)
            time.sleep(1000)
        finally:
            print("closing", flush=True)
            deadline = time.monotonic() + float(sys.argv[1])
            while time.monotonic() < deadline:
                time.sleep(0.01)
            open("closed", "w").close()
except StudyInterruptedError as interrupted:
    end_interrupted(interrupted.reason, "Resume it.")
"""


def start(
    folder: Path, seconds: float, ignored: int = 0, **options: object
) -> subprocess.Popen[str]:
    numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} - {ignored}
    command = [sys.executable, "-c", STUDY, str(seconds), *(str(int(n)) for n in numbers)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, cwd=folder, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def read_line(study: subprocess.Popen[str]) -> str:
    assert study.stdout is not None
    return study.stdout.readline().strip()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_study_is_closed_and_repeated_signals_are_the_same_request(
    tmp_path: Path, first: signal.Signals
) -> None:
    study = start(tmp_path, 0.5)
    assert read_line(study) == "started"
    study.send_signal(first)
    assert read_line(study) == "closing"
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        study.send_signal(number)
    _, errors = study.communicate(timeout=60)
    assert study.returncode == 130
    assert errors == "Interrupted. Resume it.\n"
    assert (tmp_path / "closed").exists()


def test_second_ctrl_c_ends_at_once_with_one_line(tmp_path: Path) -> None:
    study = start(tmp_path, 1000)
    assert read_line(study) == "started"
    study.send_signal(signal.SIGINT)
    assert read_line(study) == "closing"
    time.sleep(1.5)
    study.send_signal(signal.SIGINT)
    _, errors = study.communicate(timeout=60)
    assert study.returncode == 130
    assert errors.strip().splitlines() == [
        "Ended at once. The next command on the tracking store closes the open runs."
    ]
    assert not (tmp_path / "closed").exists()


def test_hangup_is_ignored_under_nohup(tmp_path: Path) -> None:
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    study = start(tmp_path, 0, signal.SIGHUP, preexec_fn=ignore)
    assert read_line(study) == "started"
    study.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert study.poll() is None
    study.terminate()
    study.communicate(timeout=60)
    assert study.returncode == 130


def test_study_is_closed_when_its_terminal_is(tmp_path: Path) -> None:
    """Without a terminal every write fails."""
    master, terminal = pty.openpty()
    study = start(
        tmp_path,
        0.2,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )
    os.close(terminal)
    assert os.read(master, 100).strip() == b"started"
    os.close(master)
    assert study.wait(timeout=60) == 130
    assert (tmp_path / "closed").exists()
