"""Run commands of the command line in the test process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from mmlab.cli import app
from mmlab.errors import UserError


def call(*arguments: str) -> Result:
    """Run a command and return its result; an exception is stored in the result."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


def mistake(*arguments: str) -> str:
    """Run a command that fails with a UserError, and return its message."""
    result = call(*arguments)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def run(*arguments: str) -> tuple[int, str]:
    """Return exit code and standard output of a command; for a UserError 2 and its message."""
    result = call(*arguments)
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    return result.exit_code, result.stdout
