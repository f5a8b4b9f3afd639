"""Where the counts are: ``X``, ``raw`` and the layers, and what is wrong with their values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmlab.datasets.io.cell_source import CellSource, CountLocation
from mmlab.datasets.io.hdf5 import RefusedFileError, format_bytes
from mmlab.datasets.io.matrix import BrokenMatrixError, Matrix
from mmlab.datasets.io.open_matrix import open_matrix
from mmlab.datasets.io.value_scan import LARGEST_COUNT, Occurrences, ValueScan
from mmlab.system.memory import free_memory

#: Names that a message gives, and the longest that it gives whole.
_NAMED, _LONGEST = 3, 60


@dataclass(frozen=True)
class InspectedLocation:
    """What a place holds.

    Attributes
    ----------
    place
        Where.
    matrix, scan
        None where it is no matrix of numbers.
    problems
        Why it cannot be taken for counts, a sentence each; empty if it can.
    """

    place: CountLocation
    matrix: Matrix | None
    scan: ValueScan | None
    problems: list[str]


@dataclass(frozen=True)
class CountSearchResult:
    """The place of the counts: ``taken``, after others were ``passed_over``; or the problems."""

    taken: InspectedLocation | None
    passed_over: list[InspectedLocation]
    problems: list[str]


def find_counts(source: CellSource, layer: str | None, *, in_memory: bool) -> CountSearchResult:
    """Look for counts where ``layer`` says; if it is None, in the usual places.

    These are layers of the usual names, then ``X``, then ``raw``: the first that holds nothing
    but non-negative integers is taken.

    Parameters
    ----------
    in_memory
        What the free memory does not hold cannot be taken.
    """
    if layer is None:
        places = source.usual()
    elif (named := source.named(layer)) is not None:
        places = [named]
    else:
        near = difflib.get_close_matches(layer, source.names(), n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        existing = ", ".join(source.names())
        return CountSearchResult(
            None, [], [f"layer {layer!r} does not exist{hint} (the existing ones are: {existing})"]
        )
    passed_over: list[InspectedLocation] = []
    for place in places:
        # A first block that holds no counts spares the look at the others.
        found = inspect_location(place, source, in_memory=in_memory, n_blocks=1)
        if not found.problems:
            found = inspect_location(place, source, in_memory=in_memory)
        if not found.problems:
            return CountSearchResult(found, passed_over, [])
        passed_over.append(found)
    whole = [inspect_location(place, source, in_memory=in_memory) for place in places]
    hint = _counts_elsewhere(source, places) if layer is None else ""
    if len(whole) == 1:
        *others, last = whole[0].problems
        return CountSearchResult(None, [], [*others, last + hint])
    listed = ", ".join(f"{each.place.title} ({_in_short(each)})" for each in whole)
    return CountSearchResult(
        None, [], [f"no place holds the raw counts that are needed: {listed}{hint}"]
    )


def inspect_location(
    place: CountLocation,
    source: CellSource,
    *,
    in_memory: bool = False,
    n_blocks: int | None = None,
) -> InspectedLocation:
    """What is wrong with a place; ``n_blocks`` is that of :class:`mmlab.datasets.io.value_scan.ValueScan`."""
    title = place.title
    if place.element is None:
        return InspectedLocation(
            place, None, None, [f"{title} is empty; raw counts are needed there"]
        )
    try:
        matrix = open_matrix(place.element)
        if problem := _matrix_problem(matrix, place, source, in_memory):
            return InspectedLocation(place, None, None, [f"{title} {problem}"])
        scan = ValueScan(matrix, n_blocks)
    except BrokenMatrixError as error:
        return InspectedLocation(place, None, None, [f"{title} {error}"])
    except RefusedFileError as error:
        return InspectedLocation(place, None, None, error.problems)
    if scan.is_counts:
        return InspectedLocation(place, matrix, scan, [])
    return InspectedLocation(place, matrix, scan, _value_problems(scan, place, source))


def quote_names(names: Iterable[Any]) -> str:
    """The first of some names, quoted and cut, for a message."""
    texts = [repr(str(name)) for name in names]
    cut = [text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..." for text in texts]
    return ", ".join(cut[:_NAMED]) + (", ..." if len(cut) > _NAMED else "")


def _matrix_problem(
    matrix: Matrix, place: CountLocation, source: CellSource, in_memory: bool
) -> str | None:
    expected = (len(source.cells), len(place.genes()))
    if matrix.shape != expected:
        return f"has the shape {matrix.shape}, but there are names for {expected} cells and genes"
    needed, free = matrix.loaded_bytes, free_memory()
    if in_memory and needed > free:
        return (
            f"needs {format_bytes(needed)} of memory, but {format_bytes(free)} are free: "
            f"{matrix.shape[0]} cells x {matrix.shape[1]} genes"
            + ("; stored as CSR it would need less" if matrix.kind != "csr" else "")
        )
    return None


def _value_problems(scan: ValueScan, place: CountLocation, source: CellSource) -> list[str]:
    """A sentence for each way in which values are no counts, with the first of them."""

    def first(found: Occurrences) -> str:
        cell, gene = found.first
        return f"first in cell {quote_names([source.cells[cell]])}, gene {quote_names([place.genes()[gene]])}"

    title = place.title
    problems = []
    if scan.nan.count:
        problems.append(
            f"{title} holds {scan.nan.count} NaN values ({first(scan.nan)}); raw counts are needed"
        )
    if scan.infinite.count:
        problems.append(
            f"{title} holds {scan.infinite.count} infinite values ({first(scan.infinite)})"
        )
    if scan.negative.count:
        looks = "an overflow of integers" if scan.matrix.dtype.kind == "i" else "scaled"
        problems.append(
            f"{title} holds {scan.negative.count} negative values (smallest {scan.smallest:.3g}, "
            f"{first(scan.negative)}): it looks {looks}; raw counts are needed"
        )
    elif scan.fractions.count:
        problems.append(
            f"{title} holds {scan.fractions.count} values that are not integers: it "
            f"{scan.looks_normalised()} (maximum {scan.largest:.1f}); raw counts are needed"
        )
    if scan.too_large.count and not scan.fractions.count:
        problems.append(
            f"{title} holds {scan.too_large.count} values above {LARGEST_COUNT} (largest "
            f"{scan.largest:.0f}, {first(scan.too_large)}): no cell has so many counts of a gene, "
            "and float32 would round them; it looks like an overflow of integers"
        )
    return problems


def _in_short(looked: InspectedLocation) -> str:
    """What a place holds instead of counts."""
    if looked.scan is None:
        return looked.problems[0].removeprefix(f"{looked.place.title} ")
    return looked.scan.looks()


def _counts_elsewhere(source: CellSource, places: list[CountLocation]) -> str:
    """Names the layers that hold counts, but are not of a usual name."""
    others = [(name, place) for name, place in source.layers.items() if place not in places]
    good = [
        name for name, place in others if not inspect_location(place, source, n_blocks=1).problems
    ]
    if not good:
        return ", name their layer with --layer" if others else ""
    return f"; {quote_names(good)} of the layers looks like counts: name it with --layer {good[0]}"
