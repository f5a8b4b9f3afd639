"""Help in which the options of a command stand under titles, as plain text."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

#: Titles of the groups of options that several commands share.
DATA = "Data"
CONSTRAINTS = "Panel constraints"
RESOURCES = "Resources"
OUTPUT = "Output"


class CommandWithPanels(TyperCommand):
    """A command whose help lists its options by their ``rich_help_panel``.

    Typer itself draws these panels with rich, whose import takes longer than all the rest of
    ``mmlab --help``; the titles are the same here, without boxes.
    """

    #: Title of the options that have no panel: those of this command alone.
    own_panel: ClassVar[str] = "Options"

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section per panel, in the order of the options."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name, text = record
                panels.setdefault(self._panel(parameter), []).append((_plain_type(name), text))
        for title, records in panels.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def _panel(self, parameter: Any) -> str:
        if parameter.param_type_name == "argument":
            return "Arguments"
        if parameter.name == "help":
            return OUTPUT
        return str(getattr(parameter, "rich_help_panel", None) or self.own_panel)


def _plain_type(name: str) -> str:
    """Return an option and its type, without Python's and click's own words for types.

    The range of a number and the repetition of an option stand in its help.
    """
    return re.sub(r"<(?:list\[)?(\w+)(?: range|\])?>", r"<\1>", name)


def command_with_panels(title: str) -> type[CommandWithPanels]:
    """Return the class of a command whose own options stand under ``title``."""
    return type("CommandWithPanels", (CommandWithPanels,), {"own_panel": title})


def help_without_command(context: typer.Context) -> None:
    """Show the help of a group of commands that is called without one."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
