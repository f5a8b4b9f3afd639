"""The results of a comparison as tables for the terminal, as Markdown, as JSON and as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmlab.comparison.shown_table import ShownTable
    from mmlab.schedule.comparison_plan import ComparisonResult

#: How a number of a table is marked as bold: as in Markdown, which is also readable in a text file.
BOLD = "**{}**"


@dataclass(frozen=True)
class ComparisonOutput:
    """The results of a comparison for the terminal, for JSON and for a folder.

    Attributes
    ----------
    tables, note
        For the terminal: tables, and the text below them.
    text, text_file
        Markdown, and the name of its file.
    json
        Part of the JSON document.
    write
        Writes tables and figures to a folder.
    umaps
        UMAPs of the panels by method.
    """

    tables: list[ShownTable]
    text: str
    json: dict[str, Any]
    write: Callable[[Path], None]
    note: str
    text_file: str = ""
    umaps: Mapping[str, Figure] = field(default_factory=dict)

    def write_all(self, folder: Path) -> None:
        """Write tables, figures, the Markdown and ``umap_<method>.png`` to a folder."""
        from mmlab.figures.style import save_figure
        from mmlab.spec.names import name_from

        self.write(folder)
        names: set[str] = set()
        for title, figure in self.umaps.items():
            name = name_from(title)
            while name in names:
                name += "_"
            names.add(name)
            save_figure(figure, folder / f"umap_{name}.png")
        (folder / self.text_file).write_text(self.text, encoding="utf-8")


def curves_output(result: ComparisonResult) -> ComparisonOutput:
    """Return the curves over the settings of a comparison."""
    from mmlab.comparison.curves import curve_tables, robustness_note, write_curves
    from mmlab.comparison.shown_table import markdown
    from mmlab.comparison.significance import add_significance, bold_note, reference_tests
    from mmlab.comparison.tables import records
    from mmlab.selectors import control_methods

    spec, robustness = result.study.spec, result.robustness
    tests = reference_tests(result.replicates, control_methods(), spec.protocol)
    summary, bold = add_significance(result.summary, tests), bold_note(tests)
    note = f"{bold} {robustness_note(spec)}" if len(robustness) else bold
    tables = curve_tables(spec, summary, robustness, BOLD.format)
    return ComparisonOutput(
        [table._replace(title=f"{spec.data.title}: {table.title}") for table in tables],
        f"## {spec.data.title}, {spec.study}\n\n{note}\n\n{markdown(tables)}",
        {
            "table": records(summary),
            "tests": records(tests),
            "robustness": records(robustness),
        },
        lambda folder: write_curves(spec, result.replicates, summary, robustness, tests, folder),
        note,
    )


def tables_output(result: ComparisonResult) -> ComparisonOutput:
    """Return the tables of a comparison, one set per panel size."""
    from mmlab.comparison.shown_table import markdown
    from mmlab.comparison.significance import bold_note
    from mmlab.comparison.tables import compare_methods, records, view_tables, write_comparison
    from mmlab.selectors import control_methods

    spec, controls = result.study.spec, control_methods()
    comparison = compare_methods(result.replicates, result.summary, controls, spec.protocol)

    def write(folder: Path) -> None:
        write_comparison(comparison, result.replicates, folder)
        if len(spec.settings) > 1:
            curves_output(result).write(folder)

    note = bold_note(comparison.tests)
    tables, text = list["ShownTable"](), f"{note}\n\n"
    for k in spec.n_markers:
        heading = f"{spec.data.title}, {k} markers"
        if spec.protocol == "locked":
            heading += ", held-out test set"
        parts = view_tables(comparison, k, BOLD.format, spec.protocol)
        tables += [table._replace(title=f"{heading}: {table.title}") for table in parts]
        text += f"## {heading}\n\n{markdown(parts)}\n"
    return ComparisonOutput(
        tables,
        text,
        {"table": records(comparison.table), "tests": records(comparison.tests)},
        write,
        note,
    )
