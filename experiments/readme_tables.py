"""The README's tables of datasets and methods, from the registries.

    python experiments/readme_tables.py           check that the README contains them
    python experiments/readme_tables.py --write   write them into the README

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

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


TABLES = {"datasets": dataset_table, "methods": method_table}


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
