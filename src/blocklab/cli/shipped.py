"""``blocklab studies`` and ``blocklab recipes``: what is shipped, by name."""

from blocklab.cli.app import app
from blocklab.cli.options import Json
from blocklab.cli.output import print_json, print_table


@app.command()
def studies(json: Json = False) -> None:
    """List the studies that come with blocklab: `blocklab study NAME` runs one."""
    from blocklab.study.named_rows import shipped_studies

    shipped = shipped_studies()
    if json:
        print_json([one.to_dict() for one in shipped])
    else:
        lines = [(one.study, one.title, f"{len(one.rows)}") for one in shipped]
        print_table(("study", "title", "rows"), lines, left=True)


@app.command()
def recipes(json: Json = False) -> None:
    """List the recipes that come with blocklab: `--recipe NAME` trains with one."""
    from blocklab.training.recipe import recipe_summaries

    summaries = recipe_summaries()
    if json:
        print_json([{"recipe": name, "summary": line} for name, line in summaries.items()])
    else:
        print_table(("recipe", "summary"), summaries.items(), left=True)
