"""The champion's benchmark as a study file."""

from __future__ import annotations

from pathlib import Path

import yaml

from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.constraints import constraints_key
from mmlab.spec.search import SearchSpec
from mmlab.system.files import atomic_write


def study_file(dataset: str, spec: ComparisonSpec | SearchSpec) -> str:
    """Name of the file that :func:`write_study` writes."""
    return ".".join(filter(None, [dataset, constraints_key(spec), "yaml"]))


def write_study(
    spec: ComparisonSpec, folder: Path, dataset: str, verdict: str, command: str
) -> None:
    """Write a comparison as a study file that ``mmlab run`` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    content = spec.model_dump(mode="json", exclude_defaults=True)
    lines = [
        f"# The champion of {dataset}, first of the methods, under the paper's protocol.",
        f"# {verdict}",
        f"#   {command}",
        yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
    ]
    with atomic_write(folder / study_file(dataset, spec)) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
