"""Resumable downloads with checksums."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE
from mmlab.datasets.cache.transfer_progress import download_progress
from mmlab.datasets.remote_files import RemoteFile
from mmlab.errors import UserError
from mmlab.system.files import atomic_write, file_hash, set_aside

if TYPE_CHECKING:
    from requests import Response

#: Timeouts in seconds: to connect, and to receive the next bytes.
_TIMEOUT = (10, 60)
#: Bytes that are read at once; an incomplete block is lost if the connection breaks.
_BLOCK_BYTES = 2**16
#: Attempts to download a file, as long as each one before has received bytes.
_ATTEMPTS = 5
#: File with the checksums of the first downloads of files without a published one, by name.
CHECKSUMS_FILE = "checksums.json"
_CHECKSUMS = TypeAdapter(dict[str, str])


def download(source: RemoteFile, folder: Path, mirror: str | None = None) -> Path:
    """Return the path of a file in ``folder``, and download the file if it does not exist.

    Other processes that download the same file wait for this one.

    Parameters
    ----------
    source
        The file.
    folder
        Folder of downloads.
    mirror
        URL of a folder to download from instead of ``source.urls``; the file has the name
        ``source.name`` there.

    Raises
    ------
    UserError
        The file cannot be downloaded, or its checksum is wrong. If the connection broke, the
        received part remains as a hidden file; otherwise nothing remains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / source.name
    urls = source.urls if mirror is None else (f"{mirror.rstrip('/')}/{source.name}",)
    with FileLock(folder / f".{source.name}.lock"):
        if path.is_file():
            return path
        failures = []
        for url in urls:
            try:
                part = _download_part(url, folder / f".{source.name}.part")
            except (requests.RequestException, OSError) as error:
                failures.append(f"{url}: {_reason(error)}")
                continue
            verify_checksum(source, part, folder, f"the file from {url}")
            part.replace(path)
            return path
    raise UserError(f"{source.name} cannot be downloaded ({'; '.join(failures)}).")


def verify_checksum(source: RemoteFile, path: Path, folder: Path, label: str) -> str:
    """Compare the sha256 of a file to the published one, or to that of the first download.

    Parameters
    ----------
    source
        The file and its published sha256.
    path
        The downloaded file.
    folder
        Folder of downloads, with the checksums of the first downloads.
    label
        Description of the file for the error message.

    Returns
    -------
    The sha256.

    Raises
    ------
    UserError
        The sha256 differs. The hidden file of a download in progress is deleted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = file_hash(path)
    with FileLock(folder / f".{CHECKSUMS_FILE}.lock"):
        known = _checksums(folder)
        expected = source.sha256 or known.setdefault(source.name, found)
        if found == expected:
            with atomic_write(folder / CHECKSUMS_FILE) as new:
                new.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            return found
    if path.name.startswith("."):
        path.unlink()
    first = ""
    if not source.sha256:
        first = (
            f", that of the first download (stored in {folder / CHECKSUMS_FILE}; delete its entry "
            "there to accept another version)"
        )
    raise UserError(
        f"{source.name}: {label} has the sha256 {found}, but {expected} is expected{first}. The "
        "file is damaged or another version: download it again."
    )


def _checksums(folder: Path) -> dict[str, str]:
    path = folder / CHECKSUMS_FILE
    try:
        return _CHECKSUMS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError:
        set_aside(path, "list of checksums")
        return {}


def _download_part(url: str, part: Path) -> Path:
    """Download the bytes of the file at ``url`` that ``part`` lacks, and append them to it."""
    for attempt in range(1, _ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            _append(url, part)
            return part
        except (requests.ConnectionError, requests.Timeout, _IncompleteDownloadError):
            received = part.exists() and part.stat().st_size > before
            if attempt == _ATTEMPTS or not received:
                raise
    raise AssertionError("unreachable")


class _IncompleteDownloadError(requests.RequestException):
    """The connection closed before the whole file was received."""


def _append(url: str, part: Path) -> None:
    # This file has the validator (ETag) of the version that the part belongs to. If the server has
    # another version, the download starts again.
    validator_path = part.with_name(part.name + "-of")
    present = part.stat().st_size if part.exists() else 0
    validator = ""
    if present and validator_path.exists():
        validator = validator_path.read_text(encoding="utf-8")
    headers = {"Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={present}-", "If-Range": validator}
    with requests.get(url, stream=True, timeout=_TIMEOUT, headers=headers) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            raise _IncompleteDownloadError("the part on disk is longer than the file")
        response.raise_for_status()
        is_partial = response.status_code == requests.codes.partial_content
        present = present if is_partial else 0
        total = present + int(response.headers.get("Content-Length", 0))
        _require_disk_space(part.parent, total - present)
        validator_path.write_text(_validator(response), encoding="utf-8")
        with (
            part.open("ab" if is_partial else "wb") as target,
            download_progress(url, present, total) as advance,
        ):
            try:
                for block in response.iter_content(_BLOCK_BYTES):
                    target.write(block)
                    advance(len(block))
            except requests.RequestException as error:
                target.flush()
                size = part.stat().st_size
                raise _IncompleteDownloadError(f"{size:,} of {total:,} bytes received") from error
    validator_path.unlink()


def _validator(response: Response) -> str:
    """Return a strong validator for If-Range; empty if the server sends none."""
    tag = response.headers.get("ETag", "")
    return response.headers.get("Last-Modified", "") if tag.startswith("W/") or not tag else tag


def _require_disk_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: {needed / 1e9:.1f} GB are needed, but {free / 1e9:.1f} GB are free. Set "
            f"{FOLDER_VARIABLE} to a folder on a larger disk."
        )


def _reason(error: Exception) -> str:
    """Describe why a download failed, in a few words."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server responds {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "timeout"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())
