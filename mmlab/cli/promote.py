"""`mmlab promote`: the best of a search, judged on cells that it never saw."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.options import (
    AddressOption,
    ConcurrentOption,
    CpusOption,
    GpusOption,
    JsonOption,
    TrackingOption,
    look_hint,
    names,
    print_json,
    program,
    say,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from mmlab.champion.promote import Promotion


def promote(
    study: Annotated[str, typer.Argument(help="A search, by the name that mmlab tune printed.")],
    objectives: Annotated[
        str,
        typer.Option(
            help="Judge the whole Pareto front of these, by commas: accuracy, reconstruction, "
            "stability, panel_size. Default: the best validation score alone."
        ),
    ] = "",
    baselines: Annotated[
        str, typer.Option(help="Methods to judge beside it, by commas.")
    ] = "scanpy_t_test,smash,random",
    replicates: Annotated[
        int, typer.Option(min=2, help="Random splits, the same for every method.")
    ] = 10,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the champions' study files.")
    ] = Path("experiments/promoted"),
    tracking_uri: TrackingOption = None,
    address: AddressOption = None,
    cpus_per_trial: CpusOption = 1,
    gpus_per_trial: GpusOption = 0.0,
    max_concurrent: ConcurrentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a search's best settings on the locked test cells.

    It is judged twice, beside the present champion and baselines on the same splits: on the locked
    cells, which no search has seen, and by the paper's protocol. If it beats the champion on the
    locked cells it takes its place: registered in MLflow with the alias champion, its benchmark
    written to FOLDER/<dataset>.yaml. All hold the constraints of the search, and compete with
    champions of the same constraints alone. Interrupted and started again, it computes what is
    missing.
    """
    from mmlab.champion.promote import promote as judge
    from mmlab.cli.comparison import keep, print_tables
    from mmlab.schedule import Resources, StudyInterruptedError
    from mmlab.tracking import TrackingStore

    command, again = (shlex.join([name, *sys.argv[1:]]) for name in ("mmlab", program()))
    store = TrackingStore(tracking_uri)
    try:
        result = judge(
            study,
            store,
            Resources(address, cpus_per_trial, gpus_per_trial, max_concurrent),
            stderr(),
            objectives=names(objectives),
            baselines=names(baselines),
            replicates=replicates,
            folder=output,
            command=command,
        )
    except StudyInterruptedError:
        say(f"interrupted; finished replicates are kept. Go on with: {again}")
        raise typer.Exit(130) from None
    shown = [keep(comparison, command) for comparison in (result.locked, result.paper)]
    if as_json:
        print_json(_json(result))
        return
    for tables in shown:
        print_tables(tables)
    _print(result, output)


def _json(result: Promotion) -> dict[str, Any]:
    from mmlab.spec.constraints import constraints_key

    champion = result.champion
    return {
        "study": result.study.name,
        "tracking_uri": result.study.store.uri,
        "run_id": result.run_id,
        "candidates": result.candidates.to_dict(orient="records"),
        "locked": result.locked.study.name,
        "paper": result.paper.study.name,
        "trials": result.locked.replicates[
            ["digest", "method", "replicate", "knn/accuracy"]
        ].to_dict(orient="records"),
        "promoted": result.promoted,
        "verdict": result.verdict,
        "champion": {
            "model": champion.model_name,
            "version": champion.version,
            "digest": champion.digest,
            "study": champion.study,
            "config": champion.spec.params,
            "constraints": constraints_key(champion.spec),
        },
    }


def _print(result: Promotion, folder: Path) -> None:
    from mmlab.champion.study_file import study_file

    champion, console = result.champion, stdout()
    console.print(result.verdict, highlight=False, soft_wrap=True)
    if result.promoted:
        console.print(
            f"it is the champion now: model {champion.model_name} version {champion.version}, "
            f"study file {folder / study_file(result.study.spec.data.title, result.study.spec)}",
            highlight=False,
            soft_wrap=True,
        )
    else:
        console.print(
            f"the champion stays: model {champion.model_name} version {champion.version}",
            highlight=False,
            soft_wrap=True,
        )
    say("the search has seen most cells of the paper's protocol: the locked cells decide")
    say(f"report: {program()} report {result.study.name} -o report")
    say(look_hint(result.study.store.uri))
