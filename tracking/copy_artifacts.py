"""Copy artifacts between a folder and S3: copy_artifacts.py FROM TO, each a folder or s3://..."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyarrow import fs


def file_system(place: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a folder or an S3 URI, and the path in it."""
    if not place.startswith("s3://"):
        return fs.LocalFileSystem(), str(Path(place).absolute())
    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    # Keys come from the file that AWS_SHARED_CREDENTIALS_FILE names.
    return fs.S3FileSystem(endpoint_override=endpoint), place.removeprefix("s3://").rstrip("/")


def copy(source: str, target: str) -> int:
    """Copy all files below ``source``, and return how many they are.

    Raises
    ------
    ValueError
        A copied file has another size than its original.
    """
    (from_system, from_path), (to_system, to_path) = file_system(source), file_system(target)
    selector = fs.FileSelector(from_path, recursive=True, allow_not_found=True)
    files = {f.path: f.size for f in from_system.get_file_info(selector) if f.is_file}
    if isinstance(to_system, fs.LocalFileSystem):
        to_system.create_dir(to_path)
    for path in files:
        copied = to_path + path.removeprefix(from_path)
        if isinstance(to_system, fs.LocalFileSystem):
            to_system.create_dir(str(Path(copied).parent))
        fs.copy_files(path, copied, source_filesystem=from_system, destination_filesystem=to_system)
        if to_system.get_file_info(copied).size != files[path]:
            raise ValueError(f"{copied} is not as large as {path} is in {source}")
    return len(files)


if __name__ == "__main__":
    print(f"{copy(*sys.argv[1:])} artifacts copied to {sys.argv[2]}")
