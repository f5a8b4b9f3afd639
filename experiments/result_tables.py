"""The tables of experiments/results, computed from the finished replicates that lie beside them.

    python experiments/result_tables.py           check that the files are up to date
    python experiments/result_tables.py --write   write the files that are not

Every study writes a Markdown file and its paired tests as CSV, a robustness study also its curves.
A table contains the replicates that are finished: their number is in the column ``n``.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import choose_defaults
import pandas as pd
import table4_measures

from mmlab.cli.comparison_output import curves_output, tables_output
from mmlab.comparison.curves import curve_figures
from mmlab.comparison.result_table import ResultFile
from mmlab.comparison.tables import ComparisonTables, compare_methods
from mmlab.datasets import load_cells
from mmlab.figures.style import save_figure
from mmlab.schedule.comparison_plan import ComparisonResult, plan_trials, tabulate
from mmlab.selectors import control_methods
from mmlab.spec.comparison import ComparisonSpec
from mmlab.spec.yaml import read_spec

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
#: File of finished replicates, by study file.
STUDIES = {
    "table1_3_zeisel": "zeisel",
    "table1_3_zeisel_subtypes": "zeisel_subtypes",
    "table1_3_citeseq": "citeseq",
    "faithful_zeisel": "zeisel",
    "robustness_zeisel": "robustness_zeisel",
    "robustness_citeseq": "robustness_citeseq",
}

#: How the rows of table 4 were computed; the file of rows does not record it.
TABLE4_MADE_BY = (
    "`python experiments/table4_scvi.py --datasets zeisel citeseq --splits 3 --seed 0 "
    "--n-markers 50 --epochs 200 --threads 1` with scvi-tools 1.4.2; scVI had 200 epochs, its own "
    "choice is 400 up to 20000 cells"
)


@cache
def finished(study: str, seed: int = 0) -> ComparisonResult:
    """Return the finished replicates of a study, with another seed if one is given."""
    spec = read_spec(FOLDER / f"{study}.yaml", ComparisonSpec).model_copy(update={"seed": seed})
    cells, path = load_cells(spec.data), RESULTS / f"{STUDIES[study]}.parquet"
    trials = plan_trials(spec, cells)
    tables = tabulate(spec, trials, ResultFile.read(path).by_digest, cells)
    only_spec: Any = SimpleNamespace(spec=spec)
    return ComparisonResult(only_spec, trials, *tables, failed={}, unsent=0)


def comparison(study: str, seed: int = 0) -> ComparisonTables:
    """Return means and paired tests of a study."""
    result = finished(study, seed)
    return compare_methods(result.replicates, result.summary, control_methods())


def study_files(study: str) -> dict[Path, str]:
    """Return the content of the files of a study, by path."""
    result = finished(study)
    output = (tables_output if result.study.spec.study == "benchmark" else curves_output)(result)
    tests = pd.DataFrame(output.json["tests"])
    stem = STUDIES[study] if study.startswith("table") else study
    rows = f"experiments/results/{STUDIES[study]}.parquet"
    made = f"Made by `mmlab run experiments/{study}.yaml --rows {rows}`.\n"
    return {
        RESULTS / f"{stem}.md": f"{output.text}\n{made}",
        RESULTS / f"{stem}_tests.csv": tests.to_csv(index=False, float_format="%.6g"),
    }


def draw_curves(study: str) -> None:
    """Draw the curves of a study over its settings, beside its files."""
    result = finished(study)
    for name, figure in curve_figures(result.study.spec, result.summary).items():
        save_figure(figure, RESULTS / f"{STUDIES[study]}_{name.removeprefix('curves_')}.png")


def table4_files() -> dict[Path, str]:
    """Return the content of the file of table 4, by path."""
    rows = pd.read_parquet(RESULTS / "table4.parquet")
    return {RESULTS / "table4.md": table4_measures.markdown(rows, TABLE4_MADE_BY)}


def defaults_files() -> dict[Path, str]:
    """Return the content of the comparisons of defaults, by path."""
    paths = RESULTS.glob("defaults_*.parquet")
    return {
        path.with_suffix(".md"): choose_defaults.document(
            pd.read_parquet(path), path.stem.removeprefix("defaults_")
        )
        for path in paths
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the files")
    write = parser.parse_args().write
    contents = {path: text for study in STUDIES for path, text in study_files(study).items()}
    contents |= table4_files() | defaults_files()
    stale = [
        path
        for path, text in contents.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale if write else ():
        path.write_text(contents[path], encoding="utf-8")
        if path.stem in STUDIES and path.stem.startswith("robustness"):
            draw_curves(path.stem)
    names = ", ".join(path.name for path in stale)
    if stale and not write:
        sys.exit(f"{names}: not up to date; run python experiments/result_tables.py --write")
    print(f"written: {names}" if stale else "all tables are up to date")


if __name__ == "__main__":
    main()
