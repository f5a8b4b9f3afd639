"""Lists of genes and tables with one value per gene, from files that options name."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmlab.cli.shared_options import split_names
from mmlab.errors import UserError, join_problems

#: Headers of the column with the genes, in order of preference; in lower case, _ for spaces.
_GENE_HEADERS = (
    *("gene", "genes", "symbol", "symbols", "gene_symbol", "gene_symbols", "gene_name"),
    *("gene_names", "feature_name", "hgnc_symbol", "mgi_symbol", "marker", "markers"),
    *("gene_id", "gene_ids", "ensembl_id", "ensembl_gene_id", "name", "names"),
)
#: Mistakes of a file that are listed.
_LISTED = 10
_FILE_ENDINGS = (".txt", ".csv", ".tsv", ".list")


def read_genes(option: str, text: str | None) -> list[str]:
    """Return the names of genes: the lines of a file, or a comma-separated list; none for None.

    Blank lines and comments, which begin with #, are skipped. If the first line is a header with a
    column such as ``gene`` or ``symbol``, as in ``panel.csv``, the genes are those of this column.
    ``@FILE`` always names a file.

    Raises
    ------
    UserError
        The file cannot be read, or no gene is named.
    """
    if text is None:
        return []
    genes = _named_genes(option, text)
    if not genes:
        raise UserError(
            f"{option} {text!r} names no gene. Name genes, or leave {option} out; a variable of "
            "the shell may be empty."
        )
    return genes


def _named_genes(option: str, text: str) -> list[str]:
    path = Path(text.removeprefix("@"))
    if text.startswith("@") or _is_file(path) or _looks_like_a_file(text):
        # A tab at the beginning separates an index without a header from the first column.
        lines = (_without_comment(line).strip(" ") for line in _read(option, path).splitlines())
        named = [line for line in lines if line.strip()]
        return _gene_column(option, path, named) if named else []
    return split_names(text)


def read_table(
    option: str, path: Path, column: str, convert: Callable[[str], Any]
) -> dict[str, Any]:
    """Return one value per gene from a CSV file with the columns ``gene`` and ``column``.

    Commas, semicolons or tabs separate the columns. Other columns, and lines that begin with #,
    are skipped.

    Raises
    ------
    UserError
        The file cannot be read, lacks a column or holds invalid values; the error lists all.
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
        raise UserError(f"{option} {path}: {join_problems(listed)}")
    return found


def _gene_column(option: str, path: Path, lines: list[str]) -> list[str]:
    """Return the column of the genes if the first line is a header, else the lines."""
    separator = max(",;\t", key=lines[0].count)
    try:
        header, *rows = csv.reader(lines, delimiter=separator)
    except csv.Error as error:
        raise UserError(f"{option} {path}: cannot be read as a list: {error}.") from error
    titles = ["_".join(title.lower().replace(".", " ").split()) for title in header]
    known = [title for title in _GENE_HEADERS if title in titles]
    if known:
        column = titles.index(known[0])
        named = (row[column].strip() for row in rows if column < len(row))
        return [name for name in named if name]
    return [line.strip().strip('"') for line in lines]


def to_group(text: str) -> str:
    """Return the name of a group; an empty one is a ``ValueError``."""
    if not text:
        raise ValueError("the group is empty")
    return text


def to_weight(text: str) -> float:
    """Return the weight of a gene; anything but a valid number is a ``ValueError``."""
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
    """Return the part of a line before a # that begins it or follows a space."""
    head, *_ = f" {line}".replace("\t#", " #").split(" #", 1)
    return head
