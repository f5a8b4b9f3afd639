"""Which tracking store a command uses, and what it says of one that cannot be used."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from commands import call, mistake
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from servers import free_port
from sqlalchemy.exc import OperationalError

from mmlab.cli.console import recorded_command, same_command
from mmlab.errors import UserError
from mmlab.tracking import TrackingStore, lock_study, store_checks

Answer = Callable[[BaseHTTPRequestHandler], None]


def test_option_then_variable_then_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    default = TrackingStore()
    assert (default.uri, default.source) == (f"sqlite:///{tmp_path}/mlflow.db", "the default")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert TrackingStore().uri == default.uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///of_variable.db")
    assert TrackingStore().uri == f"sqlite:///{tmp_path}/of_variable.db"
    assert TrackingStore("sqlite:///of_option.db").uri == f"sqlite:///{tmp_path}/of_option.db"
    shown = json.loads(call("doctor", "--json").stdout)
    assert shown["tracking_uri"] == f"sqlite:///{tmp_path}/of_variable.db"
    assert shown["tracking_uri_from"] == "MLFLOW_TRACKING_URI"
    result = call("report", "study", "-o", "out")
    assert f"Tracking store: sqlite:///{tmp_path}/of_variable.db (from" in result.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    assert mistake("ui").startswith("MLFLOW_TRACKING_URI: './mlruns' is not supported")


def test_a_password_is_used_and_neither_shown_nor_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "http://user:s3cr3t@127.0.0.1:5000"
    store = TrackingStore(uri)
    assert store.connection_uri == uri
    assert store.uri == "http://user:***@127.0.0.1:5000"
    assert store.state_folder == TrackingStore(uri.replace("s3cr3t", "new")).state_folder
    monkeypatch.setattr(sys, "argv", ["mmlab", "tune", "--tracking-uri", uri])
    assert "s3cr3t" not in recorded_command() + same_command()
    file = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    file.initialise()
    run = file.create_run(file.experiment("e"), "run", {"mmlab.command": f"mmlab ui {uri}"})
    file.set_tags(run, {"mmlab.reason": f"no answer from {uri}"})
    file.log(run, params={"uri": uri})
    data = file.client.get_run(run).data
    assert "s3cr3t" not in str(data.tags) + str(data.params)
    assert data.params["uri"] == store.uri


def test_recorded_command_can_be_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mmlab", "benchmark", "--address", "\udcff\udcfe"])
    assert recorded_command() == r"mmlab benchmark --address '\udcff\udcfe'"


def test_database_that_fails_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("statement", None, Exception("disk I/O error"))

    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(store.client, "search_experiments", fail)
    with pytest.raises(UserError, match=r"cannot be used: .*disk I/O error.* Check --tracking-uri"):
        store.initialise()


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("sqlite://x.db", "'sqlite://x.db' lacks a slash: three precede the file, sqlite:///x.db."),
        ("sqlite://", "lacks a slash: three precede the file, sqlite:///FILE."),
        ("sqlite:///what?.db", "contains a question mark"),
        ("ftp://u:s3cr3t@host", "'ftp://u:***@host' is not supported as a tracking URI; use"),
        ("mlruns", "'mlruns' is not supported"),
        ("sqlite:///missing/mlflow.db", "missing does not exist. Create it, or pass another"),
        ("mysql://u:s3cr3t@127.0.0.1/db", "Install the driver with: pip install pymysql"),
        ("sqlite:///text.db", "file is not a database. Move"),
        ("sqlite:///folder", "is not a regular file. Pass the"),
        ("sqlite:////dev/null", "/dev/null is not a regular file"),
        ("sqlite:///x\udcff.db", r"x\udcff.db is not valid UTF-8, as a tracking URI must be"),
        ("http://host\udcff", r"http://host\udcff is not valid UTF-8"),
    ],
)
def test_unusable_uri(
    uri: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("I am no database. " * 100)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError) as error:
        TrackingStore(uri).initialise()
    assert sentence in str(error.value)
    assert "s3cr3t" not in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_driver_of_postgresql_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(UserError, match=r"Install the driver with: pip install 'mmlab\[cluster\]'"):
        TrackingStore("postgresql://user:secret@127.0.0.1/db").initialise()


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    writable = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: p != tmp_path and writable(p, mode))
    with pytest.raises(UserError, match=r"cannot be written\. Run in another folder, or pass the"):
        store.initialise()
    assert not list(tmp_path.iterdir())


def test_no_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without HOME and an entry of the user, `~` stays as it is; a file is no folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    store = TrackingStore()
    target = "mmlab.tracking.local_state.user_state_path"
    for folder, reason in (("~/state", "there is no home folder"), (tmp_path / "file", "Not a")):
        monkeypatch.setattr(target, lambda _, folder=folder: Path(folder))
        for act in (store.initialise, lambda: lock_study(store, "study").__enter__()):
            with pytest.raises(UserError, match=f"{reason}.*Set the environment variable XDG_"):
                act()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def respond(status: int, body: bytes, kind: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


ANSWERS: dict[str, Answer] = {
    "an error": respond(500, b"{}", "application/json"),
    "a page": respond(200, b"<html>Welcome</html>", "text/html"),
    "nothing": lambda request: request.connection.shutdown(socket.SHUT_RDWR),
    "too late": lambda request: time.sleep(3),
}


@contextmanager
def http_server(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve one answer to all requests, over TLS if it is given; yields the URI."""

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if self.raw_requestline and self.parse_request():
                answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://user:s3cr3t@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def credentials_needed(body: bytes) -> Answer:
    """Answer like MLflow, whose only user is "user" with the password "right"."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Authorization", "")
        if given == f"Basic {b64encode(b'user:right').decode()}":
            respond(200, b"{}", "application/json")(request)
        else:
            respond(401, body, "text/html")(request)

    return answer


@pytest.mark.parametrize("body", [b"You are not authenticated.", b"<h1>401</h1>", b"{}"])
def test_credentials_that_are_missing_or_wrong(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http_server(credentials_needed(body)) as with_password:
        uri = with_password.replace("user:s3cr3t@", "")
        with pytest.raises(UserError, match=r"requires credentials \(HTTP 401\)\. Set MLFLOW_TRA"):
            TrackingStore(uri).require_reachable()
        with pytest.raises(UserError, match=r"rejects these credentials \(HTTP 401\)\. Check MLF"):
            TrackingStore(with_password).require_reachable()
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "user")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        with pytest.raises(UserError, match=r"rejects these credentials \(HTTP 401\)"):
            TrackingStore(uri).require_reachable()
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "right")
        TrackingStore(uri).require_reachable()


def test_a_server_that_forbids_says_why() -> None:
    answer = respond(403, b"<p>Invalid Host header</p>", "text/html")
    with http_server(answer) as uri, pytest.raises(UserError) as error:
        TrackingStore(uri).require_reachable()
    assert "the server forbids it (HTTP 403): Invalid Host header. Ask for" in str(error.value)


def test_a_certificate_that_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with http_server(respond(200, b"{}", "application/json"), tls) as uri:
        with pytest.raises(UserError) as error:
            TrackingStore(uri).require_reachable()
        assert "the certificate of the server is not trusted: self-signed certificate. Set " in str(
            error.value
        )
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        TrackingStore(uri).require_reachable()


def self_signed_certificate(folder: Path) -> Path:
    """Write a certificate of 127.0.0.1 and its key to a file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    return file


