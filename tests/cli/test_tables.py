"""Tables of commands: whole in files and pipes, uncut on narrow terminals."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call
from matplotlib.figure import Figure

from mmlab.cli import comparison
from mmlab.cli.comparison_output import ComparisonOutput
from mmlab.cli.text_console import TextConsole
from mmlab.comparison.shown_table import ShownTable
from mmlab.datasets import DATASETS
from mmlab.selectors import SELECTORS

HEADER = ["method", "n", *[f"noise {level} %" for level in range(12)], "area under curve"]
ROW = ["a label of a method with many words", "10", *["**0.931**"] * 12, "0.931 (0.912 to 0.950)"]


def output(umaps: dict[str, Figure] | None = None) -> ComparisonOutput:
    return ComparisonOutput(
        [ShownTable("a table", HEADER, [ROW], "Higher is better.")],
        "text",
        {},
        lambda folder: None,
        "note " * 50,
        "t.md",
        umaps or {},
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_tables_in_a_file_are_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    comparison.print_tables(output())
    title, header, row, legend, _, note = capsys.readouterr().out.splitlines()
    assert title == "a table"
    assert cells(header) == HEADER
    assert cells(row) == ROW
    assert legend == "Higher is better."
    assert note == "note " * 50


def test_tables_on_a_narrow_terminal_are_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    console = TextConsole(file=file, force_terminal=True, color_system="standard", width=60)
    monkeypatch.setattr(comparison, "stdout", lambda: console)
    comparison.print_tables(output())
    text = file.getvalue()
    assert "\u2026" not in text
    assert "**" not in text
    # Bold numbers, between the escape codes of the terminal.
    assert len(re.findall(r"\x1b\[1m *0\.931\x1b\[0m", text)) == 12


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        ("datasets", {name: dataset.title for name, dataset in DATASETS.items()}),
        ("methods", {name: selector.summary for name, selector in SELECTORS.items()}),
    ],
)
def test_lists_in_a_pipe_have_one_line_per_entry(command: str, rows: dict[str, str]) -> None:
    lines = [line.strip() for line in call(command, "list").stdout.splitlines()]
    for name, text in rows.items():
        assert [line.endswith(text) for line in lines if line.startswith(f"{name} ")] == [True]


def test_a_process_without_a_terminal_cuts_no_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmlab", "methods", "list"],
        env=os.environ | {"COLUMNS": "30", "TERM": "dumb"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for selector in SELECTORS.values():
        assert selector.summary in done.stdout


def test_umaps_are_written_to_the_folder_one_file_per_method(tmp_path: Path) -> None:
    output({"a b": Figure(), "a/b": Figure(), "smash": Figure()}).write_all(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"t.md", "umap_a_b.png", "umap_a_b_.png", "umap_smash.png"}
