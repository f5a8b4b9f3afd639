"""The README's tables: datasets and methods from the registries, numbers from finished replicates.

    python experiments/readme_tables.py           check that the README contains them
    python experiments/readme_tables.py --write   write them into the README

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pandas as pd
from result_tables import comparison

from mmlab.datasets import DATASETS
from mmlab.selectors import SELECTORS

README = Path(__file__).parents[1] / "README.md"


def dataset_table() -> str:
    """Return one row per dataset: size, number of cell types, description."""
    rows = [
        f"| `{name}` | {dataset.n_cells} x {dataset.n_genes} | {dataset.n_classes} | "
        f"{dataset.title}{'; downloaded at first use' if dataset.sources else ''} |"
        for name, dataset in DATASETS.items()
    ]
    return "\n".join(
        ["| dataset | cells x genes | types | description |", "|---|---|---|---|", *rows]
    )


def method_table() -> str:
    """Return one row per method: whether it uses labels, description, source."""
    rows = [
        f"| `{name}` | {'yes' if selector.supervised else 'no'} | {selector.summary} | "
        f"{selector.reference} |"
        for name, selector in SELECTORS.items()
    ]
    return "\n".join(
        ["| method | uses labels | description | source |", "|---|---|---|---|", *rows]
    )


def benchmark_table() -> str:
    """Return kNN accuracy and published number of every method on the three packaged datasets."""
    datasets = ("zeisel", "zeisel_subtypes", "citeseq")
    tables = {name: knn_accuracy(f"table1_3_{name}") for name in datasets}
    header = "| method |" + "".join(f" `{name}` | published |" for name in datasets)
    lines = [header, "|---|" + "---|---|" * len(datasets)]
    for method in tables["zeisel"].index:
        cells = [f"`{method}`"]
        for table in tables.values():
            if method not in table.index:
                cells += ["", ""]
                continue
            row = table.loc[method]
            published = row["published"]
            cells += [accuracy_text(row), "" if pd.isna(published) else f"{published:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def faithful_table() -> str:
    """Return kNN accuracy on zeisel of each method with and without ``faithful=true``."""
    table = knn_accuracy("faithful_zeisel")
    lines = ["| method | default | `faithful=true` | published |", "|---|---|---|---|"]
    for method in table.index[::-1]:
        if method.endswith(" (faithful)"):
            name = method.removesuffix(" (faithful)")
            default, faithful = table.loc[name], table.loc[method]
            lines.append(
                f"| `{name}` | {default['mean']:.3f} | {faithful['mean']:.3f} | "
                f"{default['published']:.3f} |"
            )
    return "\n".join(lines)


def second_seed() -> str:
    """Return a sentence with the accuracies of the methods that also have splits of seed 1."""
    parts = []
    for name in ("zeisel", "citeseq"):
        table = knn_accuracy(f"table1_3_{name}", seed=1)
        listed = ", ".join(f"`{method}` {accuracy_text(r)}" for method, r in table.iterrows())
        parts.append(f"on `{name}` {listed}")
    return f"With `--seed 1`: {'; '.join(parts)}."


def knn_accuracy(study: str, seed: int = 0) -> pd.DataFrame:
    """Return the table of kNN accuracies of a study, indexed by method."""
    table = comparison(study, seed).table
    return table[table["metric"] == "knn/accuracy"].set_index("method")


def accuracy_text(row: pd.Series) -> str:
    """Format mean ± standard deviation, bold as in the tables of results, with n below ten."""
    text = f"{row['mean']:.3f} ± {row['std']:.3f}"
    text = f"**{text}**" if row["bold"] else text
    return text if row["n"] >= 10 else f"{text} ({row['n']:.0f})"


TABLES = {
    "datasets": dataset_table,
    "methods": method_table,
    "benchmark": benchmark_table,
    "faithful": faithful_table,
    "second seed": second_seed,
}


def with_tables(text: str) -> str:
    """Return the text of the README with the tables of the current registries."""
    for name, table in TABLES.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin not in text or end not in text:
            raise SystemExit(f"{README.name} has no place for the table {name}: {begin} ... {end}")
        pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
        new = f"{begin}\n{table()}\n{end}"
        text = re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the tables into the README")
    write = parser.parse_args().write
    before = README.read_text(encoding="utf-8")
    after = with_tables(before)
    if write:
        README.write_text(after, encoding="utf-8")
    elif before != after:
        sys.exit(
            "README.md differs from the registries: python experiments/readme_tables.py --write"
        )


if __name__ == "__main__":
    main()
