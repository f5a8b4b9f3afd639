"""What panels have to hold, from files and options, through the command line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from commands import call, mistake
from tiny import simulate_cells

from mmlab.cli import app
from mmlab.cli.file_options import file_options
from mmlab.cli.gene_files import read_genes, read_table, to_weight
from mmlab.cli.shared_options import data_options
from mmlab.cli.tune import search_spec
from mmlab.errors import UserError
from mmlab.spec.search import SearchSpec
from mmlab.spec.trial import TrialSpec
from mmlab.tracking import TrackingStore
from mmlab.tracking.spec_tags import spec_json, spec_tags

COMMANDS = ("select", "benchmark", "robustness", "sweep", "tune")
OPTIONS = (
    *("--include", "--exclude", "--groups", "--max-per-group"),
    *("--max-mean-counts", "--min-per-type", "--weights"),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with tiny cells and files of constraints."""
    monkeypatch.chdir(tmp_path)
    simulate_cells().write_h5ad(tmp_path / "cells.h5ad")
    (tmp_path / "must.txt").write_text("# the lab's own\n\nGene39\nGene0  # always\n")
    groups = "".join(f"Gene{i},family {i % 4}\n" for i in range(36))
    (tmp_path / "groups.csv").write_text(f"gene,group\n{groups}")
    (tmp_path / "weights.csv").write_text("gene,weight,why\nGene3,0,patent\nGene17,2.5,\n")
    return tmp_path


