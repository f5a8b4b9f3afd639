"""Page of a trial in the MLflow UI: files, figures, description."""

from __future__ import annotations

import json
from pathlib import Path

from mmlab import figures
from mmlab.constraints.describe import describe_constraints, escape_markdown
from mmlab.figures.style import save_figure
from mmlab.system.words import count
from mmlab.trial.result import TrialResult


def write_result(result: TrialResult, folder: Path, draw: bool) -> None:
    """Write the files of a trial's result into ``folder``.

    They are few, because each is a request to the tracking server: ``panel.csv`` and
    ``replicates.parquet``, and tables and figures of the decoded cells, if the result has them.
    With ``draw`` also ``markers.parquet``, ``trial.json`` and the confusion matrices.
    """
    result.panel.to_csv(folder / "panel.csv", index=False)
    result.replicates.to_parquet(folder / "replicates.parquet", index=False)
    figures_folder = folder / "figures"
    if draw or len(result.variances):
        figures_folder.mkdir()
    title = f"{result.spec.selector} on {result.spec.data.title}"
    if len(result.variances):
        result.variances.to_parquet(folder / "gene_variances.parquet", index=False)
        result.components.to_parquet(folder / "principal_components.parquet", index=False)
        figure = figures.variances(result.variances, title)
        save_figure(figure, figures_folder / "gene_variances.png")
        figure = figures.principal_components(result.components, result.classes, title)
        save_figure(figure, figures_folder / "principal_components.png")
    if draw:
        _draw_confusion(result, figures_folder, title)
        result.panel.to_parquet(folder / "markers.parquet", index=False)
        content = {
            "digest": result.digest,
            "fingerprint": result.fingerprint,
            "spec": result.spec.model_dump(mode="json"),
        }
        (folder / "trial.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _draw_confusion(result: TrialResult, folder: Path, title: str) -> None:
    cells = "validation" if result.spec.protocol == "search" else "test"
    for name, counts in result.confusion.items():
        figure = figures.confusion_matrix(
            counts, result.classes, f"{title}: {name.replace('_', ' ')}, {cells} cells"
        )
        save_figure(figure, folder / f"confusion_{name}.png")


def describe_trial(result: TrialResult) -> str:
    """Return the description of a trial's page as Markdown: metrics, constraints, first genes."""
    spec = result.spec
    evaluated_on = (
        "the validation cells (the held-out test set was not used)"
        if spec.protocol == "search"
        else "the test cells"
    )
    prefix = "validation/" if spec.protocol == "search" else ""
    rows = [
        f"| {name} | {result.metrics[prefix + name]:.4f} |"
        for name in ("knn/accuracy", "random_forest/accuracy", "knn/weighted_f1", "linear/l2")
    ]
    genes = ", ".join(map(escape_markdown, result.panel["gene"].head(10)))
    constraints = describe_constraints(spec, escape_markdown)
    return "\n".join(
        [
            f"**{spec.n_markers} markers for {spec.data.title}, chosen by {spec.selector}.**",
            "",
            *([f"{' '.join(constraints)}\n"] if constraints else []),
            f"Means over {count(spec.replicates, 'replicate')}, evaluated on {evaluated_on}:",
            "",
            "| metric | mean |",
            "|---|---|",
            *rows,
            "",
            f"First markers: {genes} (all in `panel.csv`).",
        ]
    )
