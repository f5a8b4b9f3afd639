"""Finished replicates that neither the tracking store nor its local folder can take."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from mmlab.comparison.result_table import ResultFile, write_rows
from mmlab.system.words import count
from mmlab.tracking import Outbox, StudyRun


def rescue_replicates(
    study: StudyRun[Any], outbox: Outbox, rows: ResultFile, console: Console
) -> bool:
    """Write the finished replicates elsewhere if neither store nor outbox could take all of them.

    The user's own file is tried first, then the working directory and the folder for temporary
    files. A message says where they are.

    Returns
    -------
    Whether that was necessary.
    """
    n_trials = outbox.unsent.flush()
    if not n_trials:
        return False
    name = f"{study.name}.parquet"
    given = [] if rows.path is None else [rows.path]
    for path in (*given, Path.cwd() / name, Path(tempfile.gettempdir()) / name):
        with suppress(OSError):
            write_rows(rows.by_digest.values(), path)
            place = f"are in {path}: run the same command with --rows {path}"
            break
    else:
        place = "could not be written elsewhere: the same command computes them again"
    console.print(
        f"{describe_lost(study, outbox, n_trials)}. All finished replicates {place}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return True


def describe_lost(study: StudyRun[Any], outbox: Outbox, n_trials: int) -> str:
    """Return the beginning of a sentence on ended trials that are in memory alone."""
    return (
        f"{count(n_trials, 'finished trial')} could not be sent to {study.store.uri}, nor be "
        f"written to {outbox.unsent.place} ({outbox.unsent.file_error})"
    )
