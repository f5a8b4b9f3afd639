"""A command of mmlab that is sent to a cluster: its arguments there, and the files it reads."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from mmlab.cli.console import print_message
from mmlab.errors import UserError
from mmlab.system.redaction import redact

#: Commands that run on a cluster and record what they do in the tracking store.
COMMANDS = ("tune", "benchmark", "robustness", "sweep", "run", "promote")
#: Options and arguments that name files to read; those of genes may name genes instead.
FILES = ("data", "search", "groups", "weights", "noise_matrix", "file", "include", "exclude")
#: Options that name what is written.
OUTPUTS = ("rows", "output", "metrics")
#: Ray takes no more bytes in a request.
_MAX_BYTES = 90_000_000
#: Environment of the job, in its folder. The entry point reads and removes it.
ENVIRONMENT_FILE = "mmlab-environment.json"


@dataclass
class JobCommand:
    """A command as the cluster runs it.

    Attributes
    ----------
    arguments
        Arguments of mmlab, with the paths that files have in the job's folder.
    title
        Dataset, file or name of the study.
    tracking_uri
        Its --tracking-uri, which is not among the arguments: it may contain a password.
    files
        Files of this machine by their paths in the job's folder.
    """

    arguments: list[str]
    title: str
    tracking_uri: str | None
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        """Shell command that the head runs."""
        return f"exec python -m mmlab.cli.job_entrypoint {shlex.join(self.arguments)}"

    def job_name(self, uri: str) -> str:
        """Return the name of the job: equal for equal commands on equal files and one store."""
        hashes = {name: _hash(path) for name, path in sorted(self.files.items())}
        content = json.dumps([self.arguments, hashes, redact(uri)])
        digest = hashlib.sha256(content.encode()).hexdigest()[:10]
        title = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.title)[:60]
        return f"mmlab-{self.arguments[0]}-{title}-{digest}"

    def fill(self, folder: Path, environment: dict[str, str]) -> None:
        """Copy the files to the folder of the job, and write its environment there.

        Two jobs with equal folders would share one on the head: a random number makes them differ.
        """
        for name, path in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target)
            else:
                shutil.copyfile(path, target)
        secret = folder / ENVIRONMENT_FILE
        secret.touch(mode=0o600)
        content = {"job": secrets.token_hex(), "variables": environment}
        secret.write_text(json.dumps(content))


def parse_command(words: list[str]) -> JobCommand:
    """Return the command that a user has typed, with or without ``mmlab`` at its beginning.

    Raises
    ------
    UserError
        It is none that a cluster can run, or its files cannot be sent.
    """
    from mmlab.cli import app

    if words[:1] == ["mmlab"]:
        words = words[1:]
    if not words or words[0] not in COMMANDS:
        raise UserError(
            f"{shlex.join(words[:1]) or 'nothing'} cannot be submitted. After --, give one of "
            f"{', '.join(COMMANDS)}, with its options."
        )
    group: Any = typer.main.get_command(app)
    command = group.commands[words[0]]
    with command.make_context(words[0], words[1:]) as context:
        values = {
            parameter.name: value
            for parameter in command.params
            if (value := context.params.get(parameter.name)) is not None
            and context.get_parameter_source(parameter.name).name == "COMMANDLINE"
        }
        _check_outputs(words[0], values)
        uri = values.pop("tracking_uri", None)
        values.setdefault("address", "auto")
        files: dict[str, Path] = {}
        for name in FILES:
            if name in values:
                values[name] = _send(name, str(values[name]), files)
        if words[0] == "run":
            _send_data_of(files)
    arguments = [words[0], *_typed(command.params, values)]
    named = (values.get(key) for key in ("name", "resume", "study", "dataset", "data", "file"))
    title = next((Path(str(value)).stem for value in named if value), words[0])
    return JobCommand(arguments, title, uri, files)


def _typed(parameters: list[Any], values: dict[str, Any]) -> list[str]:
    """Return the words of a command line with the given values."""
    words: list[str] = []
    options: list[str] = []
    for parameter in parameters:
        if parameter.name not in values:
            continue
        value = values[parameter.name]
        listed = value if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            words += map(str, listed)
        elif value is True:
            options.append(parameter.opts[0])
        elif value is not False:
            options += [word for each in listed for word in (parameter.opts[0], str(each))]
    return [*words, *options]


def _check_outputs(command: str, values: dict[str, Any]) -> None:
    """Raise ``UserError`` for files that would be written to the job's temporary folder."""
    relative = [name for name in OUTPUTS if name in values and not values[name].is_absolute()]
    if command == "promote" and "output" not in values:
        relative = ["output"]
    if relative:
        raise UserError(
            f"--{relative[0]}: the job's own folder is removed after its end. Pass an absolute "
            "path on the head of the cluster"
            + ("." if command == "promote" else ", or leave it out: the study's run has the files.")
        )


def _send(name: str, value: str, files: dict[str, Path]) -> str:
    """Return the path that a file has for the job; note it in ``files`` if it is to be sent.

    What is no file of this machine is genes, or an absolute path on the cluster.
    """
    text = value.removeprefix("@")
    path = Path(text)
    option = "the study file" if name == "file" else f"--{name.replace('_', '-')}"
    if not _exists(path):
        if name in ("include", "exclude") or path.is_absolute():
            return value
        raise UserError(
            f"{option} {text} does not exist here. Give an absolute path for a file of the cluster."
        )
    if _size(path) + sum(map(_size, files.values())) > _MAX_BYTES:
        if not path.is_absolute():
            raise UserError(
                f"{option} {text} is too large to be sent with the job ({_size(path) / 1e6:.0f} "
                "MB). Copy it to the cluster, and give its absolute path there."
            )
        print_message(f"{option} {text} is not sent: the cluster must have it at the same path.")
        return value
    sent = f"inputs/{name}/{path.name}"
    files[sent] = path
    return sent


def _send_data_of(files: dict[str, Path]) -> None:
    """Add the file that a study file names to ``files``, at the same relative path.

    Raises
    ------
    UserError
        The study file has mistakes, or its file is not below the working directory.
    """
    from mmlab.spec.comparison import ComparisonSpec
    from mmlab.spec.yaml import read_spec

    for study in list(files.values()):
        data = read_spec(study, ComparisonSpec).data.path
        if data is None or Path(data).is_absolute():
            continue
        path = Path(data)
        if ".." in path.parts or not _exists(path) or _size(path) > _MAX_BYTES:
            raise UserError(
                f"{study}: data.path {data} cannot be sent with the job: it is not below this "
                "folder, or larger than 90 MB. Copy it to the cluster, and write its absolute path."
            )
        files[data] = path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a list of genes is too long for the name of a file
        return False


def _parts(path: Path) -> list[Path]:
    """Return a file, or the files of a folder (a .zarr store)."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in _parts(path))


def _hash(path: Path) -> str:
    content = hashlib.sha256()
    for part in _parts(path):
        content.update(part.name.encode())
        content.update(part.read_bytes())
    return content.hexdigest()
