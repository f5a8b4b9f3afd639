"""Read members of a downloaded zip archive without unpacking it to disk."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from mmlab.errors import UserError

#: Largest compression ratio of a member. A table of counts is compressed about tenfold; a
#: thousandfold ratio is a zip bomb.
_MAX_RATIO = 200
_MAX_MEMBER_BYTES = 16 * 2**30


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive and check its members.

    Raises
    ------
    UserError
        The archive cannot be read, a member would be written outside the folder that the archive
        is unpacked to, or a member is larger than any table of counts.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as a zip archive: {error}. Delete it and download it again."
        ) from error
    with archive:
        for member in archive.infolist():
            name = PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
                raise UserError(
                    f"{path}: the member {member.filename!r} points outside of the archive. "
                    "Download the archive again from its original source."
                )
            packed = max(member.compress_size, 1)
            if member.file_size > _MAX_MEMBER_BYTES or member.file_size > _MAX_RATIO * packed:
                raise UserError(
                    f"{path}: the member {member.filename!r} unpacks from {packed:,} to "
                    f"{member.file_size:,} bytes, more than any table of counts does. Download "
                    "the archive again from its original source."
                )
        yield archive


@contextmanager
def open_member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    """Open the member with the file name ``name``, in any folder of the archive.

    Raises
    ------
    UserError
        There is no such member, or its checksum is wrong.
    """
    found = [info for info in archive.infolist() if PurePosixPath(info.filename).name == name]
    if not found:
        present = ", ".join(info.filename for info in archive.infolist()[:10])
        raise UserError(f"{archive.filename} has no file {name}; it has: {present}.")
    try:
        with archive.open(found[0]) as stream:
            yield stream
    except zipfile.BadZipFile as error:
        raise UserError(
            f"{archive.filename}: {name} is damaged: {error}. Delete the archive and download "
            "it again."
        ) from error
