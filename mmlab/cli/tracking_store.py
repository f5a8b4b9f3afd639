"""The tracking store of a command, checked before any work, and where to look at its runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from mmlab.cli.console import print_message, program_name
from mmlab.system.redaction import redact

if TYPE_CHECKING:
    from mmlab.tracking import TrackingStore


def open_store(uri: str | None, storage: str = "", *, write: bool = False) -> TrackingStore:
    """Return the store of --tracking-uri, and say so if an environment variable names it.

    Parameters
    ----------
    storage
        Value of --storage; empty: none.
    write
        Whether the command will write to the store.

    Raises
    ------
    UserError
        The store does not answer within ten seconds or, with ``write``, cannot be written; or
        the storage cannot be written.
    """
    from mmlab.tracking import URI_VARIABLE, TrackingStore, check_storage

    store = TrackingStore(uri, check_storage(storage) if storage else "")
    if store.source == URI_VARIABLE:
        print_message(f"Tracking store: {store.uri} (from the variable {URI_VARIABLE})")
    if write:
        store.require_writable()
    else:
        store.require_reachable()
    return store


#: Where `mmlab ui` listens by default.
UI_HOST, UI_PORT = "127.0.0.1", 5000


def page_link(store: TrackingStore, page: str) -> str:
    """Return the address of a page on the tracking server, or on a default `mmlab ui`."""
    from mmlab.tracking import page_address

    server = store.uri if store.uri.startswith("http") else f"http://{UI_HOST}:{UI_PORT}"
    return page_address(server, page)


def page_hint(store: TrackingStore, page: str) -> str:
    """Return the sentence that says how to open a page of the MLflow UI on a store."""
    from mmlab.tracking import resolve_uri

    link = page_link(store, page)
    if store.uri.startswith("http"):
        return f"Open it in the MLflow UI: {link}"
    default = store.uri == redact(resolve_uri(None))
    option = "" if default else f" --tracking-uri {shlex.quote(store.uri)}"
    return f"Open the MLflow UI with: {program_name()} ui{option}, then {link}"
