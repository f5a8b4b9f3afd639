"""Options that say what panels have to hold, and the files that they read."""

from __future__ import annotations

import csv
import inspect
import math
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from mmlab.cli.options import names
from mmlab.errors import UserError

_PANEL = "What panels hold"
#: Mistakes of a file that are listed.
_LISTED = 10
_FILE_ENDINGS = (".txt", ".csv", ".tsv", ".list")

IncludeOption = Annotated[
    str,
    typer.Option(
        "--include",
        metavar="FILE|GENE,GENE",
        help="Genes that every panel must hold: A,B,C or a FILE with one a line.",
        rich_help_panel=_PANEL,
    ),
]
ExcludeOption = Annotated[
    str,
    typer.Option(
        "--exclude",
        metavar="FILE|GENE,GENE",
        help="Genes that no panel may hold: A,B,C or a FILE with one a line.",
        rich_help_panel=_PANEL,
    ),
]
GroupsOption = Annotated[
    Path | None,
    typer.Option(
        "--groups",
        help="CSV file with the columns gene and group, e.g. gene families; with --max-per-group.",
        rich_help_panel=_PANEL,
    ),
]
MaxPerGroupOption = Annotated[
    int | None,
    typer.Option("--max-per-group", min=1, help="Most genes of a group.", rich_help_panel=_PANEL),
]
MaxMeanCountsOption = Annotated[
    float | None,
    typer.Option(
        "--max-mean-counts",
        help="Leave out genes with more raw counts a cell, on average over the training cells.",
        rich_help_panel=_PANEL,
    ),
]
MinPerTypeOption = Annotated[
    int | None,
    typer.Option(
        "--min-per-type",
        min=1,
        help="Fewest genes that mark each cell type: highest in it, twice the other cells' level.",
        rich_help_panel=_PANEL,
    ),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="CSV file with the columns gene and weight: priority of a gene, 1 where it is not "
        "named; 0 forbids it.",
        rich_help_panel=_PANEL,
    ),
]


def asks_panels(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of :func:`panel_content` before ``--tracking-uri``.

    Its argument ``panel`` gets what they ask.
    """
    options = inspect.signature(panel_content, eval_str=True).parameters
    signature = inspect.signature(command, eval_str=True)
    own = [option for option in signature.parameters.values() if option.name != "panel"]
    place = [option.name for option in own].index("tracking_uri")
    parameters = [*own[:place], *options.values(), *own[place:]]

    @wraps(command)
    def with_options(**values: Any) -> None:
        asked = {name: values.pop(name) for name in options}
        command(**values, panel=panel_content(**asked))

    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {option.name: option.annotation for option in parameters}
    return with_options


def panel_content(
    include: IncludeOption = "",
    exclude: ExcludeOption = "",
    groups: GroupsOption = None,
    max_per_group: MaxPerGroupOption = None,
    max_mean_counts: MaxMeanCountsOption = None,
    min_per_type: MinPerTypeOption = None,
    weights: WeightsOption = None,
) -> dict[str, Any]:
    """What the options ask of panels, for a specification: the contents of the files.

    Raises
    ------
    UserError
        A file that cannot be read, with all its mistakes; or groups without their most.
    """
    if (groups is None) != (max_per_group is None):
        raise UserError("--groups and --max-per-group go together: give both, or neither.")
    constraints: dict[str, Any] = {
        "max_per_group": max_per_group,
        "max_mean_counts": max_mean_counts,
        "min_per_type": min_per_type,
    }
    if groups is not None:
        constraints["groups"] = read_table("--groups", groups, "group", to_group)
    if weights is not None:
        constraints["weights"] = read_table("--weights", weights, "weight", to_weight)
    return {
        "include": read_genes("--include", include),
        "exclude": read_genes("--exclude", exclude),
        "constraints": {name: value for name, value in constraints.items() if value is not None},
    }


def read_genes(option: str, text: str) -> list[str]:
    """Names of genes: the lines of a file, or separated by commas.

    Blank lines, and what stands behind a #, are not read. ``@FILE`` is a file in any case.

    Raises
    ------
    UserError
        The file cannot be read.
    """
    path = Path(text.removeprefix("@"))
    if text.startswith("@") or _is_file(path) or _looks_like_a_file(text):
        lines = (_without_comment(line).strip() for line in _read(option, path).splitlines())
        return [line for line in lines if line]
    return names(text)


def read_table(
    option: str, path: Path, column: str, convert: Callable[[str], Any]
) -> dict[str, Any]:
    """A value a gene from a CSV file with the columns ``gene`` and ``column``.

    Columns may be separated by commas, semicolons or tabs; others are not read, and neither are
    lines that begin with #.

    Raises
    ------
    UserError
        The file cannot be read, lacks a column, or has wrong values: all of them are named.
    """
    lines = [
        (number, line)
        for number, line in enumerate(_read(option, path).splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]
    if not lines:
        raise UserError(f"{option} {path}: is empty; give the columns gene and {column}.")
    header = lines[0][1]
    separator = max(",;\t", key=header.count)
    try:
        head, *rows = csv.reader((line for _, line in lines), delimiter=separator)
    except csv.Error as error:
        raise UserError(f"{option} {path}: cannot be read as a CSV table: {error}.") from error
    have = [name.strip().lower() for name in head]
    missing = [name for name in ("gene", column) if name not in have]
    if missing:
        raise UserError(
            f"{option} {path}: has no column {' and no column '.join(missing)}; it has "
            f"{', '.join(have)}."
        )
    places = have.index("gene"), have.index(column)
    found, problems = dict[str, Any](), list[str]()
    genes: list[str] = []
    for (number, _), row in zip(lines[1:], rows, strict=False):
        gene, text = (row[place].strip() if place < len(row) else "" for place in places)
        genes.append(gene)
        try:
            if not gene:
                raise ValueError("no gene is named")
            found[gene] = convert(text)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    twice = [gene for gene, times in Counter(genes).items() if gene and times > 1]
    if twice:
        problems.append(f"named twice: {', '.join(twice[:_LISTED])}")
    if problems:
        more = len(problems) - _LISTED
        listed = problems[:_LISTED] + ([f"and {more} more"] if more > 0 else [])
        raise UserError(f"{option} {path}: {'; '.join(listed)}.")
    return found


def to_group(text: str) -> str:
    """A group's name (``ValueError`` for none)."""
    if not text:
        raise ValueError("the group is empty")
    return text


def to_weight(text: str) -> float:
    """A gene's weight (``ValueError`` for what is none)."""
    from mmlab.spec.constraints import check_weight

    try:
        weight = float(text)
    except ValueError:
        raise ValueError(f"the weight {text!r} is not a number") from None
    if not math.isfinite(weight):
        raise ValueError(f"the weight {text!r} is not a finite number")
    return check_weight(weight)


def _read(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{option} {path}: is not plain text in UTF-8: save it as text or CSV in UTF-8."
        ) from error
    except OSError as error:
        raise UserError(f"{option}: cannot read {path}: {error.strerror}.") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a list of genes is too long for the name of a file
        return False


def _looks_like_a_file(text: str) -> bool:
    return "," not in text and text.lower().endswith(_FILE_ENDINGS)


def _without_comment(line: str) -> str:
    """The part of a line before a # that begins it or follows a space."""
    head, *_ = f" {line}".replace("\t#", " #").split(" #", 1)
    return head