def all_commands(uri: str) -> list[list[str]]:
    data = ["--dataset", "pbmc68k_reduced", "--tracking-uri", uri]
    return [
        ["select", *data],
        ["tune", *data],
        ["benchmark", *data],
        ["promote", "study", "--tracking-uri", uri],
        ["report", "study", "-o", "report", "--tracking-uri", uri],
        ["ui", "--tracking-uri", uri],
        ["doctor", "--tracking-uri", uri],
    ]


@pytest.mark.parametrize("kind", ANSWERS)
def test_server_that_does_not_answer_as_mlflow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_checks, "_TIMEOUT", 1)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    with http_server(ANSWERS[kind]) as uri, pytest.raises(UserError) as error:
        TrackingStore(uri).require_reachable()
    assert "(--tracking-uri): the server does not answer as MLflow does: " in str(error.value)
    assert "s3cr3t" not in str(error.value)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_every_command_says_that_a_server_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in all_commands(f"http://127.0.0.1:{free_port()}"):
        assert "the server does not answer as MLflow does" in mistake(*command), command
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_before_the_database_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 700_000})
    monkeypatch.setattr(store_checks.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"0\.7 MB of the disk are free, but it needs at least 20"):
        TrackingStore(f"sqlite:///{tmp_path}/mlflow.db").initialise()
    assert not list(tmp_path.iterdir())


def test_a_user_without_home_folder_is_told_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert "Set the environment variable HOME" in mistake("datasets", "list")
    assert call("--help").exit_code == 0
