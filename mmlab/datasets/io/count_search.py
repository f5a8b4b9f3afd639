"""Search ``X``, ``raw`` and the layers for raw counts, and check their values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from mmlab.datasets.io.cell_source import CellSource, CountLocation
from mmlab.datasets.io.count_recovery import normalization_hint
from mmlab.datasets.io.hdf5 import InvalidFileError, format_bytes
from mmlab.datasets.io.matrix import InvalidMatrixError, Matrix
from mmlab.datasets.io.open_matrix import open_matrix
from mmlab.datasets.io.value_scan import LARGEST_COUNT, Occurrences, ValueScan
from mmlab.system.memory import available_memory

#: Largest number of names in a message, and largest number of characters of a quoted name.
_MAX_NAMES, _MAX_LENGTH = 3, 60
#: Layers of RNA velocity: each contains the counts of a part of the transcripts.
_PARTIAL_LAYERS = ("spliced", "unspliced", "ambiguous")
#: How counts that are not integers are used.
_ROUND = "--round-counts rounds them (in Python: round_counts=True)"


@dataclass(frozen=True)
class InspectedLocation:
    """A location, its matrix and the problems of its values.

    Attributes
    ----------
    location
        The inspected location.
    matrix, scan
        None if the location contains no matrix of numbers.
    problems
        Reasons why the values are not counts, one sentence each; empty if they are.
    """

    location: CountLocation
    matrix: Matrix | None
    scan: ValueScan | None
    problems: list[str]


@dataclass(frozen=True)
class CountSearchResult:
    """Result of a search for counts.

    Attributes
    ----------
    found
        The location of the counts; None if there is none.
    rejected
        Locations that were inspected before it and contain no counts.
    problems
        Reasons why no counts were found, one sentence each; empty if counts were found.
    """

    found: InspectedLocation | None
    rejected: list[InspectedLocation]
    problems: list[str]


def find_counts(
    source: CellSource, layer: str | None, *, in_memory: bool, round_counts: bool = False
) -> CountSearchResult:
    """Return the location of the counts.

    If ``layer`` is None, the default locations are searched: layers with the usual names, then
    ``X``, then ``raw``. The first one with only non-negative integers is taken.

    Parameters
    ----------
    in_memory
        Reject counts that do not fit into free memory.
    round_counts
        Accept fractional counts, too, and round them to integers.
    """
    options = {"in_memory": in_memory, "round_counts": round_counts}
    if layer is None:
        locations = source.default_locations()
    elif (requested := source.find_location(layer)) is not None:
        locations = [requested]
    else:
        names = source.location_names()
        near = difflib.get_close_matches(layer, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        problem = f"layer {layer!r} does not exist (existing: {', '.join(names)}){hint}"
        return CountSearchResult(None, [], [problem])
    rejected: list[InspectedLocation] = []
    for location in locations:
        # The first block is enough to reject most locations without counts.
        inspected = inspect_location(location, source, n_blocks=1, **options)
        if not inspected.problems:
            inspected = inspect_location(location, source, **options)
        if not inspected.problems:
            return CountSearchResult(inspected, rejected, [])
        rejected.append(inspected)
    complete = [inspect_location(location, source, **options) for location in locations]
    hint = _suggest_remedy(complete, source, search_layers=layer is None)
    if len(complete) == 1:
        *others, last = complete[0].problems
        return CountSearchResult(None, [], [*others, last + hint])
    listed = ", ".join(f"{each.location.title} ({_summarize(each)})" for each in complete)
    return CountSearchResult(
        None, [], [f"raw counts are needed, but no location has them: {listed}{hint}"]
    )


def inspect_location(
    location: CountLocation,
    source: CellSource,
    *,
    in_memory: bool = False,
    round_counts: bool = False,
    n_blocks: int | None = None,
) -> InspectedLocation:
    """Open the matrix of a location and return it with its problems.

    Parameters
    ----------
    location, source
        The location, and the cells that it belongs to.
    in_memory, round_counts
        As in :func:`find_counts`.
    n_blocks
        As in :class:`mmlab.datasets.io.value_scan.ValueScan`.
    """
    title = location.title
    if location.element is None:
        empty = f"{title} is empty; raw counts are needed"
        return InspectedLocation(location, None, None, [empty])
    try:
        matrix = open_matrix(location.element)
        if problem := _matrix_problem(matrix, location, source, in_memory):
            return InspectedLocation(location, None, None, [f"{title} {problem}"])
        scan = ValueScan(matrix, n_blocks)
        if round_counts and scan.fraction_kind == "fractional counts":
            matrix = replace(matrix, rounded=True)
            scan = ValueScan(matrix, n_blocks)
        problems = _value_problems(scan, location, source)
    except InvalidMatrixError as error:
        return InspectedLocation(location, None, None, [f"{title} {error}"])
    except InvalidFileError as error:
        return InspectedLocation(location, None, None, error.problems)
    return InspectedLocation(location, matrix, scan, problems)


def quote_names(names: Iterable[Any]) -> str:
    """Return the first few names for a message, quoted and shortened."""
    texts = [repr(str(name)) for name in names]
    cut = [text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 3]}..." for text in texts]
    return ", ".join(cut[:_MAX_NAMES]) + (", ..." if len(cut) > _MAX_NAMES else "")


def _matrix_problem(
    matrix: Matrix, location: CountLocation, source: CellSource, in_memory: bool
) -> str | None:
    n_cells, n_genes = len(source.cell_names), len(location.read_gene_names())
    if matrix.shape != (n_cells, n_genes):
        return (
            f"has the shape {matrix.shape}, but there are {n_cells} cell names and {n_genes} "
            "gene names"
        )
    needed, free = matrix.loaded_bytes, available_memory()
    if in_memory and needed > free:
        return (
            f"needs {format_bytes(needed)} of memory, but {format_bytes(free)} are free: "
            f"{matrix.shape[0]} cells x {matrix.shape[1]} genes"
            + (
                "; stored as CSR it would need less"
                if matrix.kind != "csr"
                else "; `mmlab datasets add` converts the file to a dataset that stays on disk"
            )
        )
    return None


def _value_problems(scan: ValueScan, location: CountLocation, source: CellSource) -> list[str]:
    """Return one sentence per kind of values that are not counts, with the first such value."""

    def first(found: Occurrences) -> str:
        cell, gene = found.first
        cell_name = quote_names([source.cell_names[cell]])
        gene_name = quote_names([location.read_gene_names()[gene]])
        return f"first in cell {cell_name}, gene {gene_name}"

    title = location.title
    problems = []
    if scan.nan.count:
        problems.append(
            f"{title} has {scan.nan.count} NaN values ({first(scan.nan)}); raw counts are needed"
        )
    if scan.infinite.count:
        problems.append(
            f"{title} has {scan.infinite.count} infinite values ({first(scan.infinite)}); raw "
            "counts are needed"
        )
    if scan.negative.count:
        looks = "like an integer overflow" if scan.matrix.dtype.kind == "i" else "scaled"
        problems.append(
            f"{title} has {scan.negative.count} negative values (smallest {scan.smallest:.3g}, "
            f"{first(scan.negative)}): it looks {looks}; raw counts are needed"
        )
    elif scan.fractions.count:
        can_be_rounded = scan.fraction_kind == "fractional counts"
        problems.append(
            f"{title} has {scan.fractions.count} values that are not integers: it "
            f"{scan.describe_fractions()} (maximum {scan.largest:.1f}); "
            + (_ROUND if can_be_rounded else "raw counts are needed")
        )
    if scan.too_large.count and not scan.fractions.count:
        problems.append(
            f"{title} has {scan.too_large.count} values above {LARGEST_COUNT} (largest "
            f"{scan.largest:.0f}, {first(scan.too_large)}): no gene has so many counts in a cell, "
            "and float32 cannot represent them exactly; it looks like an integer overflow"
        )
    return problems


def _summarize(inspected: InspectedLocation) -> str:
    """Describe in a few words what a location contains instead of counts."""
    if inspected.scan is None:
        return inspected.problems[0].removeprefix(f"{inspected.location.title} ")
    return inspected.scan.describe()


def _suggest_remedy(
    inspected: list[InspectedLocation], source: CellSource, *, search_layers: bool
) -> str:
    """Return a hint: another layer that has counts, or how to use or replace the values."""
    names = {each.location.title for each in inspected}
    others = {name: at for name, at in source.layers.items() if at.title not in names}
    good = [
        name
        for name, at in others.items()
        if search_layers and not inspect_location(at, source, n_blocks=1).problems
    ]
    if complete := [name for name in good if name.lower() not in _PARTIAL_LAYERS]:
        return f"; layer {quote_names(complete)} looks like counts: pass --layer {complete[0]}"
    hint = f"; layer {quote_names(good)} counts only a part of the transcripts" if good else ""
    if search_layers and others and not good:
        hint = "; the other layers do not look like counts, either"
    scans = [(each.location.title, each.scan) for each in inspected if each.scan is not None]
    kinds = {scan.fraction_kind for _, scan in scans} - {None}
    if "fractional counts" in kinds:
        return hint + (f"; {_ROUND}" if len(inspected) > 1 else "")
    return hint + (normalization_hint(scans, source) if kinds else "")
