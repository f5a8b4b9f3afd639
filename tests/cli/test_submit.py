"""Commands that are sent to a cluster: what is sent, and what is refused."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from commands import call, mistake

from mmlab.cli import app
from mmlab.cli.job_command import COMMANDS, ENVIRONMENT_FILE, FILES, OUTPUTS, parse_command
from mmlab.cli.job_entrypoint import read_environment
from mmlab.errors import UserError
from mmlab.tracking.job_environment import job_environment

TUNE = ["tune", "--dataset", "zeisel", "-k", "10", "--quick", "--trials", "3"]
SERVER = "http://user:s3cr3t@tracking:5000"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_command_keeps_its_options_and_gets_the_cluster() -> None:
    command = parse_command(["mmlab", *TUNE, "--tracking-uri", SERVER])
    expected = "tune --dataset zeisel --trials 3 --n-markers 10 --quick --address auto"
    assert command.arguments == expected.split()
    assert command.tracking_uri == SERVER
    assert command.entrypoint.endswith(expected)
    assert parse_command([*TUNE, "--address", "h:1"]).arguments[-2:] == ["--address", "h:1"]
    sweep = parse_command(["sweep", "n_markers=10,25", "--dataset", "zeisel"])
    assert sweep.arguments[:2] == ["sweep", "n_markers=10,25"]


def test_the_name_of_a_job_is_that_of_command_files_and_store(folder: Path) -> None:
    Path("genes.txt").write_text("A\n")
    words = [*TUNE, "--include", "genes.txt"]
    name = parse_command(words).job_name(SERVER)
    assert name.startswith("mmlab-tune-zeisel-")
    # Neither the order of options nor a password makes another job of it.
    moved = ["tune", "--include", str(folder / "genes.txt"), *TUNE[1:]]
    assert parse_command(moved).job_name(SERVER.replace("s3cr3t", "new")) == name
    assert parse_command(words).job_name("http://elsewhere") != name
    assert parse_command([*words, "--seed", "1"]).job_name(SERVER) != name
    Path("genes.txt").write_text("B\n")
    assert parse_command(words).job_name(SERVER) != name
    assert "/" not in parse_command([*TUNE, "--name", "a study/1"]).job_name(SERVER)


def test_files_are_sent_and_nothing_else(folder: Path) -> None:
    for name in ("cells.h5ad", "must.txt", "other.txt"):
        Path(name).write_text(name)
    (folder / "cells.zarr" / "X").mkdir(parents=True)
    (folder / "cells.zarr" / "X" / "0").write_text("chunk")
    own = ["--data", "cells.h5ad", "--label-key", "type"]
    options = ["--include", "@must.txt", "--exclude", "MALAT1,NEAT1"]
    command = parse_command(["benchmark", *own, *options])
    assert "--data inputs/data/cells.h5ad" in command.entrypoint
    assert "--include inputs/include/must.txt --exclude MALAT1,NEAT1" in command.entrypoint
    job = folder / "job"
    job.mkdir()
    command.fill(job, {"A": "b"})
    sent = {path.relative_to(job).as_posix() for path in job.rglob("*") if path.is_file()}
    assert sent == {"inputs/data/cells.h5ad", "inputs/include/must.txt", ENVIRONMENT_FILE}
    assert (job / ENVIRONMENT_FILE).stat().st_mode & 0o777 == 0o600
    # Jobs with equal folders would share one on the head, where the first removes the environment.
    before = (job / ENVIRONMENT_FILE).read_text()
    (job / ENVIRONMENT_FILE).unlink()
    command.fill(job, {"A": "b"})
    assert (job / ENVIRONMENT_FILE).read_text() != before
    store = parse_command(["benchmark", "--data", "cells.zarr", "--label-key", "type"])
    store.fill(folder, {})
    assert (folder / "inputs/data/cells.zarr/X/0").read_text() == "chunk"


STUDY = "study: benchmark\ndata: {%s}\nn_markers: [5]\nreplicates: 2\nmethods: [random]\n"


def test_the_cells_of_a_study_file_are_sent(folder: Path) -> None:
    (folder / "data").mkdir()
    Path("data/cells.h5ad").write_text("cells")
    Path("study.yaml").write_text(STUDY % "path: data/cells.h5ad, label_key: type")
    command = parse_command(["run", "study.yaml"])
    assert set(command.files) == {"inputs/file/study.yaml", "data/cells.h5ad"}
    Path("study.yaml").write_text(STUDY % "path: ../cells.h5ad, label_key: type")
    with pytest.raises(UserError, match=r"\.\./cells\.h5ad cannot be sent with the job"):
        parse_command(["run", "study.yaml"])
    Path("study.yaml").write_text(STUDY % "path: /shared/cells.h5ad, label_key: type")
    assert set(parse_command(["run", "study.yaml"]).files) == {"inputs/file/study.yaml"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ui"], "ui cannot be submitted. After --, give one of tune, benchmark"),
        (["--detach"], "nothing cannot be submitted"),
        (["benchmark", "--data", "none.h5ad"], "--data none.h5ad does not exist here"),
        (["run", "none.yaml"], "the study file none.yaml does not exist here"),
        (["benchmark", "-o", "tables"], "--output: the job's own folder is removed after its end"),
        (["benchmark", "--rows", "r.parquet"], "--rows: the job's own folder is removed"),
        (["promote", "study"], "--output: the job's own folder is removed after its end. Pass an"),
        (["run", "bad.yaml"], "bad.yaml: "),
    ],
)
def test_what_cannot_be_sent(words: list[str], sentence: str) -> None:
    Path("bad.yaml").write_text("study: benchmark\n")
    if words == ["--detach"]:
        words = []
    with pytest.raises(UserError) as error:
        parse_command(words)
    assert sentence in str(error.value)


def test_a_large_file_has_to_be_on_the_cluster(folder: Path) -> None:
    with Path("cells.h5ad").open("wb") as file:
        file.truncate(200_000_000)
    own = ["benchmark", "--label-key", "type", "--data"]
    with pytest.raises(UserError, match=r"too large to be sent with the job \(200 MB\)"):
        parse_command([*own, "cells.h5ad"])
    command = parse_command([*own, str(folder / "cells.h5ad")])
    assert command.files == {}
    assert str(folder / "cells.h5ad") in command.arguments
    assert "/elsewhere.h5ad" in parse_command([*own, "/elsewhere.h5ad"]).arguments


def test_every_option_with_a_path_is_known() -> None:
    """A new option with a file is added to those that are sent, or to the outputs."""
    group: Any = typer.main.get_command(app)
    for name in COMMANDS:
        options = inspect.signature(group.commands[name].callback, eval_str=True).parameters
        paths = {key for key, option in options.items() if "Path" in str(option.annotation)}
        assert paths <= {*FILES, *OUTPUTS}, name
        assert "address" in options
        if name == "tune":
            assert {"data", "search", "groups"} <= paths


def test_a_mistake_in_the_command_is_said_at_once() -> None:
    result = call("submit", "--", "tune", "--datasett", "zeisel")
    assert result.exit_code == 2
    assert "No such option: --datasett" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give either a command after --"),
        (["--status", "a", "--stop", "b"], "give either a command after --"),
        (["--", *TUNE], "the default: a job of the cluster cannot write to sqlite:///"),
        (["--address", "head:6379", "--status", "a"], "must be that of the dashboard"),
        (["--address", "http://127.0.0.1:9", "--logs", "a"], "no Ray dashboard responds at http"),
        (
            ["--address", "http://127.0.0.1:9", "--", *TUNE, "--tracking-uri", SERVER],
            "no Ray dashboard responds at http://127.0.0.1:9. Start one with `ray start --head`",
        ),
    ],
)
def test_what_submit_refuses(arguments: list[str], sentence: str, folder: Path) -> None:
    message = mistake("submit", *arguments)
    assert sentence in message
    assert "s3cr3t" not in message
    assert list(folder.iterdir()) == []


def test_a_job_gets_the_credentials_and_no_local_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv("OTHER_SECRET", "no")
    sent = job_environment(SERVER)
    assert sent["MLFLOW_TRACKING_URI"] == SERVER
    assert (sent["MLFLOW_TRACKING_TOKEN"], sent["AWS_SECRET_ACCESS_KEY"]) == ("t0ken", "key")
    assert "OTHER_SECRET" not in sent
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI: a job of the cluster cannot write"):
        job_environment(None)


def test_the_environment_of_a_job_is_read_once_and_kept_from_workers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "certificates").mkdir()
    (folder / "certificates" / "ca.pem").touch()
    certificate = {"MLFLOW_TRACKING_SERVER_CERT_PATH": "certificates/ca.pem"}
    variables = {"MLFLOW_TRACKING_TOKEN": "t"} | certificate
    (folder / ENVIRONMENT_FILE).write_text(json.dumps({"job": "1", "variables": variables}))
    for name in ("MLFLOW_TRACKING_TOKEN", *certificate):
        monkeypatch.setenv(name, "before")
    config = {"runtime_env": {"working_dir": "gcs://x.zip"}, "metadata": {"job_name": "j"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    read_environment(folder)
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "t"
    path = os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"]
    assert path == str(folder / "certificates" / "ca.pem")
    kept = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
    assert kept == {"metadata": {"job_name": "j"}}
    assert not (folder / ENVIRONMENT_FILE).exists()