CELLS = ["--data", "cells.h5ad", "--label-key", "cell_type"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_runs_trials_has_the_options(name: str) -> None:
    command: Any = typer.main.get_command(app)
    have = {option for parameter in command.commands[name].params for option in parameter.opts}
    assert set(OPTIONS) <= have
    assert "--panel" not in have


def test_select_satisfies_and_records_the_constraints(folder: Path) -> None:
    requested = ["--include", "must.txt", "--exclude", "Gene31", "--groups", "groups.csv"]
    requested += ["--max-per-group", "2", "--max-mean-counts", "6.5", "--min-per-type", "2"]
    requested += ["--weights", "weights.csv"]
    options = ["-k", "9", "--method", "scanpy_t_test", "--json", "-o", "panel.csv"]
    result = call("select", *CELLS, *options, *requested)
    assert result.exit_code == 0, result.output
    genes = pd.read_csv(folder / "panel.csv")["gene"].tolist()
    assert genes[:2] == ["Gene39", "Gene0"]
    assert not {"Gene3", "Gene31"} & set(genes)
    families = [int(gene[4:]) % 4 for gene in genes if int(gene[4:]) < 36]
    assert max(map(families.count, families)) <= 2
    store = TrackingStore()
    run = store.client.get_run(json.loads(result.stdout)["run_id"])
    assert run.data.params["max_per_group"] == "2"
    assert run.data.params["weights"] == "Gene3: 0.0, Gene17: 2.5"
    assert "At least 2 marker genes per cell type." in run.data.tags["mlflow.note.content"]
    spec = TrialSpec.model_validate_json(spec_json(run.data.tags))
    assert spec.include == ["Gene39", "Gene0"]
    assert spec.constraints.groups["Gene5"] == "family 1"
    assert spec.constraints.weights == {"Gene3": 0, "Gene17": 2.5}
    assert "groups.csv" not in spec.model_dump_json()


def test_constraints_that_no_panel_satisfies_leave_no_run(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    options = ["-k", "30", "--method", "random"]
    message = mistake("select", *CELLS, *options, "--min-per-type", "10")
    assert "min_per_type 10: too few marker genes of 'astrocyte' (8)" in message
    message = mistake("select", *CELLS, "--groups", "groups.csv", "-k", "5")
    assert message == "--groups and --max-per-group go together: give both, or neither."
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_constrained_comparison_of_all_methods_leaves_out_all_genes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[Any] = []
    for command in ("benchmark", "robustness", "sweep"):
        monkeypatch.setattr(
            f"mmlab.cli.{command}.run_and_print", lambda spec, *_: requested.append(spec)
        )
    for more in ([], ["--include", "Gene0"], ["--exclude", "Gene0"], ["--min-per-type", "1"]):
        assert call("benchmark", *CELLS, "-k", "5", *more).exit_code == 0
    all_genes = ["all_genes" in [m.selector for m in spec.methods] for spec in requested]
    assert all_genes == [True, True, False, False]
    assert requested[3].constraints.min_per_type == 1
    for command in (["robustness"], ["sweep", "n_markers=5,6"]):
        assert call(*command, *CELLS, "--max-mean-counts", "5").exit_code == 0
        assert requested[-1].constraints.max_mean_counts == 5


def test_a_search_records_its_constraints_and_resuming_takes_them_from_the_study(
    folder: Path,
) -> None:
    given: dict[str, Any] = asdict(data_options("toy_xor", file_fields=file_options()))
    given |= dict.fromkeys(("method", "search", "n_markers", "replicates", "seed"))
    given |= {"quick": None, "epochs": None}
    given |= {"include": ["gene_1"], "exclude": [], "constraints": {"min_per_type": 2}}
    study = search_spec(given, 3, with_baselines=False)
    assert isinstance(study, SearchSpec)
    trial = study.trial("markermap_supervised", {})
    assert (trial.include, trial.constraints.min_per_type) == (["gene_1"], 2)
    message = mistake("tune", "--resume", "x", "--weights", "weights.csv", "--include", "Gene0")
    assert "leave out --include, --weights" in message


def test_a_search_with_impossible_constraints_is_refused_before_it_begins(folder: Path) -> None:
    options = ["-k", "30", "--trials", "2", "--min-per-type", "10"]
    assert "min_per_type 10: too few marker genes" in mistake("tune", *CELLS, *options)
    assert not (folder / "mlflow.db").exists()


# --- files


@pytest.mark.parametrize("text", ["A, B ,,C", "list.txt", "@list.txt", "plain"])
def test_genes_come_from_the_option_or_from_a_file(text: str, folder: Path) -> None:
    for name in ("list.txt", "plain"):
        (folder / name).write_bytes(b"\xef\xbb\xbfA\r\n#B\r\n\r\n B \t# second\r\nC\r\n")
    assert read_genes("--include", text) == ["A", "B", "C"]


@pytest.mark.parametrize(
    "text",
    [
        "gene\nINS\nGCG\n",
        "# from a paper\nGene Symbol\n\nINS\nGCG # alpha cells\n",
        '"symbol"\n"INS"\n"GCG"\n',
        '"INS"\n"GCG"\n',
        "rank,gene,gene_index,score\n1,INS,7,2.5\n2,GCG,3,1.5\n",
        "rank,gene_id,score,gene\n1,ENSG1,2.5,INS\n2,ENSG2,1.5,GCG\n",
        ",Symbol,type\n0,INS,beta\n1,GCG,alpha\n",
        "\tfeature_name\n0\tINS\n1\tGCG\n",
        "name;note\nINS;a\nGCG;b\n",
    ],
)
def test_headers_of_lists_and_panels_are_understood(text: str, folder: Path) -> None:
    (folder / "must.csv").write_text(text)
    assert read_genes("--include", "must.csv") == ["INS", "GCG"]


def test_lists_without_a_header_keep_their_lines(folder: Path) -> None:
    names = ["0610007C21Rik;Apr3", "gene_0", "A,B", "Symbol1"]
    (folder / "list.txt").write_text("\n".join(names))
    assert read_genes("--include", "list.txt") == names


@pytest.mark.parametrize("text", ["", ",", " , ", "@/dev/null", "empty.txt", "header.csv"])
def test_a_list_of_no_gene_is_refused(text: str, folder: Path) -> None:
    """A variable of the shell is empty: without constraints, the panel would not be the wanted."""
    (folder / "empty.txt").write_text("\n# nothing\n")
    (folder / "header.csv").write_text("gene,score\n")
    for option in ("--include", "--exclude"):
        with pytest.raises(UserError) as caught:
            read_genes(option, text)
        assert str(caught.value).startswith(f"{option} {text!r} names no gene. ")
    assert "names no gene" in mistake("select", "--dataset", "pbmc68k_reduced", "--include", text)


def test_genes_may_have_strange_names_and_be_many() -> None:
    assert read_genes("--include", "A#1,B/C,x.txt") == ["A#1", "B/C", "x.txt"]
    many = [f"ENSG{i:011d}" for i in range(5000)]
    assert read_genes("--include", ",".join(many)) == many


@pytest.mark.parametrize("text", ["missing.txt", "@missing", "folder/genes.tsv", "missing.CSV"])
def test_a_missing_file_is_not_taken_for_a_gene(text: str, folder: Path) -> None:
    with pytest.raises(UserError, match=r"--include: cannot read .*: No such file"):
        read_genes("--include", text)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_by_the_names_of_its_columns(separator: str, folder: Path) -> None:
    rows = [["Weight", "note", " Gene "], ["2", "x", "A"], ["# no", "", ""], ["0", "", ' "B"']]
    text = "# made by hand\r\n\r\n" + "\r\n".join(map(separator.join, rows))
    (folder / "table").write_bytes(b"\xef\xbb\xbf" + text.replace(' "B"', '"B"').encode())
    assert read_table("--weights", Path("table"), "weight", to_weight) == {"A": 2, "B": 0}


def test_all_mistakes_of_a_table_are_reported_together(folder: Path) -> None:
    lines = ["gene,weight", "A,1", "B,heavy", ",2", "A,3", "C,-1", "D,nan", "E,inf", "F", "G,1e9"]
    (folder / "bad.csv").write_text("\n".join(lines))
    message = mistake("select", *CELLS, "--weights", "bad.csv")
    assert message == (
        "--weights bad.csv: line 3: the weight 'heavy' is not a number; line 4: no gene is named; "
        "line 6: a weight must be 0 (excludes the gene) or between 0.001 and 1000, got -1; "
        "line 7: the weight 'nan' is not a finite number; "
        "line 8: the weight 'inf' is not a finite number; "
        "line 9: the weight '' is not a number; "
        "line 10: a weight must be 0 (excludes the gene) or between 0.001 and 1000, got 1e+09; "
        "named twice: A."
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; give the columns gene and group."),
        (b"name,family\nA,x\n", "has no column gene and no column group; it has name, family."),
        (b"gene,family\nA,x\n", "has no column group; it has gene, family."),
        (b"gene,group\nA,\nB\n", "line 2: the group is empty; line 3: the group is empty."),
        ("gene,group\nA,\u00e9\n".encode("latin-1"), "is not plain text in UTF-8"),
        ("gene,group\nA,x\n".encode("utf-16"), "is not plain text in UTF-8"),
        (b"gene,group\nA," + b"x" * 200000, "cannot be read as a CSV table: field larger"),
        (None, "cannot read groups.csv: No such file or directory."),
    ],
)
def test_an_unusable_table_is_refused_with_the_reason(
    content: bytes | None, message: str, folder: Path
) -> None:
    path = folder / "groups.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    options = [*CELLS, "--groups", "groups.csv", "--max-per-group", "1"]
    assert message in mistake("select", *options)
    assert not (folder / "mlflow.db").exists()


def test_a_specification_of_any_length_survives_its_tags() -> None:
    content: dict[str, Any] = {"data": {"name": "zeisel"}, "selector": "random"}
    short = TrialSpec.model_validate(content)
    groups = {f"ENSG{i:011d}": f"family {i % 700}" for i in range(20000)}
    long = TrialSpec.model_validate(
        content | {"constraints": {"groups": groups, "max_per_group": 1}}
    )
    for spec in (short, long):
        tags = spec_tags(spec)
        assert max(map(len, tags.values())) <= 5000
        assert TrialSpec.model_validate_json(spec_json(tags)) == spec
    assert list(spec_tags(short)) == ["mmlab.spec"]
    assert len(spec_tags(long)) < 40
