"""`mmlab promote`: the best configuration of a search competes for the title of champion."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmlab.cli.console import (
    print_json,
    print_message,
    print_text,
    program_name,
    recorded_command,
    same_command,
    stderr,
)
from mmlab.cli.help_panels import OUTPUT
from mmlab.cli.interrupted import end_interrupted
from mmlab.cli.output_checks import check_output_folder
from mmlab.cli.resource_options import resource_options
from mmlab.cli.shared_options import (
    JsonOption,
    StorageOption,
    TrackingOption,
    shared,
    split_names,
    with_shared_options,
)
from mmlab.cli.tracking_store import open_store, page_hint, page_link
from mmlab.spec.resources import Resources

if TYPE_CHECKING:
    from mmlab.champion.promote import Promotion


#: Above the tables of the two comparisons of a promotion.
_TITLES = (
    "Held-out test set, which no search has seen",
    "Random splits of all cells, most of which the search has seen",
)


@with_shared_options
def promote(
    study: Annotated[str, typer.Argument(help="Name of a search, as mmlab tune printed it.")],
    objectives: Annotated[
        str,
        typer.Option(
            help="Evaluate the whole Pareto front of these objectives, comma-separated: accuracy, "
            "reconstruction, stability, panel_size. Default: the best validation score only."
        ),
    ] = "",
    baselines: Annotated[
        str, typer.Option(help="Methods to evaluate on the same splits, comma-separated.")
    ] = "scanpy_t_test,smash,random",
    replicates: Annotated[
        int, typer.Option(min=2, help="Random splits of the cells, the same for every method.")
    ] = 10,
    resources: Resources = shared(resource_options),
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the study files of champions.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("experiments/promoted"),
    tracking_uri: TrackingOption = None,
    storage: StorageOption = "",
    as_json: JsonOption = False,
) -> None:
    """Evaluate the best trial and register it if it wins.

    The best configuration of the search, the present champion, the default configuration of the
    method and the baselines are evaluated on the same splits: on the held-out test set, which no
    search has seen, and under the paper's protocol. The incumbent is the champion, or the default
    configuration if there is no champion. The default configuration is trained in full, even after
    a search with --quick. The best and the default configuration take its title
    only if their kNN accuracy on the held-out test set is significantly higher (p < 0.05, paired
    test over the test cells, Holm's correction); a smaller difference is a tie, and the incumbent
    stays. The first line of the output says whether the search found anything better, and names
    the baselines that are significantly better than the champion; baselines do not compete.

    A new champion is registered in MLflow under the alias champion, and its benchmark is written to
    FOLDER/<dataset>.yaml. Without a champion before, the winner is registered in any case.
    Champions with other panel constraints do not compete. The same command resumes an interrupted
    promotion.
    """
    from mmlab.champion.promote import promote as run_promotion
    from mmlab.system.interruption import StudyInterruptedError

    check_output_folder("--output", output, parents=True)
    command = recorded_command()
    store = open_store(tracking_uri, storage, write=True)
    try:
        run_promotion(
            study,
            store,
            resources,
            stderr(),
            objectives=split_names(objectives),
            baselines=split_names(baselines),
            replicates=replicates,
            folder=output,
            command=command,
            show=lambda result: _save_and_print(result, command, output, as_json),
        )
    except StudyInterruptedError as interrupted:
        advice = f"Finished replicates are kept; resume with: {same_command()}"
        end_interrupted(interrupted.reason, advice)


def _save_and_print(result: Promotion, command: str, folder: Path, as_json: bool) -> None:
    """Write the tables and figures of the comparisons to their runs, and print the outcome."""
    from mmlab.cli.comparison import print_tables, save_output

    outputs = [save_output(comparison, command) for comparison in (result.locked, result.paper)]
    # A reader that has seen enough, such as head, does not undo the promotion.
    with suppress(BrokenPipeError, SystemExit):
        if as_json:
            print_json(_json(result))
            return
        print_text(result.decision.headline + "\n")
        for title, tables in zip(_TITLES, outputs, strict=True):
            print_text(f"{title}\n")
            print_tables(tables)
        _print(result, folder)


def _json(result: Promotion) -> dict[str, Any]:
    from mmlab.spec.constraints import constraints_key
    from mmlab.tracking import run_page

    study, champion = result.study, result.champion
    return {
        "headline": result.decision.headline,
        "study": study.name,
        "tracking_uri": study.store.uri,
        "page": page_link(study.store, run_page(study.experiment_id, result.run_id)),
        "run_id": result.run_id,
        "candidates": result.candidates.to_dict(orient="records"),
        "locked": result.locked.study.name,
        "paper": result.paper.study.name,
        "trials": result.locked.replicates[
            ["digest", "method", "replicate", "knn/accuracy"]
        ].to_dict(orient="records"),
        "promoted": result.promoted,
        "winner": result.decision.winner,
        "verdict": result.decision.verdict,
        "tests": result.decision.tests.to_dict(orient="records"),
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
    from mmlab.tracking import run_page

    study, champion = result.study, result.champion
    model = f"model {champion.model_name} version {champion.version}"
    print_text(result.decision.verdict)
    if result.promoted:
        path = folder / study_file(study.spec.data.title, study.spec)
        print_text(f"Registered as champion: {model}, study file {path}")
    else:
        print_text(f"Nothing was registered; the champion is {model}")
    print_message(
        "The search has seen most cells of the paper's protocol; the held-out test set decides."
    )
    print_message(f"Write the report with: {program_name()} report {study.name} -o report")
    print_message(page_hint(study.store, run_page(study.experiment_id, result.run_id)))
