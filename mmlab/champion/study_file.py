"""Study file with the benchmark of a champion."""

from __future__ import annotations

from pathlib import Path

import yaml

from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.constraints import constraints_key
from mmlab.spec.search import SearchSpec
from mmlab.system.files import atomic_write, remove_leftovers


def study_file(dataset: str, spec: ComparisonSpec | SearchSpec) -> str:
    """Return the file name that :func:`write_study` uses.

    It is ``<dataset>.yaml``, or ``<dataset>.<key>.yaml`` with the key of the panel constraints.
    """
    return ".".join(filter(None, [dataset, constraints_key(spec), "yaml"]))


def write_study(
    spec: ComparisonSpec, folder: Path, dataset: str, verdict: str, command: str
) -> None:
    """Write a comparison as a YAML study file for ``mmlab run``.

    Parameters
    ----------
    spec
        Its first method is the champion.
    folder
        Created if it does not exist.
    verdict, command
        Comments at the top of the file: why it is the champion, and the command of the promotion.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = spec.model_dump(mode="json", exclude_defaults=True)
    lines = [
        f"# Benchmark of the champion of {dataset}, the first of the methods, on random splits of "
        "all cells.",
        *(f"# {line}" for line in verdict.splitlines()),
        f"#   {command}",
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
    ]
    path = folder / study_file(dataset, spec)
    remove_leftovers(path)
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
