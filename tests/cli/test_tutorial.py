"""The tutorial does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

TUTORIAL = Path(__file__).parents[2] / "experiments" / "tutorial.md"


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.timeout(1800)  # nine commands, each with a training of its own
def test_every_command_of_the_tutorial_runs(tmp_path: Path) -> None:
    commands = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    assert len(commands) == 9
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PATH": path},
        )
        assert done.returncode == 0, command + done.stdout + done.stderr
    assert "all numbers are equal" in done.stdout
    assert len(pd.read_csv(tmp_path / "panel.csv")) == 20
    assert (tmp_path / "report" / "report.html").stat().st_size > 100_000
