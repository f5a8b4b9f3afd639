"""The right to write to a study: one driver at a time has it, on any machine.

It is recorded in the study's run: the driver, a count of the drivers so far, and the time of the
latest heartbeat. A driver that is gone is found by its process number on its own machine, and by
heartbeats that do not come on others, where no clock is compared.
"""

from __future__ import annotations

import logging
import time

from mmlab.tracking.run_owner import (
    HEARTBEAT,
    already_running,
    heartbeat_tags,
    is_of_this_machine,
    is_own,
    owner_is_alive,
    owner_name,
    owner_tags,
)
from mmlab.tracking.store import TrackingStore

#: Seconds between heartbeats of a driver.
HEARTBEAT_INTERVAL = 10.0
#: Seconds without a heartbeat after which the driver on another machine counts as gone, and pause
#: in seconds between looks at them.
_PATIENCE, _PAUSE = 35.0, 1.0
#: Tag with the number of drivers that a study has had.
_ATTEMPT = "mmlab.attempt"

_log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """Another driver has taken a study over; the message names it."""


def new_lease() -> dict[str, str]:
    """Return the tags with which this process creates a study."""
    return owner_tags() | heartbeat_tags() | {_ATTEMPT: "1"}


def take_lease(store: TrackingStore, study: str, run_id: str) -> None:
    """Make this process the driver of an existing study.

    If its last driver was on another machine and did not close it, this takes half a minute.

    Raises
    ------
    UserError
        The study has a driver that is alive.
    """
    run = store.client.get_run(run_id)
    tags = run.data.tags
    if run.info.status == "RUNNING" and not is_own(tags):
        here = is_of_this_machine(tags)
        if owner_is_alive(tags) if here else not _is_silent(store, study, run_id):
            raise already_running(study, owner_name(tags))
    attempt = str(int(tags.get(_ATTEMPT, "0")) + 1)
    store.set_tags(run_id, owner_tags() | heartbeat_tags() | {_ATTEMPT: attempt})
    # Of two drivers that take the study at once, the first one finds the name of the second.
    tags = store.client.get_run(run_id).data.tags
    if not is_own(tags):
        raise already_running(study, owner_name(tags))


def renew_lease(store: TrackingStore, study: str, run_id: str) -> None:
    """Send a heartbeat.

    Raises
    ------
    LeaseLostError
        Another driver has taken the study over, because this one was silent.
    """
    tags = store.client.get_run(run_id).data.tags
    if not is_own(tags):
        raise LeaseLostError(f"Study {study} was taken over by {owner_name(tags)}.")
    store.set_tags(run_id, heartbeat_tags())


def _is_silent(store: TrackingStore, study: str, run_id: str) -> bool:
    """Return whether the driver of a study sends no heartbeat and does not close it."""
    started, first = time.monotonic(), None
    while True:
        run = store.client.get_run(run_id)
        if run.info.status != "RUNNING":
            return True
        heartbeat = run.data.tags.get(HEARTBEAT, "")
        if first is None:
            first = heartbeat
            _log.warning(
                "study %s was not closed by %s: waiting up to %.0f s for a sign of life",
                study,
                owner_name(run.data.tags),
                _PATIENCE,
            )
        if heartbeat != first:
            return False
        if time.monotonic() - started > _PATIENCE:
            return True
        time.sleep(_PAUSE)
