"""The files of docker/ are valid, and the names that they share with each other and mmlab agree."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import mmlab
from mmlab.datasets.cache.cache_paths import FOLDER_VARIABLE
from mmlab.tracking.tracking_uri import URI_VARIABLE

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"mmlab:{PROJECT['version']}"
TOKEN_FILE = "RAY_AUTH_TOKEN_PATH"


def load(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


def load_all(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DOCKER / name).read_text()))


def dockerfile_environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (.*)$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in line.split())


def locked_versions(path: Path) -> dict[str, str]:
    """Return the versions of a lock file or constraints file, by normalised name."""
    pairs = re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def test_every_yaml_file_is_read() -> None:
    files = [path for path in DOCKER.rglob("*.y*ml") if path.name != ".yamllint"]
    assert len(files) >= 8
    for path in files:
        assert all(isinstance(part, dict) for part in load_all(str(path.relative_to(DOCKER))))


def test_one_image_of_this_version() -> None:
    assert PROJECT["version"] == mmlab.__version__
    services = load("compose.yaml")["services"]
    default = f"${{MMLAB_IMAGE:-{IMAGE}}}"
    for name in ("head", "worker", "mlflow", "bucket"):
        assert services[name]["image"] == default
    assert load("ray-up.yaml")["docker"]["image"] == IMAGE
    submitter = load("kuberay/ray-job.yaml")["spec"]["submitterPodTemplate"]["spec"]
    assert submitter["containers"][0]["image"] == IMAGE
    (image,) = load("kuberay/kustomization.yaml")["images"]
    assert f"{image['name']}:{image['newTag']}" == IMAGE


def test_versions_are_those_of_the_constraints() -> None:
    """Every dependency is locked, with the hash of each file, and Ray is that of KubeRay's spec."""
    pinned = locked_versions(ROOT / "constraints.txt")
    locked = locked_versions(DOCKER / "requirements.lock")
    locked |= locked_versions(DOCKER / "torch-cuda.lock")
    shared = pinned.keys() & locked.keys()
    assert {name: locked[name] for name in shared} == {name: pinned[name] for name in shared}
    extras = PROJECT["optional-dependencies"]
    for requirement in [*PROJECT["dependencies"], *extras["cluster"], *extras["server"]]:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None and name[0].lower() in locked
    for file in ("requirements.lock", "torch-cuda.lock"):
        text = (DOCKER / file).read_text()
        blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in block for block in blocks)
    assert load("kuberay/ray-cluster.yaml")["spec"]["rayVersion"] == pinned["ray"]


