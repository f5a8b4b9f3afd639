"""The command line: what it prints, and how it answers mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from commands import call, mistake
from tiny import simulate_cells

import mmlab
from mmlab.cli.comparison_options import comparison_spec
from mmlab.cli.console import same_command
from mmlab.cli.file_options import file_options
from mmlab.cli.select_output import hardest_types
from mmlab.cli.shared_options import data_options
from mmlab.cli.tune import search_spec
from mmlab.datasets import DATASETS
from mmlab.spec.trial import DataSpec
from mmlab.tracking import TrackingStore


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def counts(folder: Path, tiny_adata: ad.AnnData) -> Path:
    path = folder / "cells.h5ad"
    tiny_adata.write_h5ad(path)
    return path


def test_help_names_every_command() -> None:
    text = call("--help").output
    for command in ("select", "tune", "benchmark", "run", "datasets", "methods", "ui", "doctor"):
        assert command in text


PANELS = {
    "select": ["Data", "Selection", "Panel constraints", "Output"],
    "tune": ["Data", "Search", "Panel constraints", "Resources", "Output"],
    "benchmark": ["Data", "Comparison", "Panel constraints", "Resources", "Output"],
    "robustness": ["Data", "Comparison", "Panel constraints", "Resources", "Output"],
    "sweep": ["Arguments", "Data", "Comparison", "Panel constraints", "Resources", "Output"],
    "promote": ["Arguments", "Evaluation", "Resources", "Output"],
    "run": ["Arguments", "Data", "Resources", "Output"],
    "reproduce": ["Arguments", "Options", "Resources", "Output"],
    "prune": ["Arguments", "Options", "Output"],
}


@pytest.mark.parametrize("command", PANELS)
def test_help_lists_options_in_panels(command: str) -> None:
    text = call(command, "--help").output
    assert re.findall(r"^(\w[\w ]*):$", text, flags=re.MULTILINE) == PANELS[command]
    assert max(map(len, text.splitlines())) <= 80
    assert not re.search(r"<\w+ range>|<list\[", text)


def test_every_shared_option_is_in_its_panel() -> None:
    panels = re.split(r"^(\w[\w ]*):$", call("tune", "--help").output, flags=re.MULTILINE)
    options = {
        title: re.findall(r"^  (?:-k, )?(--[a-z-]+)", body, flags=re.MULTILINE)
        for title, body in zip(panels[1::2], panels[2::2], strict=True)
    }
    assert options["Data"] == [
        *("--dataset", "--data", "--label-key", "--layer", "--min-cells-per-type"),
        *("--drop-unlabelled", "--gene-names", "--round-counts", "--offline"),
    ]
    assert options["Panel constraints"] == [
        *("--include", "--exclude", "--groups", "--max-per-group"),
        *("--max-mean-counts", "--min-per-type", "--weights"),
    ]
    assert options["Resources"] == [
        *("--address", "--cpus-per-trial", "--gpus-per-trial", "--max-concurrent"),
        "--minutes-per-trial",
    ]
    assert options["Output"] == ["--metrics", "--tracking-uri", "--storage", "--json", "--help"]


def test_version_is_printed() -> None:
    assert call("--version").stdout == f"mmlab {mmlab.__version__}\n"


def test_shell_completion_knows_commands_and_options() -> None:
    completions = {}
    for words in ("mmlab ro", "mmlab tune --gp"):
        done = subprocess.run(
            [sys.executable, "-c", "from mmlab.cli import app; app(prog_name='mmlab')"],
            env=os.environ
            | {
                "_MMLAB_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(words.count(" ")),
            },
            capture_output=True,
            text=True,
        )
        completions[words] = done.stdout.split()
    assert completions == {"mmlab ro": ["robustness"], "mmlab tune --gp": ["--gpus-per-trial"]}


@pytest.mark.parametrize("command", [(), ("datasets",), ("methods",)])
def test_help_fits_into_a_terminal_and_cuts_nothing_off(command: tuple[str, ...]) -> None:
    text = call(*command, "--help").output
    assert "..." not in text.partition("COMMAND [ARGS]...")[2]
    assert max(map(len, text.splitlines())) <= 80


def test_mistake_is_one_sentence_on_stderr_and_exit_code_2(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mmlab", "datasets", "info", "zeizel"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: dataset 'zeizel' is not among ")
    assert "Did you mean 'zeisel'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


def test_datasets_list_and_info() -> None:
    listed = json.loads(call("datasets", "list", "--json").stdout)["datasets"]
    assert [d["name"] for d in listed] == list(DATASETS)
    info = json.loads(call("datasets", "info", "zeisel_subtypes", "--json").stdout)
    assert (info["cells"], info["genes"], len(info["types"])) == (2816, 4000, 47)
    assert any("names were lost" in note for note in info["notes"])
    assert "4000 genes" in call("datasets", "info", "zeisel_subtypes").output
    assert "log1p of the counts, not scaled" in call("datasets", "info", "zeisel_subtypes").output


def test_methods_info_lists_the_parameters() -> None:
    info = json.loads(call("methods", "info", "markermap_joint", "--json").stdout)
    assert info["supervised"] is True
    assert {"hidden_size", "initial_temperature", "beta"} <= set(info["params"])
    output = call("methods", "info", "markermap_joint").output
    assert "hidden_size" in output
    assert "With --quick: at least 400 training steps of 128 cells and at least 7 epochs" in output
    assert info["quick"]["steps"] == 400
    assert json.loads(call("methods", "info", "smash", "--json").stdout)["quick"] is None


def test_datasets_check_of_a_good_file(counts: Path) -> None:
    result = call("datasets", "check", str(counts), "--label-key", "cell_type")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{counts}: 120 cells x 40 genes, 3 cell types in obs['cell_type'], counts in X",
        f"{counts} can be used.",
    ]


def test_datasets_check_lists_problems_and_warnings(counts: Path, tiny_adata: ad.AnnData) -> None:
    types = tiny_adata.obs["cell_type"].astype(str).to_numpy()
    types[:3], types[3:8] = "rare", "few"
    tiny_adata.obs["cell_type"] = types
    tiny_adata.layers["counts"] = tiny_adata.X.copy()
    tiny_adata.layers["counts"].data[0] = np.nan
    tiny_adata.obs_names = ["cell_1", *tiny_adata.obs_names[1:]]
    tiny_adata.write_h5ad(counts)
    check = ["datasets", "check", str(counts), "--label-key", "cell_type"]
    content = json.loads(call(*check, "--json").stdout)
    problems, warnings = content.pop("problems"), content.pop("warnings")
    assert content == {
        "file": str(counts),
        "usable": False,
        "counts_in": "X",
        "n_cells": 120,
        "n_genes": 40,
        "n_classes": 5,
    }
    assert (len(problems), len(warnings)) == (2, 2)
    result = call(*check)
    lines = result.stdout.splitlines()
    assert lines[1:] == ["warnings:", *(f"  - {sentence}" for sentence in warnings)]
    assert str(result.exception) == f"{counts} cannot be used: {problems[0]}; {problems[1]}."


def test_doctor_shows_versions(folder: Path) -> None:
    content = json.loads(call("doctor", "--json").stdout)
    assert {"torch", "ray", "optuna", "mlflow"} <= set(content["packages"])
    assert content["arithmetic"].split(",")[0] in {"DEFAULT", "AVX2", "AVX512"}
    assert content["tracking_store"] == "not created yet"
    assert list(folder.iterdir()) == []


def test_select_writes_panel_and_run(counts: Path, folder: Path) -> None:
    options = ["--data", str(counts), "--label-key", "cell_type", "-k", "5", "--seed", "0"]
    result = call("select", *options, "--method", "scanpy_t_test", "-o", "panel.csv", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    panel = pd.read_csv(folder / "panel.csv")
    assert list(panel.columns) == ["rank", "gene", "gene_index", "score"]
    assert panel["gene"].tolist() == [row["gene"] for row in content["panel"]]
    assert 0 <= content["metrics"]["knn/accuracy"] <= 1
    run = TrackingStore().client.get_run(content["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["mmlab.digest"] == content["digest"]
    assert TrackingStore().client.get_experiment(run.info.experiment_id).name == "cells"


def test_select_applies_include_and_exclude_lists(counts: Path, folder: Path) -> None:
    (folder / "out.txt").write_text("Gene1\n\nGene2\n")
    options = ["--data", str(counts), "--label-key", "cell_type", "-k", "5", "-o", "panel.csv"]
    lists = ["--method", "scanpy_t_test", "--include", "Gene39, Gene0", "--exclude", "@out.txt"]
    result = call("select", *options, *lists)
    assert result.exit_code == 0, result.output
    genes = pd.read_csv(folder / "panel.csv")["gene"].tolist()
    assert genes[:2] == ["Gene39", "Gene0"]
    assert not {"Gene1", "Gene2"} & set(genes)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (["--include", "Gene0", "--exclude", "Gene0"], "Gene0: both included and excluded"),
        (["--exclude", "@missing.txt"], "--exclude: cannot read missing.txt"),
        (["--include", ",".join(f"Gene{i}" for i in range(7))], "include lists 7 genes, more than"),
    ],
)
def test_impossible_include_and_exclude_lists_are_refused(
    lists: list[str], message: str, counts: Path, folder: Path
) -> None:
    options = ["--data", str(counts), "--label-key", "cell_type", "-k", "6", "--method", "random"]
    assert message in mistake("select", *options, *lists)
    assert not (folder / "mlflow.db").exists()


def test_select_prints_a_table_and_where_the_run_is(counts: Path) -> None:
    options = ["--data", str(counts), "--label-key", "cell_type", "-k", "5", "--method", "random"]
    result = call("select", *options, "--replicates", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "Means over the panels of 2 replicates"
    assert lines[1].split("cells")[1].split() == ["mean", "sample", "std", "better", "meaning"]
    metrics = {line.split()[0]: line for line in lines if line.startswith("  ")}
    json_output = call("select", *options, "--replicates", "2", "--json")
    known = [name for name in json.loads(json_output.stdout)["metrics"] if "_std" not in name]
    assert sorted(metrics) == sorted(known)
    assert " lower   mean squared error of z-scores" in metrics["linear/l2"]
    assert " higher  share of the cells with the right type" in metrics["knn/accuracy"]
    assert lines[-1].startswith("Consensus panel of the 2 replicates, best gene first: ")
    assert "sqlite:///" in result.stderr


def test_select_says_what_it_does_and_how_far_it_is(
    counts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmlab.cli.select_progress.LINE_SECONDS", 0.0)
    options = ["--data", str(counts), "--label-key", "cell_type", "-k", "5"]
    result = call("select", *options, "--param", "max_epochs=2", "--param", "min_epochs=1")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Selecting ")]
    assert re.fullmatch(r"Selecting 5 of \d+ genes with markermap_supervised", lines[0])
    shown = [line.removeprefix(f"{lines[0]}: ") for line in lines[1:]]
    assert [line.partition(",")[0] for line in shown] == [
        "epoch 1 of at most 2",
        "epoch 2 of at most 2",
    ]
    assert all(re.search(r", validation score \d\.\d{4}$", line) for line in shown)


@pytest.mark.parametrize(
    ("f1", "sentence"),
    [
        (
            [[0.9, 0.2, 0.7, 0.6, 0.79], [0.9, 0.0, 0.7, 0.6, 0.79]],
            "Hardest types (F1 of k-nearest neighbours): b 0.10 (1 test cell), "
            "d 0.60 (4 test cells), c 0.70 (3 test cells)",
        ),
        (
            [[0.9, 0.8, 0.7, 1.0, 0.9]],
            "Hardest types (F1 of k-nearest neighbours): c 0.70 (3 test cells)",
        ),
        ([[0.9, 0.8, 0.8, 1.0, 0.9]], ""),
    ],
)
def test_the_hardest_types_are_those_of_the_lowest_f1(f1: list[list[float]], sentence: str) -> None:
    # Rows are true types: one cell of b, three of c, four of d.
    matrix = [[2, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 2, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 5]]
    confusion = {"knn": np.array(matrix)}
    result: Any = SimpleNamespace(
        replicates=pd.DataFrame({"per_class_f1/knn": f1}), confusion=confusion
    )
    assert hardest_types(result, list("abcde")) == sentence


@pytest.mark.parametrize(
    "command",
    [["select", "--data"], ["tune", "--data"], ["datasets", "check"], ["datasets", "add"]],
)
def test_without_a_label_key_the_columns_are_listed(command: list[str], counts: Path) -> None:
    text = mistake(*command, str(counts))
    assert "requires --label-key, the column of obs with the cell types (columns: " in text
    assert "cell_type" in text.partition("(columns: ")[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--dataset", "zeisl"], "Did you mean 'zeisel'?"),
        ([], "pass --dataset NAME"),
        (["--data", "missing.h5ad"], "requires --label-key"),
        (["--dataset", "toy_xor", "--label-key", "x"], "--label-key: only a file"),
        (
            ["--dataset", "toy_xor", "--min-cells-per-type", "9", "--gene-names", "x"],
            "--min-cells-per-type, --gene-names: only a file",
        ),
        (["--dataset", "toy_xor", "--method", "markermap"], "method 'markermap' is not among"),
        (["--dataset", "toy_xor", "-k", "501"], "n_markers is 501, but toy_xor has 500 genes"),
        (["--dataset", "toy_xor", "-k", "0"], "--n-markers (-k)"),
    ],
)
@pytest.mark.parametrize("command", ["select", "tune"])
def test_wrong_options_leave_no_run(
    command: str, arguments: list[str], expected: str, folder: Path
) -> None:
    assert expected in mistake(command, *arguments)
    assert list(folder.iterdir()) == []


def test_parameter_that_is_unknown_lists_the_known(folder: Path) -> None:
    message = mistake("select", "--dataset", "toy_xor", "--param", "hiden_size=3")
    assert "hiden_size is not a parameter of markermap_supervised" in message
    assert "hidden_size" in message
    assert list(folder.iterdir()) == []


def test_parameters_are_read_as_numbers(counts: Path) -> None:
    options = ["--data", str(counts), "--label-key", "cell_type", "-k", "5", "--json"]
    params = ["--param", "learning_rate=1e-3", "--param", "max_epochs=2"]
    result = call("select", *options, *params)
    assert result.exit_code == 0, result.output
    run = TrackingStore().client.get_run(json.loads(result.stdout)["run_id"])
    assert run.data.params["learning_rate"] == "0.001"
    assert run.data.params["max_epochs"] == "2"


def test_given_parameters_override_quick_training(folder: Path) -> None:
    simulate_cells(1300).write_h5ad(folder / "cells.h5ad")
    options = ["--data", "cells.h5ad", "--label-key", "cell_type", "-k", "5", "--json"]
    result = call("select", *options, "--quick", "--param", "max_epochs=2")
    assert result.exit_code == 0, result.output
    params = TrackingStore().client.get_run(json.loads(result.stdout)["run_id"]).data.params
    assert (params["batch_size"], params["max_epochs"]) == ("128", "2")
    assert "--quick changes nothing" not in result.stderr


def test_quick_training_of_few_cells_is_the_default_training(counts: Path) -> None:
    options = ["--data", str(counts), "--label-key", "cell_type", "-k", "5", "--json"]
    options += ["--param", "max_epochs=2"]
    default, quick = (call("select", *options, *more) for more in ([], ["--quick"]))
    assert quick.exit_code == 0, quick.output
    assert json.loads(quick.stdout)["digest"] == json.loads(default.stdout)["digest"]
    assert "--quick changes nothing for markermap_supervised" in quick.stderr
    assert "84 training cells" in quick.stderr


def test_methods_of_a_comparison_are_quick_by_their_number_of_cells(counts: Path) -> None:
    content = {"study": "benchmark"}
    few = DataSpec(path=str(counts), label_key="cell_type")
    names = "markermap_supervised,smash"
    spec = comparison_spec(content, few, names, quick=True)
    assert [method.title for method in spec.methods] == ["markermap_supervised", "smash"]
    spec = comparison_spec(content, DataSpec(name="zeisel"), names, quick=True)
    assert [method.title for method in spec.methods] == ["markermap_supervised (quick)", "smash"]
    assert spec.methods[0].params["max_epochs"] == 24


def test_quick_search_fixes_what_it_does_not_search() -> None:
    given = asdict(data_options("toy_xor", file_fields=file_options()))
    given |= dict.fromkeys(("method", "search", "n_markers", "replicates", "seed"))
    options = given | {"quick": True, "epochs": 7}
    fixed = search_spec(options, None, with_baselines=False).search.fixed
    assert (fixed["batch_size"], fixed["max_epochs"]) == (128, 7)
    assert not {"learning_rate", "final_temperature"} & set(fixed)


@pytest.mark.parametrize("command", ["select", "tune"])
def test_quick_training_is_refused_where_there_is_none(folder: Path, command: str) -> None:
    message = mistake(command, "--dataset", "toy_xor", "--method", "concrete_vae", "--quick")
    assert message == (
        "--quick: concrete_vae has no quick training; these have: markermap_supervised, "
        "markermap_unsupervised, markermap_joint."
    )
    assert list(folder.iterdir()) == []


def test_all_mistakes_of_a_search_space_are_reported_together(folder: Path) -> None:
    path = folder / "space.yaml"
    path.write_text(
        "selector: markermap_supervised\n"
        "colour: red\n"
        "parameters:\n"
        "  beta: {low: 0.9, high: 0.5}\n"
        "  hidden_size: {choices: []}\n"
    )
    message = mistake("tune", "--dataset", "toy_xor", "--search", str(path))
    assert "space.yaml" in message
    assert "colour is not a known key" in message
    assert "low must be smaller than high, got 0.9 and 0.5" in message
    assert "hidden_size" in message
    assert [p.name for p in folder.iterdir()] == ["space.yaml"]


def test_search_space_values_are_checked_before_anything_runs(folder: Path) -> None:
    path = folder / "space.yaml"
    path.write_text("selector: markermap_supervised\nparameters:\n  beta: {low: 0.5, high: 1.5}\n")
    assert "beta is 1.5, but must be in [0, 1)" in mistake(
        "tune", "--dataset", "toy_xor", "--search", str(path)
    )
    path.write_text("selector: markermap_supervised\nparameters:\n  hidden: {choices: [8]}\n")
    assert "hidden is not a parameter of markermap_supervised" in mistake(
        "tune", "--dataset", "toy_xor", "--search", str(path)
    )
    assert [p.name for p in folder.iterdir()] == ["space.yaml"]


def test_method_without_epochs_cannot_be_tuned(folder: Path) -> None:
    assert "no search space is shipped for random" in mistake(
        "tune", "--dataset", "toy_xor", "--method", "random"
    )
    assert list(folder.iterdir()) == []


def test_resume_refuses_other_options_and_unknown_studies(folder: Path) -> None:
    assert "leave out --dataset" in mistake("tune", "--resume", "x", "--dataset", "zeisel")
    assert "study 'x' is not in sqlite:///" in mistake("tune", "--resume", "x")
    assert list(folder.iterdir()) == []


def test_ui_without_a_tracking_store_is_an_error(folder: Path) -> None:
    assert "run a study first" in mistake("ui")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("/somewhere/mmlab/__main__.py", "python -m mmlab ui"),
        ("/my tools/mmlab", "'/my tools/mmlab' ui"),
    ],
)
def test_hints_repeat_how_mmlab_was_called(
    folder: Path, monkeypatch: pytest.MonkeyPatch, called: str, shown: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "ui"])
    assert same_command() == shown
