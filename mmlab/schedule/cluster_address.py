"""Check that a Ray cluster responds at an address and accepts this driver, within seconds."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from ray._private import services
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from mmlab.errors import UserError
from mmlab.schedule.trial_fit import NodeGroup, node_groups

#: Seconds in which the machine, and then Ray on it, have to respond. Ray itself waits for minutes.
_TIMEOUT = 5.0
#: How a user passes the token of a cluster.
TOKEN_ADVICE = "set RAY_AUTH_TOKEN to it, or RAY_AUTH_TOKEN_PATH to a file with it"
_ADVICE = "Start one with `ray start --head`, or omit --address to use this machine."


@dataclass(frozen=True)
class FoundCluster:
    """A Ray cluster that has answered.

    Attributes
    ----------
    address
        Its ``HOST:PORT``.
    nodes
        Resources of each node that is alive, by the node's id.
    groups
        Nodes that its autoscaler can start.
    """

    address: str
    nodes: dict[str, dict[str, float]]
    groups: list[NodeGroup]

    @property
    def sizes(self) -> list[dict[str, float]]:
        """Resources of every node that is alive, and of one node of each group."""
        return [*self.nodes.values(), *(dict(group.resources) for group in self.groups)]

    def require_node(self) -> None:
        """Check that this machine is a node: Ray takes a driver nowhere else.

        Raises
        ------
        UserError
            It is not.
        """
        if not self.nodes.keys() & services.find_node_ids():
            raise UserError(
                f"this machine is not a node of the Ray cluster at {self.address}, and no study "
                "runs from elsewhere. Send the command to the cluster with `mmlab submit`, or run "
                "it on a node."
            )


def require_cluster(address: str) -> FoundCluster:
    """Check that Ray responds at ``HOST:PORT``; ``auto`` is the cluster of this machine.

    Raises
    ------
    UserError
        The address is none, nothing responds there, it is not Ray, or it requires another token.
    """
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address} is one of the Ray client, through which no study runs. Run the "
            "command on a machine of the cluster, with --address HOST:PORT or auto."
        )
    address = _resolve(address)
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"--address {address!r} must be HOST:PORT, such as 10.0.0.1:6379, or auto.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT).close()
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise UserError(f"no Ray cluster responds at {address} ({reason}). {_ADVICE}") from error
    ensure_token()
    found: list[FoundCluster] = []
    errors: list[Exception] = []
    thread = threading.Thread(target=_connect, args=(address, found, errors), daemon=True)
    thread.start()
    thread.join(_TIMEOUT)
    if errors and isinstance(errors[0], AuthenticationError):
        raise UserError(
            f"the Ray cluster at {address} requires the token of its head: {TOKEN_ADVICE}."
        )
    if not found:
        raise UserError(f"what responds at {address} is not a Ray cluster. {_ADVICE}")
    return found[0]


def ensure_token() -> None:
    """Set a random token if Ray finds none: without one it would end this process.

    A cluster that requires none takes any.
    """
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if not os.environ.get("RAY_AUTH_TOKEN") and not path.is_file():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _resolve(address: str) -> str:
    """Return the address of the cluster of this machine for ``auto``, else the address itself."""
    if address != "auto":
        return address
    try:
        return services.canonicalize_bootstrap_address_or_die("auto")
    except (ConnectionError, ValueError) as error:
        raise UserError(
            f"--address auto: no Ray cluster was found on this machine. {_ADVICE}"
        ) from error


def _connect(address: str, found: list[FoundCluster], errors: list[Exception]) -> None:
    try:
        client = GcsClient(address=address)
        alive = client.get_all_node_info(
            timeout=_TIMEOUT, state_filter=GcsNodeInfo.GcsNodeState.ALIVE
        )
        nodes = {node_id.hex(): dict(node.resources_total) for node_id, node in alive.items()}
        found.append(FoundCluster(address, nodes, node_groups(client, _TIMEOUT)))
    except Exception as error:  # of many types
        errors.append(error)
