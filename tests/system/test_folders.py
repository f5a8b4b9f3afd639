"""Folders that are replaced as a whole, whatever kills the process that replaces them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from mmlab.system import folders
from mmlab.system.files import remove_leftovers, temporary_path
from mmlab.system.folders import replace_folder, restore_folder

#: What a process does to the disk, and the look-up of the system call that exchanges folders.
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "open", "ctypes.dlsym"}


def write(folder: Path, text: str) -> None:
    with replace_folder(folder) as new:
        (new / "tables").mkdir()
        (new / "tables" / "table.csv").write_text(text)
        (new / "page.html").write_text(text)


def read(folder: Path) -> str:
    """Return the text of a complete folder."""
    page, table = (folder / "page.html").read_text(), (folder / "tables/table.csv").read_text()
    assert page == table
    assert len(list(folder.iterdir())) == 2
    return page


def killed_before_change(number: int, folder: Path) -> bool:
    """Replace a folder in a process that is killed before its n-th change; False if it ended."""
    child = os.fork()
    if child == 0:
        n_changes = 0

        def kill(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal n_changes
            if event in CHANGES and not (event == "open" and "w" not in (arguments[1] or "")):
                n_changes += 1
                if n_changes == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(kill)
        write(folder, "new")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("existing", ["a report", "an empty folder", "nothing"])
def test_a_kill_before_any_change_leaves_a_complete_folder(
    existing: str, exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    found, number = list[str](), 0
    while True:
        number += 1
        parent = tmp_path / str(number)
        parent.mkdir()
        folder = parent / "report"
        if existing != "nothing":
            folder.mkdir()
        if existing == "a report":
            write(folder, "old")
        killed = killed_before_change(number, folder)
        if not exchange:
            restore_folder(folder)
        if existing == "a report" or (folder / "page.html").exists():
            found.append(read(folder))
        if not killed:
            break
        write(folder, "next")
        assert read(folder) == "next"
        assert [path.name for path in parent.iterdir()] == ["report"]
    assert number > 5
    assert found[-1] == "new"
    assert found == sorted(found, reverse=True)  # the old one, until the new one replaces it


def test_without_an_exchange_an_interrupt_between_the_two_steps_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rename = tmp_path / "report", Path.rename
    write(folder, "old")
    monkeypatch.setattr(folders, "_exchange", lambda *_: False)

    def interrupt(path: Path, target: Path) -> Path:
        if target == folder and not folder.exists() and path == temporary_path(folder):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", interrupt)
        write(folder, "new")
    assert read(folder) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_only_leftovers_of_dead_processes_of_this_machine_are_removed(tmp_path: Path) -> None:
    ours = temporary_path(tmp_path / "report")
    prefix = ours.name.rpartition(".")[0]
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead = f"{prefix}.{child}"
    others = [
        f"{prefix}.{os.getppid()}",  # alive
        f".report.new.00000000.{child}",  # of another machine
        f".report2.new.{prefix.rpartition('.')[2]}.{child}",  # of another report
        f"{dead}.copy",
        f"report.{child}",
    ]
    for name in [dead, *others]:
        (tmp_path / name / "figures").mkdir(parents=True)
    remove_leftovers(tmp_path / "report")
    assert {path.name for path in tmp_path.iterdir()} == set(others)


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk" / "report", "old")
    (tmp_path / "report").symlink_to(tmp_path / "disk" / "report")
    write(tmp_path / "report", "new")
    assert (tmp_path / "report").is_symlink()
    assert read(tmp_path / "disk" / "report") == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "report"}
