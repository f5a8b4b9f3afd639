"""Cost of a password at each request: in the proxy of `tracking/`, and in MLflow's own basic-auth.

nginx runs as `tracking/proxy.sh` starts it, with nothing behind it: a request with a password and
one without differ by the check of the password alone. MLflow's basic-auth checks each request with
werkzeug's default hash, scrypt. Both are measured in turns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import requests
from werkzeug.security import check_password_hash, generate_password_hash

SCRIPTS = Path(__file__).parents[2] / "tracking"
PORT = "18443"
N_REQUESTS = 200


def measure(folder: Path) -> dict[str, float]:
    """Return milliseconds of a request, medians: with password, without, and of scrypt."""
    (folder / "secrets").mkdir()
    environment = os.environ | {
        "TRACKING_HOST": "localhost",
        "TRACKING_DATABASE": "postgresql://mlflow@127.0.0.1/mlflow",
        "TRACKING_ARTIFACTS": str(folder / "artifacts"),
        "TRACKING_SECRETS": str(folder / "secrets"),
        "TRACKING_STATE": str(folder / "state"),
        "TRACKING_TLS_PORT": PORT,
        "TRACKING_UPSTREAM": "127.0.0.1:1",
    }
    subprocess.run([SCRIPTS / "secrets.sh"], env=environment, check=True)
    password = subprocess.check_output([SCRIPTS / "user.sh", "ann"], env=environment, text=True)
    user = ("ann", password.strip())
    hashed = generate_password_hash(user[1])
    session = requests.Session()
    session.trust_env = False
    session.verify = str(folder / "secrets" / "tls.crt")

    def request(path: str, auth: tuple[str, str] | None) -> float:
        started = time.perf_counter()
        status = session.get(f"https://localhost:{PORT}{path}", auth=auth, timeout=30).status_code
        assert status == 502, status
        return 1000 * (time.perf_counter() - started)

    def scrypt() -> float:
        started = time.perf_counter()
        assert check_password_hash(hashed, user[1])
        return 1000 * (time.perf_counter() - started)

    log = (folder / "proxy.log").open("w")
    proxy = subprocess.Popen([SCRIPTS / "proxy.sh"], env=environment, stdout=log, stderr=log)
    try:
        while not (folder / "state" / "nginx.pid").exists():
            assert proxy.poll() is None, (folder / "proxy.log").read_text()
            time.sleep(0.1)
        rows = [
            (request("/version", user), request("/health", None), scrypt())
            for _ in range(N_REQUESTS)
        ]
    finally:
        proxy.terminate()
        proxy.wait()
    names = ("request with a password", "request without", "scrypt")
    return dict(zip(names, map(statistics.median, zip(*rows, strict=True)), strict=True))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mmlab-") as name:
        for title, milliseconds in measure(Path(name)).items():
            print(f"{title}: {milliseconds:.2f} ms")
