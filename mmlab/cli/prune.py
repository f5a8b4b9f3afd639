"""`mmlab prune`: delete old studies with their runs and artifacts."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.console import print_json, print_message, print_text, same_command, stderr
from mmlab.cli.shared_options import JsonOption, TrackingOption
from mmlab.cli.tracking_store import open_store
from mmlab.errors import UserError
from mmlab.system.words import count

if TYPE_CHECKING:
    from mmlab.tracking import OldStudy, TrackingStore

#: Seconds of the units of --older-than.
_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def prune(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="STUDY", help="Names of studies. Default: all old ones."),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Only what was last used this long ago: 90d, 12h or 4w. Without names of studies, "
            "runs of mmlab select are included.",
        ),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete; without it, only show what would be deleted.")
    ] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete old studies with their runs and artifacts.

    Studies that are running, that were promoted or that promotions compare with, and those of
    registered models are kept. Nothing is deleted without --delete.
    """
    if not studies and older_than is None:
        raise UserError("nothing is selected: pass names of studies, or --older-than 90d.")
    age = 0.0 if older_than is None else _seconds(older_than)
    store = open_store(tracking_uri, write=delete)

    from mmlab.tracking import artifact_bytes, find_old_studies

    found = find_old_studies(store, studies or [], age) if store.exists else []
    kept = [study for study in found if study.reason]
    if studies and kept:
        named = "; ".join(f"{study.name}: {study.reason}" for study in kept)
        raise UserError(f"not every study may be deleted, nothing was. {named}.")
    old = [study for study in found if not study.reason]
    with stderr().status("measuring artifacts"):
        sizes = [artifact_bytes(store, study) for study in old]
    if delete:
        _delete(store, old)
    if as_json:
        print_json(_json(store, old, sizes, kept, delete))
        return
    for study, size in zip(old, sizes, strict=True):
        print_text(_line(study, size))
    for study in kept:
        print_text(f"{study.title}: kept, {study.reason}")
    print_message(_summary(store, old, sum(sizes), delete))


def _seconds(age: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([hdw])", age)
    if match is None:
        raise UserError(
            f"--older-than {age!r} is not an age: give hours, days or weeks, such as 12h, 90d or "
            "4w."
        )
    return float(match[1]) * _UNITS[match[2]]


def _delete(store: TrackingStore, studies: Sequence[OldStudy]) -> None:
    from mmlab.tracking import delete_study

    with stderr().status("deleting") as status:
        for i, study in enumerate(studies, 1):
            status.update(f"deleting {i} of {len(studies)}: {study.name}")
            delete_study(store, study)


def _line(study: OldStudy, size: int) -> str:
    day = time.strftime("%Y-%m-%d", time.localtime(study.used_at))
    return f"{day}  {study.title}: {count(len(study.runs), 'run')}, {size / 1e6:.1f} MB"


def _summary(store: TrackingStore, old: Sequence[OldStudy], size: int, deleted: bool) -> str:
    if not old:
        return "There is nothing to delete."
    n_runs = sum(len(study.runs) for study in old)
    n_loose = sum(not study.has_study for study in old)
    studies = count(len(old) - n_loose, "study", "studies")
    text = f"{studies} and {count(n_loose, 'run')} of mmlab select, {count(n_runs, 'run')} in all, "
    text += f"{size / 1e6:.1f} MB of artifacts"
    if not deleted:
        return f"Would be deleted: {text}. Delete with: {same_command()} --delete"
    if store.uri.startswith("http"):
        text += (
            ". Their rows stay in the server's database, marked as deleted, until tracking/gc.sh"
        )
    return f"Deleted: {text}."


def _json(
    store: TrackingStore,
    old: Sequence[OldStudy],
    sizes: Sequence[int],
    kept: Sequence[OldStudy],
    deleted: bool,
) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {
        "tracking_uri": store.uri,
        "deleted": deleted,
        "studies": [
            {
                "study": study.name,
                "has_study": study.has_study,
                "used_at": study.used_at,
                "runs": len(study.runs),
                "bytes": size,
            }
            for study, size in zip(old, sizes, strict=True)
        ],
        "kept": {study.name: study.reason for study in kept},
    }
