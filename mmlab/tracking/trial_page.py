"""The page of a trial in the MLflow UI: its files, its figures, its summary."""

from __future__ import annotations

import json
from pathlib import Path

from mmlab import figures
from mmlab.constraints.describe import describe_constraints, escape_markdown
from mmlab.trial.result import TrialResult


def write_result(result: TrialResult, folder: Path, draw: bool) -> None:
    """Write the files of a trial's result into ``folder``, with figures or without."""
    result.panel.to_parquet(folder / "markers.parquet", index=False)
    result.panel.to_csv(folder / "panel.csv", index=False)
    result.replicates.to_parquet(folder / "replicates.parquet", index=False)
    content = {
        "digest": result.digest,
        "fingerprint": result.fingerprint,
        "spec": result.spec.model_dump(mode="json"),
    }
    (folder / "trial.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    pictures = folder / "figures"
    if draw or len(result.variances):
        pictures.mkdir()
    title = f"{result.spec.selector} on {result.spec.data.title}"
    if len(result.variances):
        result.variances.to_parquet(folder / "gene_variances.parquet", index=False)
        result.components.to_parquet(folder / "principal_components.parquet", index=False)
        figure = figures.variances(result.variances, title)
        figure.savefig(pictures / "gene_variances.png")
        figure = figures.principal_components(result.components, result.classes, title)
        figure.savefig(pictures / "principal_components.png")
    if draw:
        _draw_confusion(result, pictures, title)


def _draw_confusion(result: TrialResult, pictures: Path, title: str) -> None:
    cells = "validation" if result.spec.protocol == "search" else "test"
    for name, counts in result.confusion.items():
        figure = figures.confusion_matrix(
            counts, result.classes, f"{title}: {name.replace('_', ' ')}, {cells} cells"
        )
        figure.savefig(pictures / f"confusion_{name}.png")


def describe_trial(result: TrialResult) -> str:
    """What a reader of the run's page should know first, as Markdown."""
    spec = result.spec
    seen = (
        "validation cells (the locked test cells were not touched)"
        if spec.protocol == "search"
        else "test cells"
    )
    prefix = "validation/" if spec.protocol == "search" else ""
    rows = [
        f"| {name} | {result.metrics[prefix + name]:.4f} |"
        for name in ("knn/accuracy", "random_forest/accuracy", "knn/weighted_f1", "linear/l2")
    ]
    genes = ", ".join(map(escape_markdown, result.panel["gene"].head(10)))
    sentences = describe_constraints(spec, escape_markdown)
    return "\n".join(
        [
            f"**{spec.n_markers} markers for {spec.data.title}, chosen by {spec.selector}.**",
            "",
            *([f"{' '.join(sentences)}\n"] if sentences else []),
            f"Means over {spec.replicates} replicate(s), measured on {seen}:",
            "",
            "| metric | mean |",
            "|---|---|",
            *rows,
            "",
            f"First markers: {genes} (all in `panel.csv`).",
        ]
    )