def test_lock_check_finds_another_version(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    for file in ("lock.sh", "requirements.lock", "torch-cuda.lock"):
        shutil.copy(DOCKER / file, tmp_path / "docker")
    constraints = (ROOT / "constraints.txt").read_text()
    (tmp_path / "constraints.txt").write_text(re.sub(r"(?m)^numpy==.*$", "numpy==1.0", constraints))
    command = ["bash", str(tmp_path / "docker" / "lock.sh"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"lock: numpy [\d.]+, but constraints.txt has 1.0; run docker/lock.sh\n", done.stderr
    )


def test_variables_are_those_that_the_programs_read() -> None:
    environment = dockerfile_environment()
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment[FOLDER_VARIABLE].startswith("/data/")
    assert environment["XDG_STATE_HOME"].startswith("/data/")
    head = load("compose.yaml")["services"]["head"]["environment"]
    assert {URI_VARIABLE, TOKEN_FILE} <= head.keys()
    script = (DOCKER / "local_cluster.sh").read_text() + (DOCKER / "slurm/mmlab.sbatch").read_text()
    assert script.count("RAY_AUTH_MODE=token") == 2
    assert TOKEN_FILE in script


def test_settings_of_the_tracking_server_are_those_of_its_scripts() -> None:
    scripts = "".join(path.read_text() for path in (ROOT / "tracking").glob("*.sh"))
    known = set(re.findall(r"\bTRACKING_[A-Z0-9_]+", scripts))
    services = load("compose.yaml")["services"]
    (generated,) = load("kuberay/kustomization.yaml")["configMapGenerator"]
    literals = dict(literal.split("=", 1) for literal in generated["literals"])
    for settings in (services["mlflow"]["environment"], services["proxy"]["environment"], literals):
        assert {name for name in settings if name.startswith("TRACKING_")} <= known
        assert {"TRACKING_HOST", "TRACKING_DATABASE", "TRACKING_ARTIFACTS"} <= settings.keys()


def test_workers_have_no_secret_but_the_token_of_ray() -> None:
    compose = load("compose.yaml")
    worker = compose["services"]["worker"]
    assert worker["secrets"] == ["ray_token"]
    assert worker["networks"] == ["ray"]
    for service in ("mlflow", "proxy", "postgres", "s3"):
        assert "ray" not in compose["services"][service]["networks"]
    (group,) = load("kuberay/ray-cluster.yaml")["spec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    assert not [volume for volume in pod["volumes"] if "secret" in volume]
    assert "env" not in pod["containers"][0]


def test_ports_agree() -> None:
    services = load("compose.yaml")["services"]
    assert f"--address=head:{option(services['head'], '--port')}" in services["worker"]["command"]
    agent = option(services["head"], "--dashboard-agent-listen-port")
    for name in ("head", "worker"):
        assert f":{agent}/" in services[name]["environment"]["MMLAB_HEALTH_URL"]
    tls = services["proxy"]["environment"]["TRACKING_TLS_PORT"]
    assert services["proxy"]["ports"][0].endswith(f":{tls}")
    assert services["head"]["environment"][URI_VARIABLE].endswith(f":{tls}")
    service = load_all("kuberay/tracking.yaml")[1]
    head = load("kuberay/ray-cluster.yaml")["spec"]["headGroupSpec"]["template"]["spec"]
    variables = {one["name"]: one["value"] for one in head["containers"][0]["env"]}
    host, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert variables[URI_VARIABLE] == f"https://{host}:{port}"
    policies = {one["metadata"]["name"]: one for one in load_all("kuberay/network-policies.yaml")}
    (rule,) = policies["tracking"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": port, "protocol": "TCP"}]


def option(service: dict[str, Any], name: str) -> str:
    """Return the value of an option of a service's command."""
    (value,) = [part.split("=")[1] for part in service["command"] if part.startswith(f"{name}=")]
    return str(value)


def test_secrets_are_created_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    """Their names are those that compose.yaml mounts."""
    (tmp_path / "docker").mkdir()
    shutil.copy(DOCKER / "secrets.sh", tmp_path / "docker")
    command = ["bash", str(tmp_path / "docker" / "secrets.sh")]
    subprocess.run(command, check=True, capture_output=True)
    folder = tmp_path / "docker" / "secrets"
    first = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stderr == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == first
    mounted = {Path(one["file"]).name for one in load("compose.yaml")["secrets"].values()}
    assert mounted == first.keys()
    for path in [folder, *folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert first["pgpass"].decode().strip() == (
        f"postgres:5432:mlflow:mlflow:{first['postgres_password'].decode().strip()}"
    )
    assert (folder / "ray" / "auth_token").read_bytes() == first["ray_token"]


def test_no_file_holds_a_password() -> None:
    for path in DOCKER.rglob("*"):
        if path.suffix in {".yaml", ".sh", ".sbatch"} or path.name == "Dockerfile":
            text = path.read_text()
            assert not re.search(r"(?i)password: *[\"']?\w", text.replace("PASSWORD_FILE", "")), (
                path
            )
            assert "latest" not in text


def test_check_passes() -> None:
    """With the tools that are installed; docker/check.sh names the others."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    done = subprocess.run(
        ["bash", str(DOCKER / "check.sh")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout
    assert "passed   lock files agree with constraints.txt" in done.stdout


def test_every_fault_in_the_table_has_its_test() -> None:
    text = (DOCKER / "README.md").read_text()
    numbers = [
        number
        for first, last in re.findall(r"^\| (\d+)(?: to (\d+))? \|.*::test_", text, re.MULTILINE)
        for number in range(int(first), int(last or first) + 1)
    ]
    assert numbers == list(range(1, 29))
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 24
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"
