"""End of a command whose study was interrupted."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import fields
from typing import NoReturn

from mmlab.cli.console import print_message, program_name
from mmlab.spec.resources import Resources
from mmlab.system.redaction import redact
from mmlab.system.words import count

#: The exit code of a study that the same command can go on with later (EX_TEMPFAIL).
TRY_AGAIN = 75


def end_interrupted(reason: str, advice: str) -> NoReturn:
    """Print why the study ended and how to go on, and end the process at once.

    Nothing is left to do. An orderly end of Python would stop the client of Ray, which crashes or
    waits for a minute if the processes of Ray are gone.

    Parameters
    ----------
    reason
        Why the study ended, as a sentence; empty if the user interrupted it.
    """
    print_message(f"{reason or 'Interrupted.'} {advice}")
    sys.stdout.flush()
    os._exit(TRY_AGAIN if reason else 130)


def comes_from_interrupt(error: BaseException | None) -> bool:
    """Return whether an exception is, or was raised because of, a ``KeyboardInterrupt``.

    Typer ends the process then, and compiled modules raise ``ImportError``.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def print_unsent(n_trials: int, uri: str, place: str, command: str) -> None:
    """Print that finished trials wait for a tracking store that does not answer."""
    print_message(
        f"{count(n_trials, 'finished trial')} could not be sent to {uri}: kept in {place}; "
        f"when it answers again, send what is kept with: {command}"
    )


def resume_command(study: str, tracking_uri: str | None, resources: Resources) -> str:
    """Return the command that resumes a search on the same store with the same resources."""
    options = ["--resume", study]
    if tracking_uri is not None:
        options += ["--tracking-uri", tracking_uri]
    for field in fields(resources):
        value = getattr(resources, field.name)
        if value != field.default:
            options += [f"--{field.name.replace('_', '-')}", str(value)]
    return redact(f"{program_name()} tune {shlex.join(options)}")
