"""Where the finished trials of studies wait until the tracking store has them.

That is a folder of this machine, unless the user names a storage that outlives it: a folder that
machines share, or a bucket of an object store.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pyarrow import fs

from mmlab.errors import UserError
from mmlab.system.files import aside_name, atomic_write

_log = logging.getLogger(__name__)

#: Tag of a study with its storage.
STORAGE_TAG = "mmlab.storage"
#: Seconds in which an object store has to take a connection, and to answer. It is asked twice.
_CONNECT_TIMEOUT, _REQUEST_TIMEOUT, _ATTEMPTS = 3.0, 20.0, 2
#: Parameters of a URL that pyarrow knows, too.
_S3_PARAMETERS = {"region", "endpoint_override", "scheme"}


class Files:
    """Text files in one folder of a file system or an object store; their names end with .json.

    All methods raise ``OSError`` if the place does not respond, or is full.

    Attributes
    ----------
    place
        The folder, for messages.
    """

    def __init__(self, system: fs.FileSystem, folder: str, place: str) -> None:
        self.place = place
        self._system = system
        self._folder = folder

    def create(self) -> None:
        """Create the folder; in an object store, names of objects need none."""
        if isinstance(self._system, fs.LocalFileSystem):
            self._system.create_dir(self._folder)

    def names(self) -> list[str]:
        """Return the names of the files, oldest first."""
        selector = fs.FileSelector(self._folder, allow_not_found=True)
        found = self._system.get_file_info(selector)
        files = [file for file in found if file.is_file and file.extension == "json"]
        return [file.base_name for file in sorted(files, key=lambda f: (f.mtime_ns, f.base_name))]

    def read(self, name: str) -> str:
        """Return the content of a file; ValueError if it is no text."""
        with self._system.open_input_stream(self._path(name)) as stream:
            content: bytes = stream.read()
        return content.decode()

    def write(self, name: str, text: str) -> None:
        """Write a file, as a whole or not at all."""
        if isinstance(self._system, fs.LocalFileSystem):
            with atomic_write(Path(self._path(name))) as path:
                path.write_text(text, encoding="utf-8")
            return
        # An object is there once it is closed.
        with self._system.open_output_stream(self._path(name)) as stream:
            stream.write(text.encode())

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._system.delete_file(self._path(name))

    def set_aside(self, name: str) -> None:
        """Rename a damaged file, so that its trial is computed again, and warn."""
        aside = aside_name(name)
        self._system.move(self._path(name), self._path(aside))
        path = f"{self.place}/{name}"
        _log.warning(
            "the result of a trial that is still to be sent, %s, is damaged: moved to %s",
            path,
            aside,
        )

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"


def files_in_storage(storage: str, *parts: str) -> Files:
    """Return the files in a folder of a storage.

    Parameters
    ----------
    storage
        A folder, or ``s3://BUCKET/PATH`` with, if necessary, the parameters ``region``,
        ``endpoint_override`` and ``scheme`` of pyarrow. Credentials are found as boto3 finds them.
    parts
        Names of folders in the storage, one below the other.

    Raises
    ------
    UserError
        The URL cannot be understood.
    """
    if "://" not in storage:
        folder = str(Path(storage).joinpath(*parts))
        return Files(fs.LocalFileSystem(), folder, folder)
    url = urlsplit(storage)
    path = "/".join([url.netloc, *filter(None, url.path.split("/")), *parts])
    place = "/".join([f"s3://{url.netloc}{url.path.rstrip('/')}", *parts])
    return Files(_object_store(url), path, place)


def check_storage(storage: str) -> str:
    """Check that a storage can be used, and return it with a path that holds in any folder.

    Raises
    ------
    UserError
        It is no folder and no URL of S3, has a password, or cannot be written.
    """
    if "://" not in storage:
        storage = str(Path(storage).expanduser().absolute())
    files = files_in_storage(storage)
    try:
        files.create()
        probe = f"probe-{os.getpid()}.json"
        files.write(probe, "{}")
        files.remove(probe)
    except OSError as error:
        reason = describe_error(error)
        raise UserError(f"--storage {storage} cannot be written: {reason}.") from error
    return storage


def describe_error(error: OSError) -> str:
    """Return what went wrong, in one line; errors of an object store have a text alone."""
    return error.strerror or " ".join(str(error).split())[:300].rstrip(".")


def _object_store(url: SplitResult) -> fs.FileSystem:
    parameters = dict(parse_qsl(url.query))
    if url.scheme != "s3" or not url.netloc or parameters.keys() - _S3_PARAMETERS:
        raise UserError(
            f"--storage {url.geturl()} must be a folder, or s3://BUCKET/PATH with the parameters "
            f"{', '.join(sorted(_S3_PARAMETERS))} if the store requires them."
        )
    if "@" in url.netloc:
        raise UserError(
            "--storage must have no password: the variables AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials, have it."
        )
    regions = (parameters.get("region"), os.environ.get("AWS_REGION"))
    region = next(filter(None, (*regions, os.environ.get("AWS_DEFAULT_REGION"))), "us-east-1")
    return fs.S3FileSystem(
        region=region,
        endpoint_override=parameters.get("endpoint_override"),
        scheme=parameters.get("scheme", "https"),
        connect_timeout=_CONNECT_TIMEOUT,
        request_timeout=_REQUEST_TIMEOUT,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
