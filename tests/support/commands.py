"""The command line, called in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from mmlab.cli import app
from mmlab.errors import UserError


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=True)


def mistake(*arguments: str) -> str:
    """Message of the mistake that a command ends with."""
    result = call(*arguments)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def run(*arguments: str) -> tuple[int, str]:
    """Exit code of a command, and what it prints; of a mistake 2 and its message."""
    result = call(*arguments)
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    return result.exit_code, result.stdout
