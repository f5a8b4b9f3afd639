"""A report on disk: one page that needs nothing else, its figures, its tables, its manifest."""

from __future__ import annotations

import base64
import io
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib import rc_context
from matplotlib.figure import Figure

import mmlab
from mmlab.errors import UserError
from mmlab.report.manifest import MANIFEST, Manifest, hashes
from mmlab.report.page import Report
from mmlab.spec.protocol import PROTOCOL_NUMBER

#: Of pictures in the page: rasterised points, and pixels where a vector file would be too big.
_DPI = 150
#: Bytes of an SVG above which the page shows a PNG instead.
_MOST_SVG = 700_000


def write_report(report: Report, about: dict[str, Any], folder: Path) -> None:
    """Write a report into a folder, which it makes; an older report there is replaced whole.

    Parameters
    ----------
    about
        The fields of :class:`mmlab.report.manifest.Manifest` but for the files.

    Raises
    ------
    UserError
        The folder holds something that is not a report.
    """
    with _whole_folder(folder) as new:
        images = {}
        (new / "figures").mkdir()
        (new / "tables").mkdir()
        for section in report.sections:
            for picture in section.pictures:
                images[picture.name] = _write_figure(picture.figure, new / "figures" / picture.name)
        for name, table in report.tables.items():
            _write_table(table, new / "tables" / name)
        page = (
            _environment()
            .get_template("template.html.j2")
            .render(report=report, images=images, version=mmlab.__version__)
        )
        (new / "report.html").write_text(page, encoding="utf-8")
        manifest = Manifest(**about, protocol_number=PROTOCOL_NUMBER, files=hashes(new))
        (new / MANIFEST).write_text(manifest.to_text(), encoding="utf-8")


def check_folder(folder: Path) -> None:
    """Raise ``UserError`` where a report must not be written."""
    if not folder.absolute().parent.is_dir():
        raise UserError(f"--output {folder}: the folder {folder.parent} does not exist.")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; name a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UserError(
            f"--output {folder} holds files that are not a report: name a new or an empty folder."
        )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("mmlab.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write_figure(figure: Figure, path: Path) -> str:
    """Write a figure as SVG and PDF; gives it as the address of an image inside the page."""
    # The same figure is the same file: no dates, no random names. Text stays text: the browser has
    # letters that matplotlib's own font lacks.
    style = rc_context({"svg.hashsalt": "mmlab", "svg.fonttype": "none"})
    with style, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        vector = path.with_name(path.name + ".svg")
        figure.savefig(vector, metadata={"Date": None}, dpi=_DPI, bbox_inches="tight")
        figure.savefig(
            path.with_name(path.name + ".pdf"),
            metadata={"CreationDate": None},
            dpi=_DPI,
            bbox_inches="tight",
        )
        content, kind = vector.read_bytes(), "svg+xml"
        if len(content) > _MOST_SVG:
            pixels = io.BytesIO()
            figure.savefig(pixels, format="png", dpi=_DPI, bbox_inches="tight")
            content, kind = pixels.getvalue(), "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, as CSV and, without its lists, as LaTeX."""
    table.to_parquet(path.with_suffix(".parquet"), index=False)
    table.to_csv(path.with_suffix(".csv"), index=False)
    nested = [name for name in table if table[name].map(lambda v: isinstance(v, list)).any()]
    text = table.drop(columns=nested).to_latex(
        index=False, escape=True, na_rep="", float_format="%.4f"
    )
    path.with_suffix(".tex").write_text(text, encoding="utf-8")


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place when the block ends well."""
    check_folder(folder)
    folder = folder.absolute()
    new, old = (folder.with_name(f".{folder.name}.{kind}.{os.getpid()}") for kind in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
