"""``blocklab study`` and ``blocklab report``."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blocklab.cli.app import app
from blocklab.cli.options import (
    Json,
    Out,
    Plugins,
    Settings,
    StudyData,
    StudyRecipe,
    StudyRows,
    StudySeeds,
    Track,
    complete_studies,
    load_plugins,
    load_studies,
)
from blocklab.cli.output import (
    output_console,
    print_json,
    print_of_all,
    print_results,
    print_table,
)
from blocklab.errors import InputError, Stopped
from blocklab.tracking.tracker import check_trackers

if TYPE_CHECKING:
    from blocklab.results.judgements import Judgement
    from blocklab.results.study_results import StudyResults
    from blocklab.study.collection import StudyCollection
    from blocklab.study.study import Study

STUDY = "A study's YAML file, or the name of one that is shipped with blocklab."


@app.command()
def study(
    file: Annotated[
        str, typer.Argument(metavar="FILE_OR_NAME", help=STUDY, autocompletion=complete_studies)
    ] = "",
    data: StudyData = None,
    recipe: StudyRecipe = None,
    seeds: StudySeeds = None,
    rows: StudyRows = None,
    out: Out = Path("runs"),
    settings: Settings = [],  # noqa: B006 - read only
    workers: Annotated[
        str, typer.Option(help="Processes that share cores and GPUs: a number, or auto.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of each run.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Run on a Ray cluster: auto, or where.")
    ] = None,
    plugin: Plugins = [],  # noqa: B006 - read only
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List runs, costs and time.")] = False,
    verify: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Train one run again; compare every bit.")
    ] = None,
    track: Track = [],  # noqa: B006 - read only
    live: Annotated[
        bool, typer.Option("--live", help="Write the page while it runs; it reads itself again.")
    ] = False,
    json: Json = False,
) -> int:
    """Run a study's rows and seeds, and write its page; a rerun goes on where it stopped."""
    check_trackers(track)
    plugins = load_plugins(plugin)
    if verify is not None:
        if file:
            raise InputError("--verify RUN takes no study; leave the study's name out")
        options = {
            "--data": data,
            "--out": out != Path("runs"),
            "--workers": workers != "auto",
            "--recipe": recipe,
            "--seeds": seeds,
            "--rows": rows,
            "--set": settings,
            "--threads": threads is not None,
            "--ray": ray,
            "--dry-run": dry_run,
            "--track": track,
            "--live": live,
        }
        if given := [name for name, value in options.items() if value]:
            raise InputError(
                f"--verify trains the run as it was trained; leave {' and '.join(given)} out"
            )
        return _verify(verify, json)
    if not file:
        raise InputError(f"name a study: {STUDY[0].lower()}{STUDY[1:]}")

    collection = load_studies(file, data, recipe, seeds, rows, settings)
    studies = collection.studies
    if dry_run:
        if ray is not None:
            raise InputError("--dry-run plans what this machine would do; leave --ray out")
        from blocklab.execution.dry_run import plan_lines

        lines = plan_lines(studies, out, _worker_count(workers), threads, plugins)
        _print_plan(collection, lines, out, json)
        return 0
    results = run_and_report(collection, out, workers, threads, ray, plugins, track, live)
    from blocklab.results.collection_file import over_datasets
    from blocklab.running import collection_file

    over = over_datasets(collection_file(collection), results)
    if json:
        from blocklab.results.study_results import judged_together

        together = judged_together(results)
        parts = zip(studies, results, together, strict=True)
        found = [_results_as_json(*part, out) for part in parts]
        print_json({"studies": found, "over_datasets": over.to_dict()} if over else found)
    else:
        from blocklab.execution.study_folder import study_folder

        for one, result in zip(studies, results, strict=True):
            print_results(result)
            print(f"page: {study_folder(one, out) / 'report.html'}")
        print_of_all(over, collection.notes)
    if len(studies) > 1:
        from blocklab.running import index_page

        index = f"page of all: {index_page(collection, out)}"
        print(index, file=sys.stderr if json else sys.stdout)
    # Every run was tried: one without a result has failed, whatever could be written of it.
    tried = [row for result in results for row in result.rows]
    return 1 if any(row.failed or row.missing_seeds for row in tried) else 0


