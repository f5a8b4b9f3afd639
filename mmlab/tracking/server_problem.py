"""One request to a tracking server, and why the server cannot be used, in one sentence."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response
from requests.exceptions import SSLError

_ENDPOINT = "/api/2.0/mlflow/experiments/search"
_CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def server_problem(uri: str) -> str:
    """Ask a server for an experiment, and return why it cannot be used; empty if it can."""
    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    try:
        response = http_request(  # type: ignore[no-untyped-call]
            credentials, _ENDPOINT, "POST", json={"max_results": 1}
        )
        if response.status_code == 401:
            if credentials.username or credentials.token or urlsplit(uri).username:
                return f"the server rejects these credentials (HTTP 401). Check {_CREDENTIALS}."
            return f"the server requires credentials (HTTP 401). Set {_CREDENTIALS}."
        if response.status_code == 403:
            return (
                f"the server forbids it (HTTP 403){_said(response.text)}. Ask for permission, or "
                f"set other credentials: {_CREDENTIALS}."
            )
        verify_rest_response(response, _ENDPOINT)
    except (MlflowException, OSError, ValueError) as error:
        untrusted = _certificate_problem(error)
        if untrusted:
            return (
                f"the certificate of the server is not trusted: {untrusted}. Set "
                "MLFLOW_TRACKING_SERVER_CERT_PATH to a file with the certificate of its authority."
            )
        reason = " ".join(str(error).split())[:300].rstrip(".")
        return (
            f"the server does not answer as MLflow does: {reason}. Start it, or pass another "
            "--tracking-uri."
        )
    return ""


def _said(body: str) -> str:
    """Return what a server said, without markup, after a colon; empty if it said nothing."""
    plain = " ".join(re.sub(r"<[^>]*>", " ", body).split())[:200].rstrip(".")
    return f": {plain}" if plain else ""


def _certificate_problem(error: BaseException | None) -> str:
    """Return why a certificate is not trusted; empty for another error."""
    while error is not None and not isinstance(error, SSLError):
        error = error.__cause__ or error.__context__
    found = re.search(r"certificate verify failed: ([^(]*)", str(error))
    return "" if found is None else found[1].strip(" .'\")")
