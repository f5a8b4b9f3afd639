"""Compare candidates for the default of each hyperparameter, on cells that no table tests on.

    python experiments/choose_defaults.py --dataset pbmc68k_reduced

The dataset must not be one of the benchmark tables, whose random splits of all cells make almost
every cell a test cell. Candidates change one hyperparameter each. They are trained on the same
splits of the protocol ``search`` and evaluated on the validation cells; each is compared with the
default by the corrected resampled t-test. Writes ``defaults_<dataset>.parquet`` (one row per
candidate and replicate) and ``.md`` into experiments/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from mmlab.comparison.paired_tests import corrected_resampled_t_test
from mmlab.comparison.shown_table import ShownTable, markdown
from mmlab.datasets import load_cells
from mmlab.preprocessing.splits import replicate_split
from mmlab.spec.base import Scalar, canonical_json
from mmlab.spec.trial import DataSpec, TrialSpec
from mmlab.trial.run import run_trial

RESULTS = Path(__file__).parent / "results"
TABLE_DATASETS = ("zeisel", "zeisel_subtypes", "citeseq")
METRICS = ("knn/accuracy", "knn/balanced_accuracy")

_MARKERMAP: dict[str, list[Scalar]] = {
    "learning_rate": [1e-4, 1e-3],
    "max_epochs": [30, 120],
    "batch_size": [32, 128],
    "hidden_size": [64, 500],
    "initial_temperature": [1.0, 10.0],
    "final_temperature": [0.2, 1.5],
    "beta": [0.9, 0.98],
}
#: Values to compare with the default, by selector and hyperparameter.
CANDIDATES: dict[str, dict[str, list[Scalar]]] = {
    "markermap_supervised": _MARKERMAP,
    "markermap_joint": _MARKERMAP,
    "markermap_unsupervised": _MARKERMAP,
    "global_gumbel_vae": {"learning_rate": [1e-3, 1e-2], "final_temperature": [0.05, 0.6]},
    "lassonet": {
        "path_multiplier": [1.02, 1.2],
        "path_epochs": [10, 50],
        "path_learning_rate": [3e-3, 3e-2],
        "M": [1.0, 100.0],
    },
}


def candidate_params(selector: str) -> list[dict[str, Scalar]]:
    """Return the default (no parameters), then one candidate per value of CANDIDATES."""
    values = CANDIDATES[selector].items()
    params: list[dict[str, Scalar]] = [{name: value} for name, tried in values for value in tried]
    for candidate in params:
        # A training never stops early by default: min_epochs follows max_epochs.
        if "max_epochs" in candidate:
            candidate["min_epochs"] = candidate["max_epochs"]
    return [{}, *params]


def evaluate(spec: TrialSpec) -> pd.DataFrame:
    """Run a trial and return one row per replicate: identity, then METRICS on validation cells."""
    rows = run_trial(spec).replicates
    identity = {"selector": spec.selector, "candidate": canonical_json(spec.params)}
    metrics = {name: rows[f"validation/{name}"] for name in METRICS}
    return pd.DataFrame({"replicate": rows["replicate"], "seed": spec.seed, **identity, **metrics})


def summarise(rows: pd.DataFrame, test_share: float) -> pd.DataFrame:
    """Return one row per candidate: means, and difference and p against the default (``{}``)."""
    records = []
    for (selector, candidate), group in rows.groupby(["selector", "candidate"], sort=False):
        default = rows[(rows["selector"] == selector) & (rows["candidate"] == "{}")]
        record: dict[str, Any] = {"selector": selector, "candidate": candidate, "n": len(group)}
        for metric in METRICS:
            difference = group[metric].to_numpy() - default[metric].to_numpy()
            record[metric] = group[metric].mean()
            record[f"{metric} difference"] = difference.mean()
            record[f"{metric} p"] = corrected_resampled_t_test(difference, test_share)[1]
        records.append(record)
    return pd.DataFrame(records)


def document(rows: pd.DataFrame, dataset: str) -> str:
    """Return the comparison as a Markdown table; differences with p < 0.05 have a star."""
    spec = TrialSpec(data=DataSpec(name=dataset), selector=rows["selector"][0], protocol="search")
    split = replicate_split(spec, load_cells(spec.data), 0)
    summary = summarise(rows, len(split.validation) / len(split.train))
    header = ["method", "candidate", "n"]
    header += [f"{metric} (difference to the default)" for metric in METRICS]
    lines = []
    for row in summary.to_dict(orient="records"):
        name = "default" if row["candidate"] == "{}" else f"`{row['candidate'].strip('{}')}`"
        cells = [row["selector"], name, str(row["n"])]
        for metric in METRICS:
            star = " *" if row[f"{metric} p"] < 0.05 else ""
            difference = "" if name == "default" else f" ({row[f'{metric} difference']:+.3f}{star})"
            cells.append(f"{row[metric]:.3f}{difference}")
        lines.append(cells)
    return markdown([ShownTable(f"Defaults on {dataset}, validation cells", header, lines)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="pbmc68k_reduced")
    parser.add_argument("--methods", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--n-markers", type=int, default=50)
    parser.add_argument("--replicates", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.dataset in TABLE_DATASETS:
        parser.error(
            f"{options.dataset} is a dataset of the tables: its cells are test cells there"
        )
    console, parts = Console(stderr=True), []
    base = TrialSpec(
        data=DataSpec(name=options.dataset),
        selector=options.methods[0],
        n_markers=options.n_markers,
        protocol="search",
        replicates=options.replicates,
        seed=options.seed,
    )
    for selector in options.methods:
        for params in candidate_params(selector):
            parts.append(evaluate(base.model_copy(update={"selector": selector, "params": params})))
            mean = parts[-1][METRICS[0]].mean()
            console.print(f"{selector} {canonical_json(params)}: {mean:.3f}", highlight=False)
    rows = pd.concat(parts, ignore_index=True)
    stem = options.folder / f"defaults_{options.dataset}"
    rows.to_parquet(stem.with_suffix(".parquet"), index=False)
    text = document(rows, options.dataset)
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