@app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="STUDY_DIR", help="A study's folder, or of several.")
    ],
    json: Json = False,
) -> None:
    """Make the page and the tables of a study, or a collection, from whatever has finished."""
    from blocklab.report.index import INDEX, write_collection
    from blocklab.report.page import check_a_page_stays, write_report
    from blocklab.results.collection_file import over_datasets, read_collection
    from blocklab.results.study_folder import read_study_folder
    from blocklab.results.study_results import judged_together

    if (content := read_collection(folder)) is not None:
        pages = write_collection(folder, content)
        over = over_datasets(content, [results for _, results, _ in pages])
        if json:
            together = judged_together([results for _, results, _ in pages])
            found = [
                {"study": one.name, "page": str(page), **results_as_json(results, judged)}
                for (one, results, page), judged in zip(pages, together, strict=True)
            ]
            of_all = {"over_datasets": over.to_dict()} if over else {}
            print_json({"page": str(folder / INDEX), "studies": found, **of_all})
            return
        for _, results, page in pages:
            print_results(results)
            print(f"page: {page}")
        print_of_all(over, content.notes)
        print(f"page of all: {folder / INDEX}")
        return
    results = read_study_folder(folder)
    check_a_page_stays(folder, results)
    page = write_report(results, folder)
    if json:
        print_json({"page": str(page), **results_as_json(results, results.judgements)})
        return
    print_results(results)
    print(f"page: {page}")


def run_and_report(
    collection: "StudyCollection",
    out: Path,
    workers: str | int = "auto",
    threads: int | None = None,
    ray: str | None = None,
    plugins: tuple[str, ...] = (),
    track: "Sequence[str]" = (),
    live: bool = False,
) -> "tuple[StudyResults, ...]":
    """Run studies under a live table on stderr and write their pages."""
    from blocklab.execution.progress import Progress
    from blocklab.running import run_collection

    command = shlex.join(["blocklab", *sys.argv[1:]])
    progress = Progress(output_console(stderr=True))
    try:
        with progress:
            return run_collection(
                collection,
                out,
                _worker_count(workers),
                threads=threads,
                watcher=progress,
                plugins=plugins,
                ray=ray,
                command=command,
                track=track,
                live=live,
            )
    except KeyboardInterrupt:
        raise Stopped(progress.kept(out)) from None


def _worker_count(given: str | int) -> int | None:
    """Read --workers; None is auto."""
    if given == "auto":
        return None
    try:
        return int(given)
    except ValueError:
        raise InputError(f"--workers is a number or auto, not '{given}'") from None


def _verify(run: Path, json: bool) -> int:
    from blocklab.execution.verify import verify_run
    from blocklab.results.named_run import find_run

    verification = verify_run(find_run(run))
    if json:
        print_json(verification.to_dict())
    else:
        print(verification)
    return 0 if verification.same else 1


def _print_plan(
    collection: "StudyCollection", rows: list[dict[str, Any]], out: Path, json: bool
) -> None:
    from blocklab.execution.dry_run import (
        PLAN_HEADINGS,
        claim_lines,
        look_lines,
        plan_cells,
        plan_total,
    )

    studies = collection.studies
    claims, looks = claim_lines(studies), look_lines(studies, out)
    for claim in collection.claims:
        claims.append({"study": collection.name, "claim": claim, "text": "over the data sets"})
    if json:
        print_json({"rows": rows, "claims": claims, "until_decided": looks})
        return
    print_table(PLAN_HEADINGS, map(plan_cells, rows))
    print(plan_total(rows))
    for one in looks:
        sizes = ", ".join(map(str, one["looks"]))
        times = f", the baseline with {one['baseline_times']} times as many"
        print(
            f"{one['study']}: seeds until decided, looks at {sizes} seeds of a row{times}; "
            f"{one['fewest_runs']:,} to {one['most_runs']:,} runs"
        )
    if claims:
        shown = [(one["study"], one["claim"], one["text"]) for one in claims]
        print_table(("study", "claim", "in words"), shown, "claims", left=True)
    counts = [(one.name, str(len(one.rows)), str(len(one.claims))) for one in studies]
    if len(counts) > 1:
        counts.append(("in all", str(sum(len(one.rows) for one in studies)), str(len(claims))))
    print_table(("study", "rows", "claims"), counts)


def _results_as_json(
    study: "Study", results: "StudyResults", judged: "Sequence[Judgement]", out: Path
) -> dict[str, object]:
    from blocklab.execution.study_folder import study_folder

    folder = study_folder(study, out)
    return {
        "study": study.name,
        "page": str(folder / "report.html"),
        **results_as_json(results, judged),
    }


def results_as_json(results: "StudyResults", judged: "Sequence[Judgement]") -> dict[str, object]:
    """Return what a page says as plain JSON; `judged` are its claims as they are to be read."""
    troubles = [{"row": row, "trouble": line} for row, line in results.troubles]
    family = {name: value for name, value in vars(results.family).items() if name != "comparisons"}
    return {
        "rows": results.summary_lines,
        "family": family,
        "claims": [asdict(one) for one in judged],
        "identical": [list(names) for names, _ in results.identical],
        "design": list(results.design_notes),
        "troubles": troubles,
    }
