"""Why a tracking server cannot be used, in a sentence that says what to do."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from requests.exceptions import SSLError

_CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def server_problem(error: BaseException, uri: str) -> str:
    """Describe the error of a request to the server of a tracking URI."""
    reason = " ".join(str(error).split())[:300].rstrip(".")
    status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
    if status == 401 and not _has_credentials(uri):
        return f"the server requires credentials (HTTP 401). Set {_CREDENTIALS}."
    if status == 401:
        return f"the server rejects these credentials (HTTP 401). Check {_CREDENTIALS}."
    if status == 403:
        return (
            f"the server forbids it (HTTP 403): {_body(str(error))}. Ask for permission, or set "
            f"other credentials: {_CREDENTIALS}."
        )
    if (untrusted := _certificate_problem(error)) is not None:
        return (
            f"the certificate of the server is not trusted: {untrusted}. Set "
            "MLFLOW_TRACKING_SERVER_CERT_PATH to a file with the certificate of its authority."
        )
    return (
        f"the server does not answer as MLflow does: {reason}. Start it, or pass another "
        "--tracking-uri."
    )


def _has_credentials(uri: str) -> bool:
    """Return whether the requests to a server carry credentials."""
    credentials = get_default_host_creds(uri)
    return bool(credentials.username or credentials.token or urlsplit(uri).username)


def _body(text: str) -> str:
    """Return what a server said, from the text of MLflow's error, without markup."""
    _, _, body = text.partition("Response body: ")
    plain = " ".join(re.sub(r"<[^>]*>", " ", body or text).split())
    return plain.strip("'").rstrip(".")[:200]


def _certificate_problem(error: BaseException | None) -> str | None:
    """Return why a certificate is not trusted; None for another error."""
    while error is not None and not isinstance(error, SSLError):
        error = error.__cause__ or error.__context__
    found = re.search(r"certificate verify failed: ([^(]*)", str(error))
    return None if found is None else found[1].strip(" .'\")")
