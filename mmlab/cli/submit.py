"""`mmlab submit`: a command as a job of a Ray cluster."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmlab.cli.console import print_json, print_message, print_text
from mmlab.cli.interrupted import TRY_AGAIN
from mmlab.cli.shared_options import JsonOption
from mmlab.errors import UserError
from mmlab.system.redaction import redact

if TYPE_CHECKING:
    from mmlab.schedule.jobs import Job, Jobs


def submit(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND",
            help="tune, benchmark, robustness, sweep, run or promote, with its options.",
        ),
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_API_SERVER_ADDRESS",
            help="Dashboard of the cluster's head: http://HOST:8265. The token of the cluster is "
            "read from RAY_AUTH_TOKEN, or the file that RAY_AUTH_TOKEN_PATH names.",
        ),
    ] = "http://127.0.0.1:8265",
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the job's name, and do not wait for it.")
    ] = False,
    status: Annotated[
        str | None, typer.Option(metavar="JOB", help="Show the state of a job.")
    ] = None,
    logs: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Follow the log of a job to its end."),
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Stop a job; it closes its runs and can be resumed."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a command as a job of a Ray cluster, and follow its log.

    \b
    mmlab submit --address http://HOST:8265 -- \\
        tune --dataset zeisel --trials 50 --tracking-uri https://SERVER
    mmlab submit --address http://HOST:8265 --logs JOB

    The exit code is that of the command. Ctrl-C ends only the following. The same command is not
    started twice: it is followed if it runs or has finished, and started again if it failed or was
    stopped. Files that its options name are sent with the job. The tracking server has to be one
    that the cluster reaches; the variables of MLflow, with their credentials, go to the head alone.
    """
    _check_options(command, status, logs, stop)
    if command:
        _submit(command, address, detach, as_json)
        return

    from mmlab.schedule.jobs import Jobs

    jobs = Jobs(address)
    if logs is not None:
        jobs.find(logs)
        _follow(jobs, logs, as_json)
    elif stop is not None:
        stopped = jobs.stop(stop)
        print_message(f"Job {stop} is being stopped." if stopped else f"Job {stop} has ended.")
    elif status is not None:
        _show(jobs.find(status), as_json)


def _check_options(command: list[str] | None, *names: str | None) -> None:
    """Raise ``UserError`` unless exactly one thing is asked for."""
    if bool(command) + sum(name is not None for name in names) != 1:
        raise UserError(
            "give either a command after --, as in `mmlab submit -- tune --dataset zeisel`, or one "
            "of --status, --logs and --stop with the name of a job."
        )


def _submit(words: list[str], address: str, detach: bool, as_json: bool) -> None:
    """Start the job, unless it runs already, and follow it."""
    from mmlab.cli.job_command import parse_command
    from mmlab.tracking.job_environment import CERTIFICATES, job_environment

    command = parse_command(words)
    environment = job_environment(command.tracking_uri)
    for name in CERTIFICATES:
        if name in environment:
            path = Path(environment[name])
            if not path.is_file():
                raise UserError(f"{name}: {path} does not exist.")
            environment[name] = f"certificates/{path.name}"
            command.files[environment[name]] = path
    uri = environment["MLFLOW_TRACKING_URI"]

    from mmlab.schedule.jobs import Jobs

    jobs = Jobs(address)
    with tempfile.TemporaryDirectory(prefix="mmlab-job-") as folder:
        command.fill(Path(folder), environment)
        job, started = jobs.start(command.job_name(uri), command.entrypoint, Path(folder))
    if started:
        print_message(f"Job {job.name} was started; its tracking store is {redact(uri)}")
    else:
        state = "runs already" if job.exit_code is None else "has finished already"
        print_message(f"Job {job.name} {state}, and is not started again.")
    if detach:
        _show(job, as_json)
    else:
        _follow(jobs, job.name, as_json)


def _follow(jobs: Jobs, name: str, as_json: bool) -> None:
    """Print the log of a job to its end, and exit with the exit code of its command."""
    from mmlab.schedule.jobs import JobLostError

    stream = sys.stderr if as_json else sys.stdout

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    advice = f"Follow it with: mmlab submit --address {jobs.address} --logs {name}"
    try:
        job = jobs.follow(name, write)
    except KeyboardInterrupt:
        print_message(f"Job {name} goes on. {advice}; stop it with --stop {name}")
        raise typer.Exit(130) from None
    except JobLostError as error:
        print_message(f"{jobs.address} no longer answers ({error}); job {name} may go on. {advice}")
        raise typer.Exit(TRY_AGAIN) from None
    if as_json:
        _show(job, as_json)
    if job.exit_code:
        print_message(_describe(job))
        raise typer.Exit(job.exit_code)


def _show(job: Job, as_json: bool) -> None:
    if as_json:
        content = {"job": job.name, "status": job.status, "exit_code": job.exit_code}
        print_json(content | {"message": job.message})
        return
    print_text(_describe(job))


def _describe(job: Job) -> str:
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    return f"Job {job.name}: {job.status}{code}. {job.message}".rstrip()
