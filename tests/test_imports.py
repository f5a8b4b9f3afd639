"""The layout: imports go one way, modules are small, heavy libraries are imported late."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mmlab

PACKAGE = Path(mmlab.__file__).parent

#: The floors, lowest first: a module imports from its own floor and from those below it.
FLOORS = [
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
#: The only package that may import a library.
IMPORTERS = {"mlflow": "tracking", "ray": "schedule", "optuna": "schedule"}
#: Modules in which one line adds a method or a dataset: they import it by its name.
REGISTRIES = {"selectors/__init__.py", "datasets/__init__.py"}
#: Libraries that must not be imported only to print help.
HEAVY = ("torch", "ray", "mlflow", "optuna", "scanpy")

SOURCES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def component(path: Path) -> str:
    """First part of the module's name below mmlab: a module's file or a package's folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    for level, names in enumerate(FLOORS):
        if name in names:
            return level
    raise AssertionError(f"mmlab.{name} has no floor: add it to FLOORS in {Path(__file__).name}")


def module_name(path: Path) -> str:
    return ".".join(["mmlab", *path.relative_to(PACKAGE).with_suffix("").parts])


def imported(path: Path, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """Full names of what a file imports, with the line; anywhere in it or at its top."""
    package = ["mmlab", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
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


def test_no_package_is_on_two_floors() -> None:
    assert sum(len(names) for names in FLOORS) == len(set().union(*FLOORS))


@every_source
def test_no_module_is_longer_than_260_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 260


def test_every_module_is_in_a_package() -> None:
    loose = {path.name for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py", "api.py", "errors.py"}


def test_no_modules_import_each_other() -> None:
    """Imports at the top of modules have no cycle, also inside a package."""
    modules = {module_name(path): path for path in SOURCES if path.name != "__init__.py"}
    graph = {
        name: {
            target
            for target, _ in imported(path, top_level=True)
            for target in (target, target.rpartition(".")[0])
            if target in modules and target != name
        }
        for name, path in modules.items()
    }
    list(TopologicalSorter(graph).static_order())


@every_source
def test_imports_go_one_way(path: Path) -> None:
    own = floor(component(path))
    for name, line in imported(path):
        parts = name.split(".")
        if parts[0] != "mmlab" or len(parts) == 1 or name == "mmlab.__version__":
            continue
        if parts[1] in mmlab.__all__:
            parts[1] = "__init__"
        assert floor(parts[1]) <= own, f"{name_of(path)}:{line} imports {name}"


@every_source
def test_below_the_top_no_module_uses_the_public_interface(path: Path) -> None:
    if floor(component(path)) == len(FLOORS) - 1:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            public = node.value.id == "mmlab" and not node.attr.startswith("__")
            assert not public, f"{name_of(path)}:{node.lineno} uses mmlab.{node.attr}"


@every_source
@pytest.mark.parametrize("library", sorted(IMPORTERS))
def test_a_library_is_imported_by_one_package(path: Path, library: str) -> None:
    if component(path) == IMPORTERS[library]:
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


def test_a_worker_loads_only_what_its_trials_need() -> None:
    assert loaded_by("import mmlab.schedule.actor") == {"ray", "torch"}


def test_the_registries_are_light() -> None:
    """Names, parameters and descriptions are listed without the libraries that do the work."""
    assert loaded_by("from mmlab.selectors import SELECTORS") == set()
    assert loaded_by("from mmlab.datasets import DATASETS") == set()
