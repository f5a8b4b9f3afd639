"""How far long work on cells is: a bar on a terminal, a line elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import scipy.sparse as sp
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


def cell_progress(
    blocks: Iterator[sp.csr_matrix], n_cells: int, what: str
) -> Iterator[sp.csr_matrix]:
    """The same blocks of cells; how many have gone by is shown on stderr."""
    console = Console(stderr=True)
    console.print(f"{what}: {n_cells:,} cells", highlight=False)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("", total=n_cells)
        for block in blocks:
            yield block
            bar.advance(task, block.shape[0])


@contextmanager
def download_progress(address: str, have: int, total: int) -> Iterator[Callable[[int], None]]:
    """Says on stderr what is downloaded; gives what takes the number of new bytes."""
    size = f"{total / 1e6:,.1f} MB" if total > have else "size unknown"
    console = Console(stderr=True)
    here = f", {have / 1e6:,.1f} MB of them here already" if have else ""
    console.print(f"downloading {address} ({size}{here})", highlight=False, soft_wrap=True)
    columns = TextColumn(""), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task("", total=total or None, completed=have)
        yield lambda n: bar.advance(task, n)
