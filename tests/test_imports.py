"""Imports go one way, heavy libraries have one door each, and help is quick."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmlab

PACKAGE = Path(mmlab.__file__).parent

#: A module may import from its own tier and from those above it in this list.
TIERS = [
    {"errors", "system"},
    {"spec"},
    {"datasets"},
    {"metrics", "preprocessing"},
    {"figures"},
    {"constraints"},
    {"nn"},
    {"selectors"},
    {"model", "trial"},
    {"comparison"},
    {"tracking"},
    {"schedule"},
    {"champion", "report"},
    {"__init__", "__main__", "api", "cli"},
]
#: The only modules that may import a library.
DOORS = {"mlflow": "tracking", "ray": "schedule", "optuna": "schedule"}
#: Modules in which one line adds a method or a dataset: they import it by its name.
REGISTRIES = {"selectors/__init__.py", "datasets/__init__.py"}
#: What a command line that only prints its help must not wait for.
HEAVY = ("torch", "ray", "mlflow", "optuna", "scanpy")

SOURCES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def component(path: Path) -> str:
    """First part of the module's name below mmlab: a module's file or a package's folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tier(name: str) -> int:
    for level, names in enumerate(TIERS):
        if name in names:
            return level
    raise AssertionError(f"mmlab.{name} has no tier: give it one in {Path(__file__).name}")


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Full names of what a file imports, anywhere in it, with the line."""
    package = ["mmlab", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


every_source = pytest.mark.parametrize("path", SOURCES, ids=name_of)


def test_the_sources_are_found() -> None:
    components = {component(path) for path in SOURCES}
    assert {"spec", "datasets", "selectors", "trial", "nn"} <= components
    names = {name for path in SOURCES for name, _ in imported(path)}
    assert "mmlab.errors.UserError" in names


def test_no_module_has_two_tiers() -> None:
    assert sum(len(names) for names in TIERS) == len(set().union(*TIERS))


@every_source
def test_imports_go_one_way(path: Path) -> None:
    own = tier(component(path))
    for name, line in imported(path):
        parts = name.split(".")
        if parts[0] != "mmlab" or len(parts) == 1 or name == "mmlab.__version__":
            continue
        if parts[1] in mmlab.__all__:
            parts[1] = "__init__"
        assert tier(parts[1]) <= own, f"{name_of(path)}:{line} imports {name}"


@every_source
def test_below_the_top_no_module_uses_the_public_interface(path: Path) -> None:
    if tier(component(path)) == len(TIERS) - 1:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            public = node.value.id == "mmlab" and not node.attr.startswith("__")
            assert not public, f"{name_of(path)}:{node.lineno} uses mmlab.{node.attr}"


@every_source
@pytest.mark.parametrize("library", sorted(DOORS))
def test_a_library_has_one_door(path: Path, library: str) -> None:
    if component(path) == DOORS[library]:
        return
    for name, line in imported(path):
        assert name.split(".")[0] != library, f"{name_of(path)}:{line} imports {name}"


@every_source
def test_only_registries_import_modules_by_their_names(path: Path) -> None:
    if name_of(path) in REGISTRIES:
        return
    for name, line in imported(path):
        assert name not in ("importlib.import_module", "importlib"), f"{name_of(path)}:{line}"


def loaded_by(statement: str) -> set[str]:
    """The heavy libraries that a fresh process has loaded after a statement."""
    report = f"import json, sys; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    answer = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{report}"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(answer.stdout))


def test_a_heavy_library_is_seen_when_it_is_loaded() -> None:
    assert loaded_by("import optuna") == {"optuna"}


@pytest.mark.parametrize("module", ["mmlab", "mmlab.cli", "mmlab.spec.trial", "mmlab.errors"])
def test_importing_is_light(module: str) -> None:
    assert loaded_by(f"import {module}") == set()


def test_the_registries_are_light() -> None:
    """Names, parameters and descriptions are listed without the libraries that do the work."""
    assert loaded_by("from mmlab.selectors import SELECTORS") == set()
    assert loaded_by("from mmlab.datasets import DATASETS") == set()
