"""What is shipped: the wheel holds the data and the search spaces, and the two fit together."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from itertools import chain
from pathlib import Path

import pytest
import yaml

from mmlab.datasets import DATASETS
from mmlab.selectors import SELECTORS, resolve_params
from mmlab.spec.search import SearchSpace
from mmlab.spec.yaml import read_spec

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_wheel_holds_data_and_search_spaces(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for data in ("zeisel", "citeseq", "baron_pancreas"):
        assert f"mmlab/datasets/data/{data}.h5ad" in names
    assert "mmlab/py.typed" in names
    for space in (ROOT / "tune_configs").glob("*.yaml"):
        assert f"mmlab/tune_configs/{space.name}" in names


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tune_configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_search_spaces_are_valid(path: Path) -> None:
    space = read_spec(path, SearchSpace)
    assert path.name.split(".")[0] == space.selector
    assert SELECTORS[space.selector].trains_in_epochs
    for point in space.boundary_points():
        resolve_params(space.selector, space.fixed | point)


def test_every_method_with_epochs_has_a_search_space() -> None:
    shipped = {path.stem for path in (ROOT / "tune_configs").glob("*.yaml")}
    assert {name for name, s in SELECTORS.items() if s.trains_in_epochs} <= shipped


def test_constraints_pin_every_direct_dependency() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {requirement.split("[")[0].split(">")[0].split("<")[0] for requirement in wanted}
    assert {name.lower() for name in names} - {"mmlab"} <= pinned


@pytest.mark.parametrize("script", ["result_tables.py", "readme_tables.py"])
def test_tables_are_those_of_the_registries_and_the_finished_replicates(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    text = (ROOT / "README.md").read_text()
    for name in (*DATASETS, *SELECTORS):
        assert f"| `{name}` |" in text


def test_architecture_names_what_exists() -> None:
    """Every `package/module.py: name` and every package of ARCHITECTURE.md is in the code."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`(?:mmlab/)?([a-z_/]+\.py): ([A-Za-z_.]+)`", text)
    assert len(named) > 15
    for path, name in named:
        source = next(iter((ROOT / "mmlab").glob(f"**/{path}"))).read_text()
        for part in name.split("."):
            assert re.search(rf"\b{part}\b", source), f"{path} has no {part}"
    packages = {path.parent.name for path in (ROOT / "mmlab").glob("*/__init__.py")}
    table = re.findall(r"^\| \d+ \| (.*?) \|", text, flags=re.MULTILINE)
    assert packages == set(re.findall(r"`([a-z]+)`", " ".join(table)))


def test_search_spaces_are_plain_yaml() -> None:
    for path in (ROOT / "tune_configs").glob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)
