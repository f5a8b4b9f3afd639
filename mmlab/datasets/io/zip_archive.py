"""Members of a downloaded archive, read where they are: nothing is unpacked to disk."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from mmlab.errors import UserError

#: A table of counts is packed to a tenth or so; a thousandth is no table.
_LARGEST_RATIO = 200
_LARGEST_MEMBER = 16 * 2**30


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive, checked.

    Raises
    ------
    UserError
        It cannot be read, a member would lie outside of a folder that it is unpacked to, or a
        member unpacks to more than any table does.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a zip archive: {error}.") from error
    with archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
                raise UserError(
                    f"{path}: the member {member.filename!r} points outside of the archive."
                )
            packed = max(member.compress_size, 1)
            if member.file_size > _LARGEST_MEMBER or member.file_size > _LARGEST_RATIO * packed:
                raise UserError(
                    f"{path}: the member {member.filename!r} unpacks from {packed:,} to "
                    f"{member.file_size:,} bytes, more than any table of counts does."
                )
        yield archive


@contextmanager
def open_member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """A file of an archive by its name, in whatever folder of it.

    Raises
    ------
    UserError
        There is no such file, or its checksum is wrong.
    """
    found = [info for info in archive.infolist() if PurePosixPath(info.filename).name == name]
    if not found:
        inside = ", ".join(info.filename for info in archive.infolist()[:10])
        raise UserError(f"{archive.filename} has no file {name}; it has: {inside}.")
    try:
        with archive.open(found[0]) as stream:
            yield stream
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive.filename}: {name} is damaged: {error}.") from error
