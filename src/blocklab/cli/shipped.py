"""``blocklab studies`` and ``blocklab recipes``: what is shipped, by name."""

from blocklab.cli.app import app
from blocklab.cli.options import Json
from blocklab.cli.output import print_json, print_table


@app.command()
def studies(json: Json = False) -> None:
    """List the studies that come with blocklab: `blocklab study NAME` runs one."""
    from blocklab.study.schema import study_titles

    titles = study_titles()
    if json:
        print_json([{"study": name, "title": title} for name, title in titles.items()])
    else:
        print_table(("study", "title"), titles.items(), left=True)


@app.command()
def recipes(json: Json = False) -> None:
    """List the recipes that come with blocklab: `--recipe NAME` trains with one."""
    from blocklab.training.recipe import recipe_summaries

    summaries = recipe_summaries()
    if json:
        print_json([{"recipe": name, "summary": line} for name, line in summaries.items()])
    else:
        print_table(("recipe", "summary"), summaries.items(), left=True)
