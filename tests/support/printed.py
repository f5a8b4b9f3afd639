"""Numbers that Markdown files print, read back to be compared with recomputed ones."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"

NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
CELL = re.compile(
    rf"(?P<bold>\*\*)?(?P<mean>{NUMBER})(?: ± (?P<sd>{NUMBER}))?(?:\*\*)?(?: \((?P<n>\d+)\))?"
)


@dataclass(frozen=True)
class Table:
    """A table; a title is the headings above it, a row is the texts of its cells."""

    titles: tuple[str, str]
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Cell:
    """The parts of a cell such as ``**0.951 ± 0.007** (3)``; empty where not printed."""

    bold: bool
    mean: str
    sd: str
    n: str


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """Return the text of the README between the comments that begin and end a block."""
    found = re.search(f"<!-- begin {name} -->\n(.*?)<!-- end {name} -->", readme(), re.DOTALL)
    assert found, f"the README has no block {name!r}"
    return found[1]


def tables(text: str) -> list[Table]:
    """Return all tables of a text, each with the last headings of the levels 2 and 3 above it."""
    found: list[Table] = []
    titles, in_table = ("", ""), False
    for line in text.splitlines():
        if line.startswith("## "):
            titles = (line[3:], "")
        elif line.startswith("### "):
            titles = (titles[0], line[4:])
        elif line.startswith("|") and not in_table:
            found.append(Table(titles, split_row(line), []))
        elif line.startswith("|") and not line.startswith("|---"):
            found[-1].rows.append(split_row(line))
        in_table = line.startswith("|")
    return found


def table_with(text: str, column: str) -> Table:
    """Return the only table that has a column of this name."""
    (table,) = [table for table in tables(text) if column in table.columns]
    return table


def split_row(line: str) -> list[str]:
    return [part.strip() for part in line.strip().strip("|").split("|")]


def parse_cell(text: str) -> Cell:
    if not text:
        return Cell(False, "", "", "")
    found = CELL.fullmatch(text)
    assert found, f"not a number with a standard deviation: {text!r}"
    return Cell(bool(found["bold"]), found["mean"], found["sd"] or "", found["n"] or "")


def prose(sentence: str) -> list[str]:
    """Return the numbers that the README has at the places ``{}`` of a sentence."""
    number = rf"({NUMBER}|\b(?:{'|'.join(WORDS)})\b)"
    pattern = number.join(re.escape(part) for part in " ".join(sentence.split()).split("{}"))
    found = re.findall(pattern, " ".join(readme().split()), re.IGNORECASE)
    assert len(found) == 1, f"the README has {len(found)} times: {sentence!r}"
    return list(found[0]) if isinstance(found[0], tuple) else found


def to_number(printed: str) -> float:
    if printed.lower() in WORDS:
        return WORDS.index(printed.lower())
    return float(printed.replace(",", ""))


def agrees(printed: str, value: float | None) -> bool:
    """Whether a number is printed, with its decimals, as the value rounded; "" means no value."""
    if value is None or math.isnan(value):
        return printed == ""
    if not re.fullmatch(rf"{NUMBER}|{'|'.join(WORDS)}", printed, re.IGNORECASE):
        return False
    decimals = len(printed.partition(".")[2])
    has_sign = printed[0] in "+-" and abs(value) > 1e-12
    if has_sign and (printed[0] == "-") != (value < 0):
        return False
    # A value half way between two decimals may be rounded up or down.
    return bool(abs(to_number(printed) - value) <= 0.5 * 10.0**-decimals + 1e-9)


def agrees_in_digits(stored: float, value: float, n_digits: int) -> bool:
    """Whether a number is stored as the value rounded to significant digits; NaN as nothing."""
    if math.isnan(value):
        return math.isnan(stored)
    if not math.isfinite(value) or abs(value) < 1e-15:
        return abs(stored - value) < 1e-15
    last = 10.0 ** (math.floor(math.log10(abs(value))) - n_digits + 1)
    return bool(abs(stored - value) <= 0.500001 * last)


class Comparison:
    """Compares what a place of the documents prints; lists all differences at its end."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.n_compared = 0
        self.differences: list[str] = []

    def number(self, place: str, printed: str, value: float | None) -> None:
        self.check(place, printed, value, agrees(printed, value))

    def equal(self, place: str, printed: object, value: object) -> None:
        self.check(place, printed, value, printed == value)

    def check(self, place: str, printed: object, value: object, is_equal: bool) -> None:
        self.n_compared += 1
        if not is_equal:
            self.differences.append(
                f"{self.where}, {place}: printed {printed!r}, recomputed {value!r}"
            )

    def __enter__(self) -> Comparison:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            assert self.n_compared, f"{self.where}: nothing was compared"
            assert not self.differences, "\n".join(["", *self.differences])
