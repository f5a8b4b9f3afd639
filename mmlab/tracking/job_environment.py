"""Environment variables with which a job on another machine reaches the tracking server."""

from __future__ import annotations

import os

from mlflow.utils.credentials import get_default_host_creds

from mmlab.errors import UserError
from mmlab.tracking.tracking_uri import URI_VARIABLE, resolve_uri, sqlite_file, uri_source

#: Variables with the path of a certificate.
CERTIFICATES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH")
#: Credentials of an artifact store that MLflow writes to without its server.
_ARTIFACT_STORE = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def job_environment(uri: str | None) -> dict[str, str]:
    """Return the variables: tracking URI, credentials, and all others of MLflow that are set.

    Parameters
    ----------
    uri
        Tracking URI of the command; None is that of the environment.

    Raises
    ------
    UserError
        The URI is not supported, or is a file, which the cluster does not have.
    """
    resolved = resolve_uri(uri)
    if sqlite_file(resolved) is not None:
        raise UserError(
            f"{uri_source(uri)}: a job of the cluster cannot write to {resolved} of this machine. "
            "Pass the --tracking-uri of an MLflow server that the cluster reaches."
        )
    credentials = get_default_host_creds(resolved)  # type: ignore[no-untyped-call]
    of_file = {
        "MLFLOW_TRACKING_USERNAME": credentials.username,
        "MLFLOW_TRACKING_PASSWORD": credentials.password,
    }
    return {
        **{name: value for name, value in of_file.items() if value},
        **{
            name: value
            for name, value in os.environ.items()
            if name.startswith("MLFLOW_") or name in _ARTIFACT_STORE
        },
        URI_VARIABLE: resolved,
    }
