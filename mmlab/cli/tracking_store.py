"""The tracking store of a command, checked before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlab.cli.console import print_message

if TYPE_CHECKING:
    from mmlab.tracking import TrackingStore


def open_store(uri: str | None, *, write: bool = False) -> TrackingStore:
    """Return the store of --tracking-uri, and say so if an environment variable names it.

    Parameters
    ----------
    write
        Whether the command will write to the store.

    Raises
    ------
    UserError
        The store does not answer within ten seconds or, with ``write``, cannot be written.
    """
    from mmlab.tracking import URI_VARIABLE, TrackingStore

    store = TrackingStore(uri)
    if store.source == URI_VARIABLE:
        print_message(f"Tracking store: {store.uri} (from the variable {URI_VARIABLE})")
    if write:
        store.require_writable()
    else:
        store.require_reachable()
    return store
