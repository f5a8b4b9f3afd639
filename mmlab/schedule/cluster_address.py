"""Check that a Ray cluster responds at an address and accepts this driver, within seconds."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from pathlib import Path

from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from mmlab.errors import UserError

#: Seconds in which the machine, and then Ray on it, have to respond. Ray itself waits for minutes.
_TIMEOUT = 5.0
_ADVICE = "Start one with `ray start --head`, or omit --address to use this machine."


def require_cluster(address: str) -> None:
    """Check that Ray responds at ``HOST:PORT``; ``auto``, the one of this machine, is not checked.

    Raises
    ------
    UserError
        The address is none, nothing responds there, it is not Ray, or it requires another token.
    """
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address} is one of the Ray client, through which no study runs. Run the "
            "command on a machine of the cluster, with --address HOST:PORT or auto."
        )
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--address {address!r} must be HOST:PORT, such as 10.0.0.1:6379, or auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise UserError(f"no Ray cluster responds at {address} ({reason}). {_ADVICE}") from error
    if not _has_token():
        # Without a token, Ray would end this process. A cluster that requires none takes any.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    errors: list[Exception] = []
    thread = threading.Thread(target=_connect, args=(address, errors), daemon=True)
    thread.start()
    thread.join(_TIMEOUT)
    if errors and isinstance(errors[0], AuthenticationError):
        raise UserError(
            f"the Ray cluster at {address} requires the token of its head: set RAY_AUTH_TOKEN to "
            "it, or RAY_AUTH_TOKEN_PATH to a file with it."
        )
    if errors or thread.is_alive():
        raise UserError(f"what responds at {address} is not a Ray cluster. {_ADVICE}")


def _has_token() -> bool:
    """Return whether Ray finds a token: in a variable, or in a file."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser().is_file()


def _connect(address: str, errors: list[Exception]) -> None:
    try:
        GcsClient(address=address)
    except Exception as error:  # of many types
        errors.append(error)
