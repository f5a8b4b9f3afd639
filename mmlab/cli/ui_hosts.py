"""Names under which `mmlab ui` may be opened, as MLflow's checks of requests need them.

MLflow compares the header Host of a request, with its port, with MLFLOW_SERVER_ALLOWED_HOSTS; that
list replaces MLflow's own one. It compares the header Origin, which browsers send with every
search for runs, with MLFLOW_SERVER_CORS_ALLOWED_ORIGINS, where localhost is always allowed. A name
that is only in the first list opens a page without runs.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from mmlab.cli.shared_options import split_names
from mmlab.errors import UserError

HOSTS_VARIABLE = "MLFLOW_SERVER_ALLOWED_HOSTS"
_ORIGINS_VARIABLE = "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"
#: Hosts that MLflow allows by default: this machine and private networks.
_DEFAULT_HOSTS = (
    *("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "[::1]", "[[]::1]:*"),
    *("0.0.0.0", "0.0.0.0:*", "192.168.*", "10.*", "fc00:*", "fd00:*"),
    *(f"172.{second}.*" for second in range(16, 32)),
)
_NAME = re.compile(r"([\w.*-]+|\[[0-9a-f:.]+\])(:(\d+|\*))?", re.ASCII)


def parse_hosts(text: str) -> list[str]:
    """Return the names in the value of --allowed-hosts, in lower case as browsers send them.

    Raises
    ------
    UserError
        A name is an address with a scheme or a path, or no name of a host.
    """
    names = split_names(text.lower())
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise UserError(
                f"--allowed-hosts: {name!r} is not the name of a host. Pass names alone, without "
                "http:// and without a path, comma-separated: lab.example.org,10.0.0.5 or "
                "*.example.org."
            )
    return names


def check_address(host: str, port: int) -> None:
    """Check that a server of this machine can listen on an address.

    Raises
    ------
    UserError
        The host is no name or address of this machine, or another server listens on the port.
    """
    advice = "Pass 127.0.0.1 for this machine only, or 0.0.0.0 for other machines, too."
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host!r} cannot be found: {reason}. {advice}") from error
    family, kind, protocol, _, address = found[0]
    try:
        with socket.socket(family, kind, protocol) as trial:
            # As the server does: the last one on this port may have ended a moment ago.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"--port {port} of {host} is in use by another server. Pass another --port."
            ) from error
        raise UserError(
            f"nothing can listen on --host {host}, --port {port}: {error.strerror}. {advice}"
        ) from error


def own_names(host: str) -> list[str]:
    """Return the names of this machine for a server that listens on ``host``; none for localhost.

    These are its host name and the address ``host``, or the addresses of all its networks.
    """
    if not is_exposed(host):
        return []
    if host not in ("0.0.0.0", "::"):
        return [socket.gethostname().lower(), bracketed(host).lower()]
    import psutil

    kinds = (socket.AF_INET,) if host == "0.0.0.0" else (socket.AF_INET, socket.AF_INET6)
    addresses = [
        bracketed(interface.address)
        for interfaces in psutil.net_if_addrs().values()
        for interface in interfaces
        if interface.family in kinds and is_exposed(interface.address)
    ]
    # Addresses with a zone, such as fe80::1%eth0, are no part of a URL.
    return [socket.gethostname().lower(), *(name for name in addresses if "%" not in name)]


def is_exposed(host: str) -> bool:
    """Return whether other machines may reach a server that listens on ``host``."""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host.lower() != "localhost"


def bracketed(host: str) -> str:
    """Return a host as it stands in a URL: IPv6 addresses in brackets."""
    try:
        return f"[{host}]" if isinstance(ip_address(host), IPv6Address) else host
    except ValueError:
        return host


def host_variables(names: Sequence[str]) -> dict[str, str]:
    """Return the environment of an MLflow server that may be opened under these names.

    A name without a port stands for itself with any port, and with http and https: a proxy may
    serve it elsewhere. Origins that the user's environment allows stay allowed.
    """
    if not names:
        return {}
    hosts = [pattern for name in names for pattern in _with_ports(name)]
    origins = [f"{scheme}://{pattern}" for pattern in hosts for scheme in ("http", "https")]
    given = split_names(os.environ.get(_ORIGINS_VARIABLE, ""))
    return {
        HOSTS_VARIABLE: ",".join(dict.fromkeys([*_DEFAULT_HOSTS, *hosts])),
        _ORIGINS_VARIABLE: ",".join(dict.fromkeys([*given, *origins])),
    }


def _with_ports(name: str) -> list[str]:
    """Return the patterns of a name; in one with a star, brackets would be a set of characters."""
    escaped = name.replace("[", "[[]")
    if name == "*":
        return [name]
    if re.search(r":(\d+|\*)$", name):
        return [escaped if "*" in name else name]
    return [name, f"{escaped}:*"]
