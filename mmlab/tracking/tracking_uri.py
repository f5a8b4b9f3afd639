"""Tracking URIs: which one is used, and whether it is of a kind that mmlab supports."""

from __future__ import annotations

import os
from pathlib import Path

from mmlab.errors import UserError
from mmlab.system.printable import encodable
from mmlab.system.redaction import redact

DEFAULT_URI = "sqlite:///mlflow.db"
#: Environment variable of MLflow with the tracking URI; an option takes precedence.
URI_VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
_DATABASES = ("postgresql", "mysql", "mssql")
_SUPPORTED = f"use sqlite:///FILE, http(s)://HOST or a database URI ({', '.join(_DATABASES)})"


def uri_source(uri: str | None) -> str:
    """Return where the tracking URI comes from: the option, the variable, or the default."""
    if uri is not None:
        return "--tracking-uri"
    return URI_VARIABLE if os.environ.get(URI_VARIABLE) else "the default"


def resolve_uri(uri: str | None) -> str:
    """Return the tracking URI with an absolute path, because workers run in other directories.

    None is the URI of the environment variable ``MLFLOW_TRACKING_URI``; without it, the SQLite file
    ``mlflow.db`` in the working directory.

    Raises
    ------
    UserError
        The URI is not supported.
    """
    source = uri_source(uri)
    uri = (os.environ.get(URI_VARIABLE) or DEFAULT_URI) if uri is None else uri
    resolved = _resolve_sqlite(uri, source) if uri.startswith(SQLITE) else uri
    if encodable(resolved) != resolved:
        raise UserError(
            f"{source}: {redact(encodable(resolved))} is not valid UTF-8, as a tracking URI must "
            "be. Rename the folder, or pass another --tracking-uri."
        )
    if uri.startswith(SQLITE):
        return resolved
    scheme, separator, rest = uri.partition("://")
    dialect = scheme.lower().partition("+")[0]
    if separator and dialect == "sqlite":
        raise UserError(
            f"{source}: {redact(uri)!r} lacks a slash: three precede the file, "
            f"{SQLITE}{rest or 'FILE'}."
        )
    if not separator or dialect not in ("http", "https", *_DATABASES):
        raise UserError(
            f"{source}: {redact(uri)!r} is not supported as a tracking URI; {_SUPPORTED}."
        )
    return uri


def _resolve_sqlite(uri: str, source: str) -> str:
    path = Path(uri.removeprefix(SQLITE)).absolute()
    if "?" in str(path):
        raise UserError(
            f"{source}: the path {path} contains a question mark, which no SQLite URI can hold. "
            "Use another folder, or pass the --tracking-uri of a store elsewhere."
        )
    return SQLITE + str(path)


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite URI; None for other stores."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
