"""Progress of downloads and conversions: a bar on a terminal, one line elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import scipy.sparse as sp
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


def cell_progress(
    blocks: Iterator[sp.csr_matrix], n_cells: int, label: str
) -> Iterator[sp.csr_matrix]:
    """Yield the same blocks of cells and show the progress on stderr."""
    console = Console(stderr=True)
    console.print(f"{label}: {n_cells:,} cells", highlight=False)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("", total=n_cells)
        for block in blocks:
            yield block
            bar.advance(task, block.shape[0])


@contextmanager
def download_progress(url: str, present: int, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of a download on stderr.

    Yields a function that takes the number of new bytes.

    Parameters
    ----------
    url
        URL of the file.
    present, total
        Bytes that were downloaded before, and bytes of the whole file.
    """
    size = f"{total / 1e6:,.1f} MB" if total > present else "size unknown"
    console = Console(stderr=True)
    resumed = f", {present / 1e6:,.1f} MB of them already downloaded" if present else ""
    console.print(f"downloading {url} ({size}{resumed})", highlight=False, soft_wrap=True)
    columns = TextColumn(""), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("", total=total or None, completed=present)
        yield lambda n: bar.advance(task, n)
