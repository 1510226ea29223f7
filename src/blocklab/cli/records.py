"""``blocklab records``."""

from pathlib import Path
from typing import Annotated

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
    check_folder,
    load_plugins,
    load_studies,
)
from blocklab.cli.output import print_json


@app.command()
def records(
    file: Annotated[
        str, typer.Argument(metavar="FILE_OR_NAME", help="A study that has run, or several.")
    ],
    to: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Where the records are kept.", callback=check_folder),
    ],
    data: StudyData = None,
    recipe: StudyRecipe = None,
    seeds: StudySeeds = None,
    rows: StudyRows = None,
    out: Out = Path("runs"),
    settings: Settings = [],  # noqa: B006 - read only
    plugin: Plugins = [],  # noqa: B006 - read only
    json: Json = False,
) -> None:
    """Keep what a study's page is made of, without the weights: small enough to commit."""
    from blocklab.execution.study_folder import check_as_it_ran
    from blocklab.files import write_atomically
    from blocklab.report.index import INDEX, write_collection
    from blocklab.report.page import write_report
    from blocklab.results.records import keep_collection, keep_records
    from blocklab.results.study_folder import read_study_folder
    from blocklab.running import collection_file
    from blocklab.study.schema import study_text

    load_plugins(plugin)
    collection = load_studies(file, data, recipe, seeds, rows, settings)
    content = collection_file(collection)
    for study in collection.studies:
        check_as_it_ran(study, out)
    if len(content.studies) == 1:
        kept = keep_records(out / content.studies[0], to)
        page = write_report(read_study_folder(to), to)
    else:
        kept = keep_collection(content, out, to)
        write_collection(to, content)
        page = to / INDEX
    write_atomically(to / "study.yaml", study_text(file))
    if json:
        print_json({"page": str(page), **vars(kept)})
        return
    unfinished = f", {kept.missing} have not ended" if kept.missing else ""
    print(f"{kept.runs} runs kept{unfinished}: {kept.bytes / 1e6:.1f} MB")
    print(f"page: {page}")
