"""Settings, scripts and the configuration of nginx that `tracking/` runs a server with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tracking_stack import SCRIPTS

SETTINGS = {
    "TRACKING_HOST": "tracking.example.org",
    "TRACKING_DATABASE": "postgresql://mlflow@127.0.0.1:5432/mlflow",
    "TRACKING_ARTIFACTS": "s3://bucket/artifacts",
    "TRACKING_TLS_PORT": "8443",
}


def script(folder: Path, name: str, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Run a script with its secrets and its state in a folder."""
    (folder / "secrets").mkdir(exist_ok=True)
    own = {"TRACKING_SECRETS": f"{folder}/secrets", "TRACKING_STATE": f"{folder}/state"}
    environment = os.environ | SETTINGS | own | settings
    command = [str(SCRIPTS / name), *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("TRACKING_HOST", "", "TRACKING_HOST is not set"),
        ("TRACKING_HOST", "https://a.org/", "'https://a.org/' must be a name alone"),
        ("TRACKING_DATABASE", "postgresql://mlflow:secret@db/mlflow", "its password is in pgpass"),
        ("TRACKING_SECRETS", "/missing", "there is no folder /missing"),
        ("TRACKING_SETTINGS", "/missing", "TRACKING_SETTINGS: /missing cannot be read"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, setting: str, value: str, message: str) -> None:
    code, _, error = script(tmp_path, "serve.sh", **{setting: value})
    assert code == 2
    assert message in error
    assert "secret@" not in error


def test_secrets_are_private_and_made_once(tmp_path: Path) -> None:
    assert script(tmp_path, "secrets.sh")[0] == 0
    folder = tmp_path / "secrets"
    password = (folder / "pgpass").read_text()
    assert re.fullmatch(r"127\.0\.0\.1:5432:mlflow:mlflow:[0-9a-f]{48}\n", password)
    assert script(tmp_path, "secrets.sh")[0] == 0
    assert (folder / "pgpass").read_text() == password
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}


def test_users_come_and_go(tmp_path: Path) -> None:
    passwords = [script(tmp_path, "user.sh", name)[1].strip() for name in ("a.b", "axb", "a.b")]
    assert len({*passwords}) == 3
    assert min(map(len, passwords)) == 40
    users = tmp_path / "secrets" / "users"
    lines = dict(line.split(":") for line in users.read_text().splitlines())
    assert list(lines) == ["axb", "a.b"]
    for name, password in (("axb", passwords[1]), ("a.b", passwords[2])):
        salt = lines[name].split("$")[2]
        check = ["openssl", "passwd", "-apr1", "-salt", salt, password]
        assert subprocess.check_output(check, text=True).strip() == lines[name]
    assert script(tmp_path, "user.sh", "--remove", "axb")[0] == 0
    assert users.read_text().startswith("a.b:")
    code, _, error = script(tmp_path, "user.sh", "a:b")
    assert (code, "user.sh [--remove] NAME" in error) == (2, True)


def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    assert "users is missing" in script(tmp_path, "proxy.sh", "-t")[2]
    script(tmp_path, "secrets.sh")
    script(tmp_path, "user.sh", "ann")
    code, _, error = script(tmp_path, "proxy.sh", "-t")
    assert code == 0, error
    text = (tmp_path / "state" / "nginx.conf").read_text()
    assert "server_name tracking.example.org;" in text
    assert "${TRACKING" not in text


def test_a_backup_is_not_overwritten_and_half_a_backup_not_restored(tmp_path: Path) -> None:
    assert "exists already" in script(tmp_path, "backup.sh", str(tmp_path))[2]
    assert "not a complete backup" in script(tmp_path, "restore.sh", str(tmp_path))[2]


def test_scripts_are_clean() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = sorted(map(str, SCRIPTS.glob("*.sh")))
    done = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *scripts],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
