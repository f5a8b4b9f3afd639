"""Report folder: self-contained HTML page, figures, tables and manifest."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

import mmlab
from mmlab.errors import UserError
from mmlab.figures.style import save_figure
from mmlab.report.manifest import MANIFEST, Manifest, file_hashes
from mmlab.report.page import Report
from mmlab.spec.protocol import PROTOCOL_NUMBER
from mmlab.system.folders import replace_folder

#: Resolution of rasterised elements in vector figures, and of PNG figures.
_DPI = 150
#: Size in bytes above which the page embeds a figure as PNG instead of SVG.
_MAX_SVG_BYTES = 700_000


def write_report(report: Report, manifest_fields: dict[str, Any], folder: Path) -> None:
    """Write a report into a folder: ``report.html``, ``figures``, ``tables`` and the manifest.

    The folder is created. A report that it already contains is replaced as a whole, or left
    unchanged if writing fails or the process is killed.

    Parameters
    ----------
    manifest_fields
        Fields of :class:`mmlab.report.manifest.Manifest`, without files and protocol_number.

    Raises
    ------
    UserError
        The folder cannot be used, see :func:`check_folder`.
    """
    check_folder(folder)
    with replace_folder(folder) as new:
        images = {}
        (new / "figures").mkdir()
        (new / "tables").mkdir()
        for section in report.sections:
            for figure in section.figures:
                images[figure.name] = _write_figure(figure.figure, new / "figures" / figure.name)
        for name, table in report.tables.items():
            _write_table(table, new / "tables" / name)
        page = (
            _environment()
            .get_template("template.html.j2")
            .render(report=report, images=images, version=mmlab.__version__)
        )
        (new / "report.html").write_text(page, encoding="utf-8")
        manifest = Manifest(
            **manifest_fields, protocol_number=PROTOCOL_NUMBER, files=file_hashes(new)
        )
        (new / MANIFEST).write_text(manifest.to_text(), encoding="utf-8")


def check_folder(folder: Path) -> None:
    """Check that a report can be written to a folder.

    Raises
    ------
    UserError
        The parent folder does not exist, the path is a file, or the folder contains files but no
        report.
    """
    if not folder.absolute().parent.is_dir():
        raise UserError(f"--output {folder}: the folder {folder.parent} does not exist. Create it.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file. Pass a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UserError(
            f"--output {folder} contains files that are not a report. Pass a new or empty folder."
        )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mmlab.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """Return text as HTML that browsers may break after underscores."""
    return escape(text).replace("_", Markup("_<wbr>"))


def _write_figure(figure: Figure, path: Path) -> str:
    """Write a figure as SVG and PDF, and return it as a data URI for the page."""
    # Without dates and random ids, equal figures give equal files. Text stays text, because
    # browsers have glyphs that matplotlib's default font lacks.
    style = rc_context({"svg.hashsalt": "mmlab", "svg.fonttype": "none"})
    with style:
        svg = path.with_name(path.name + ".svg")
        save_figure(figure, svg, metadata={"Date": None}, dpi=_DPI, bbox_inches="tight")
        save_figure(
            figure,
            path.with_name(path.name + ".pdf"),
            metadata={"CreationDate": None},
            dpi=_DPI,
            bbox_inches="tight",
        )
        content, kind = svg.read_bytes(), "svg+xml"
        if len(content) > _MAX_SVG_BYTES:
            png = io.BytesIO()
            save_figure(figure, png, format="png", dpi=_DPI, bbox_inches="tight")
            content, kind = png.getvalue(), "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, CSV and LaTeX; the LaTeX table leaves out columns of lists."""
    table.to_parquet(path.with_suffix(".parquet"), index=False)
    table.to_csv(path.with_suffix(".csv"), index=False)
    list_columns = [name for name in table if table[name].map(lambda v: isinstance(v, list)).any()]
    text = table.drop(columns=list_columns).to_latex(
        index=False, escape=True, na_rep="", float_format="%.4f"
    )
    path.with_suffix(".tex").write_text(text, encoding="utf-8")
