"""Downloads that can be cut off: what has arrived is kept, and the rest is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from filelock import FileLock

from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE
from mmlab.datasets.cache.transfer_progress import download_progress
from mmlab.datasets.remote_files import RemoteFile
from mmlab.errors import UserError
from mmlab.system.files import atomic_write, file_hash

if TYPE_CHECKING:
    from requests import Response

#: Seconds to wait for a connection, and for the next bytes.
_TIMEOUT = (10, 60)
#: Bytes that are read at once, and lost when a connection breaks among them.
_AT_ONCE = 2**16
#: Times that a connection which breaks is made again, once bytes have come.
_ATTEMPTS = 5
#: Remembers the checksums of files that have none published, by name.
CHECKSUMS = "checksums.json"


def download(source: RemoteFile, folder: Path, mirror: str | None = None) -> Path:
    """The file of a source, downloaded to ``folder`` unless it is there.

    Another process that downloads the same waits for this one.

    Parameters
    ----------
    mirror
        Address to take it from instead of its own: there it has the name ``source.file``.

    Raises
    ------
    UserError
        It cannot be had, or it is not what it should be; nothing is left then but, of a
        connection that broke, the hidden part that has arrived.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / source.file
    addresses = source.addresses if mirror is None else (f"{mirror.rstrip('/')}/{source.file}",)
    with FileLock(folder / f".{source.file}.lock"):
        if path.is_file():
            return path
        failures = []
        for address in addresses:
            try:
                part = _fetch(address, folder / f".{source.file}.part")
            except (requests.RequestException, OSError) as error:
                failures.append(f"{address}: {_reason(error)}")
                continue
            verify_checksum(source, part, folder, f"what {address} sent")
            part.replace(path)
            return path
    raise UserError(f"{source.file} cannot be downloaded ({'; '.join(failures)}).")


def verify_checksum(source: RemoteFile, path: Path, folder: Path, what: str) -> str:
    """sha256 of a file, held against the published one or the one seen first.

    Raises
    ------
    UserError
        It is another; a hidden part of a download is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = file_hash(path)
    with FileLock(folder / f".{CHECKSUMS}.lock"):
        known = _checksums(folder)
        expected = source.sha256 or known.setdefault(source.file, found)
        if found == expected:
            with atomic_write(folder / CHECKSUMS) as new:
                new.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            return found
    if path.name.startswith("."):
        path.unlink()
    seen = "" if source.sha256 else f", that of the first download (kept in {folder / CHECKSUMS})"
    raise UserError(
        f"{source.file}: {what} has the sha256 {found}, but {expected} is expected{seen}; it is "
        "damaged, or another file."
    )


def _checksums(folder: Path) -> dict[str, str]:
    try:
        content: dict[str, str] = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        content = {}
    return content


def _fetch(address: str, part: Path) -> Path:
    """Append to ``part`` what is missing of the file at ``address``."""
    for attempt in range(1, _ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(address, part)
            return part
        except (requests.ConnectionError, requests.Timeout, _CutShortError):
            came = part.exists() and part.stat().st_size > before
            if attempt == _ATTEMPTS or not came:
                raise
    raise AssertionError("unreachable")


class _CutShortError(requests.RequestException):
    """The connection ended before the file did."""


def _append(address: str, part: Path) -> None:
    # What names the version of the file that the part is of: another version begins anew.
    version = part.with_name(part.name + "-of")
    have = part.stat().st_size if part.exists() else 0
    known = version.read_text(encoding="utf-8") if have and version.exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    with requests.get(address, stream=True, timeout=_TIMEOUT, headers=headers) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            raise _CutShortError("the part that was there is longer than the file")
        response.raise_for_status()
        goes_on = response.status_code == requests.codes.partial_content
        have = have if goes_on else 0
        total = have + int(response.headers.get("Content-Length", 0))
        _require_room(part.parent, total - have)
        version.write_text(_version(response), encoding="utf-8")
        with (
            part.open("ab" if goes_on else "wb") as target,
            download_progress(address, have, total) as arrived,
        ):
            try:
                for block in response.iter_content(_AT_ONCE):
                    target.write(block)
                    arrived(len(block))
            except requests.RequestException as error:
                target.flush()
                size = part.stat().st_size
                raise _CutShortError(f"{size:,} of {total:,} bytes arrived") from error
    version.unlink()


def _version(response: Response) -> str:
    """A strong validator for If-Range; empty where the server gives none."""
    tag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; set "
            f"{FOLDER_VARIABLE} to a folder on a larger disk."
        )


def _reason(error: Exception) -> str:
    """Why a file cannot be had, in a few words."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())
