"""What commands print: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlab.system.printable import encodable
from mmlab.system.redaction import redact

if TYPE_CHECKING:
    from mmlab.cli.text_console import TextConsole


def print_json(content: Any) -> None:
    """Print one JSON document on stdout; NaN becomes null, passwords of URIs ``***``."""
    print(json.dumps(_printable_json(content), indent=2))


def stdout() -> TextConsole:
    """Return the console for results."""
    from mmlab.cli.text_console import TextConsole

    return TextConsole()


def stderr() -> TextConsole:
    """Return the console for messages and progress."""
    from mmlab.cli.text_console import TextConsole

    return TextConsole(stderr=True)


def print_text(text: str) -> None:
    """Print a line of results on stdout, without passwords of URIs."""
    stdout().print(redact(text), soft_wrap=True)


def print_message(text: str) -> None:
    """Print a message on stderr, without passwords of URIs."""
    stderr().print(redact(text), soft_wrap=True)


def program_name() -> str:
    """Return how the user called mmlab: its name if that is on the path, else the file.

    The result is quoted for the shell.
    """
    called = sys.argv[0]
    if Path(called).name == "__main__.py":
        return "python -m mmlab"
    found = shutil.which("mmlab")
    same = found is not None and Path(found).resolve() == Path(called).resolve()
    return "mmlab" if same else shlex.quote(called)


def recorded_command() -> str:
    """Return the command line of this process as studies record it, without passwords."""
    return redact(encodable(shlex.join(["mmlab", *sys.argv[1:]])))


def same_command() -> str:
    """Return the command line that repeats this one in the user's shell."""
    return redact(f"{program_name()} {shlex.join(sys.argv[1:])}")


def _printable_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _printable_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable_json(item) for item in value]
    if isinstance(value, str):
        return redact(value)
    return None if isinstance(value, float) and value != value else value
