"""Messages about options and names: options as they are typed, near names, one mark at the end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from commands import call, mistake

import mmlab
from mmlab.errors import join_problems, nearest_name, unknown_name
from mmlab.selectors import SELECTORS

SELECT = ["select", "--dataset", "toy_xor"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_problems_are_joined_with_one_mark() -> None:
    assert join_problems(["a", "b."]) == "a; b."
    assert join_problems(["a", "did you mean 'b'?"]) == "a; did you mean 'b'?"
    assert join_problems(["Did you mean 'b'?", "c."]) == "Did you mean 'b'? c."


def test_no_message_is_joined_in_another_way() -> None:
    """A full stop after a problem that ends with a question mark would be doubled."""
    pattern = re.compile(r"""["']; ["']\.join\([^()]*\)(?:\}\.| \+ "\.")""")
    root = Path(mmlab.__file__).parent
    known = {"schedule/ray_cluster.py", "champion/decision.py"}
    found = {
        p.relative_to(root).as_posix() for p in root.rglob("*.py") if pattern.search(p.read_text())
    }
    assert found <= known


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("markermap", "markermap_supervised"),
        ("markermap_super", "markermap_supervised"),
        ("markermap_j", "markermap_joint"),
        ("lasso", "lassonet"),
        ("MRMR", "mrmr"),
        ("randon", "random"),
        ("qqq", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_the_default_a_unique_beginning_or_a_similar_name(
    name: str, near: str | None
) -> None:
    assert nearest_name(name, SELECTORS, "markermap_supervised") == near


def test_the_beginning_of_a_dataset_is_enough_for_a_suggestion() -> None:
    error = unknown_name("dataset", "baron", ["baron_pancreas", "zeisel"])
    assert str(error).endswith("Did you mean 'baron_pancreas'?")
    message = mistake("select", "--dataset", "baron")
    assert message.endswith("Did you mean 'baron_pancreas'?")


@pytest.mark.parametrize(
    "command",
    [
        [*SELECT, "--method", "markermap"],
        ["tune", "--dataset", "toy_xor", "--method", "markermap"],
        ["benchmark", "--dataset", "toy_xor", "--methods", "random,markermap"],
        ["benchmark", "--dataset", "toy_xor", "--methods", "random,markermap", "--quick"],
    ],
)
def test_an_unknown_method_is_named_once(command: list[str]) -> None:
    message = mistake(*command)
    assert message.startswith("method 'markermap' is not among all_genes, ")
    assert message.endswith(" Did you mean 'markermap_supervised'?")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*SELECT, "--label-key", "x"], "--label-key: only a file (--data) can have this"),
        (
            [*SELECT, "--layer", "x", "--drop-unlabelled"],
            "--layer, --drop-unlabelled: only a file (--data) can have this, not the dataset "
            "toy_xor.",
        ),
        (["select", "--data", "x.h5ad"], "--data x.h5ad requires --label-key, the column of obs"),
        ([*SELECT, "--data", "x.h5ad"], "pass either --dataset or --data, not both."),
        ([*SELECT, "-k", "0"], "--n-markers (-k): input should be greater than or equal to 1, got"),
        (
            [*SELECT, "-k", "0", "--replicates", "0"],
            "--replicates: input should be greater than or equal to 1, got 0.",
        ),
        (["tune", "--dataset", "toy_xor", "-k", "0"], "--n-markers (-k): input should be greater"),
    ],
)
def test_options_are_named_as_they_are_typed(arguments: list[str], message: str) -> None:
    found = mistake(*arguments)
    assert message in found
    assert not re.search(r"label_key|n_markers|drop_unlabelled|options: ", found)


def test_a_quick_comparison_says_for_which_methods_nothing_changes(folder: Path) -> None:
    """It needs one method with a quick training; -k is refused after the message."""
    study = ["benchmark", "--dataset", "pbmc68k_reduced", "--quick", "-k", "9999", "--methods"]
    result = call(*study, "random,markermap_joint,cosg")
    assert "--quick changes nothing for random, cosg: " in result.stderr
    assert "has 765 genes" in str(result.exception)
    assert mistake(*study, "random,cosg").startswith("--quick: random, cosg have no quick training")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["datasets"], ["methods"]])
def test_a_group_without_a_command_shows_its_help(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert "  list " in result.stdout or "  select " in result.stdout


def test_the_check_of_a_dataset_of_mmlab_says_so() -> None:
    assert mistake("datasets", "check", "zeisel", "--label-key", "x") == (
        "zeisel is a dataset of mmlab, not a file, and needs no check: see "
        "`mmlab datasets info zeisel`."
    )


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_a_column_of_measurements_is_not_taken_for_types(
    dtype: type, folder: Path, tiny_adata: ad.AnnData
) -> None:
    """Nothing is said of small types, and columns of texts are named instead."""
    adata = ad.concat([tiny_adata] * 3, index_unique="-")
    adata.obs["n_counts"] = np.arange(adata.n_obs).astype(dtype) + 1000
    adata.obs["barcode"] = adata.obs_names
    adata.obs["cluster"] = np.resize([0, 1, 2], adata.n_obs)
    adata.write_h5ad("cells.h5ad")
    result = call("datasets", "check", "cells.h5ad", "--label-key", "n_counts")
    number = dtype(1000)
    assert (
        f"obs['n_counts'] has {adata.n_obs} different numbers (such as {number}): it looks like a "
        "measurement, not like cell types; columns that look like types: cell_type"
    ) in str(result.exception)
    assert "min-cells-per-type" not in str(result.exception)
    checked = call("datasets", "check", "cells.h5ad", "--label-key", "cluster")
    assert "3 cell types in obs['cluster']" in checked.stdout


def test_ctrl_c_is_one_sentence_also_while_a_compiled_module_is_imported() -> None:
    program = """
import sys
from mmlab.cli import main, report
def interrupted(*_, **__):
    {body}
report.check_output_folder = interrupted
sys.argv = ["mmlab", "report", "study", "-o", "folder"]
main()
"""
    for body in (
        "raise KeyboardInterrupt",
        "raise ImportError('initialization failed') from KeyboardInterrupt()",
    ):
        command = [sys.executable, "-c", program.format(body=body)]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (130, "Interrupted.\n")
