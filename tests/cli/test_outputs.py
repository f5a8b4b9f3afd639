"""Outputs that cannot be written: said before any work, and nothing is lost if it comes late."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from commands import call, mistake

from mmlab.tracking import TrackingStore, TrialRun

DATA = ["--dataset", "pbmc68k_reduced"]
SELECT = ["select", *DATA, "--method", "random", "-k", "5"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_outputs_are_checked_before_any_work(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "sub").mkdir()
    long = "x" * 250
    study = ["benchmark", *DATA, "--methods", "random"]
    for command, problem in [
        ([*SELECT, "-o", "sub"], "--output sub is a folder. Pass the name of a file in it."),
        ([*SELECT, "-o", "missing/panel.csv"], "the folder missing does not exist"),
        ([*SELECT, "-o", long], "cannot be written: File name too long"),
        ([*study, "-o", "file"], "--output file is a file. Pass a folder."),
        ([*study, "-o", long], "cannot be written: File name too long"),
        ([*study, "--rows", "sub"], "--rows sub is a folder"),
        ([*study, "--rows", "file/rows.parquet"], "the folder file does not exist"),
        (["promote", "study", "-o", "file"], "--output file is a file"),
        *[
            ([*command, "-o", root], f"--output {root} is the root of the file system.")
            for command in (study, ["report", "study"], ["promote", "study"])
            for root in ("/", "/..", "/".join([".."] * len(folder.parts)))
        ],
        (["promote", "study", "-o", f"new/{long}/{long}x" * 20], "File name too long"),
        (["report", "study", "-o", long], "cannot be written: File name too long"),
    ]:
        assert problem in mistake(*command), command
    assert sorted(path.name for path in folder.iterdir()) == ["file", "sub"]


def test_a_full_device_loses_no_panel(folder: Path) -> None:
    message = mistake(*SELECT, "-o", "/dev/full")
    assert "--output /dev/full could not be written: No space left on device" in message
    (run,) = TrackingStore().search({"mmlab.kind": "trial"})
    assert f"panel.csv of run {run.info.run_id} in sqlite:///{folder}/mlflow.db: " in message
    assert run.info.status == "FINISHED"


def test_a_store_that_fails_at_the_end_loses_no_panel(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectionError("connection refused by http://user:s3cr3t@host")

    monkeypatch.setattr(TrialRun, "add_result", away)
    message = mistake(*SELECT, "-o", "panel.csv")
    assert "did not take the result: connection refused by http://user:***@host" in message
    panel = pd.read_csv(folder / "panel.csv")
    kept = next(word for word in message.split() if word.endswith(".csv,")).rstrip(",")
    pd.testing.assert_frame_equal(pd.read_csv(kept), panel)
    content = json.loads(Path(kept).with_suffix(".json").read_text())
    assert content["digest"] == Path(kept).stem
    (run,) = TrackingStore().search({"mmlab.kind": "trial"})
    assert run.info.status == "FAILED"


def test_names_of_commands_and_labels_are_shown_as_text(folder: Path) -> None:
    result = call("datasets", "info", "x[/red]\x1b[31m")
    assert "x[/red]\\x1b[31m" in str(result.exception)


def test_links_to_nothing_and_in_a_circle_are_refused(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")
    (folder / "nothing").symlink_to("missing")
    (folder / "full").symlink_to("/dev/full")
    study = ["benchmark", *DATA, "--methods", "random"]
    for name, target in {"circle": "circle", "nothing": "missing"}.items():
        for option, command in {
            "--output": [*SELECT, "-o", name],
            "--rows": [*study, "--rows", name],
            "-o": [*study, "-o", name],
            "of a report": ["report", "study", "-o", name],
        }.items():
            assert f"{name} is a symbolic link to {target}, which" in mistake(*command), option
    assert "--rows full is not a regular file." in mistake(*study, "--rows", "full")
    assert "cannot read circle: Too many levels" in mistake("reproduce", "circle")
    assert "circle" in mistake(*study, "--tracking-uri", "sqlite:///circle")
    assert sorted(path.name for path in folder.iterdir()) == ["circle", "full", "nothing"]


def test_a_panel_that_cannot_be_written_to_its_end_leaves_the_older_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pd.DataFrame.to_csv

    def full(table: pd.DataFrame, path: Path, **options: object) -> None:
        if Path(path).absolute().parent == folder:
            Path(path).write_text("rank,ge")
            raise OSError(28, "No space left on device")
        write(table, path, **options)  # type: ignore[call-overload]

    (folder / "panel.csv").write_text("older")
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    message = mistake(*SELECT, "-o", "panel.csv")
    assert "--output panel.csv could not be written: No space left on device" in message
    assert (folder / "panel.csv").read_text() == "older"
    assert not list(folder.glob(".panel.csv*"))
