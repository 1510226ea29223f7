"""A figure of each seed's accuracy as a dot: what the means and intervals are made of."""

import altair as alt

from blocklab.report.cell_text import plain
from blocklab.report.curves import left_out, shown_rows
from blocklab.report.drawing import Figure, data, limits, look, said, specification
from blocklab.report.metric import metric_of
from blocklab.results.study_results import StudyResults

MOST_ROWS = 60
OFF = (-0.1, 0.1, -0.3, 0.3, 0.0)  # of a row's height, so that seeds alike are seen as several


def seeds_as_dots(results: StudyResults, name: str) -> Figure | None:
    """Draw a dot for each finished seed and a tick at each row's mean; None without a result."""
    metric = metric_of(results)
    shown = {row.name for row in shown_rows(results, MOST_ROWS)}
    dots, means = [], []
    for number, row in enumerate(results.rows):
        if row.score is None or row.name not in shown:
            continue
        for place, run in enumerate(row.finished):
            value = run.figure(results.metric.figure)
            text = f"{row.name}, seed {run.seed}: {plain(value, results.metric)} {metric.percent}"
            dots.append(
                {"row": row.name, "value": value, "off": OFF[place % len(OFF)]}
                | said(number, text.rstrip())
            )
        text = f"{row.name}, mean: {plain(row.score.mean, results.metric)} {metric.percent}"
        means.append({"row": row.name, "value": row.score.mean} | said(number, text.rstrip()))
    if not dots:
        return None
    low, high = limits((dot["value"] for dot in dots), least=metric.least, bounds=metric.bounds)
    x = alt.X(
        "value:Q",
        title=metric.axis("test"),
        scale=alt.Scale(domain=[low, high], nice=False),
    )
    bare = alt.Axis(grid=False, ticks=False, domain=False, labelPadding=10)
    y = alt.Y("row:N", title=None, sort=None, axis=bare)
    colour = {"color": look([row.name for row in results.rows])["color"]}
    step = 24 if len(means) < 30 else 17
    # A band begins an eighth of a row below where Vega draws what has no offset from.
    around = alt.Scale(domain=[-0.5, 0.5], range=[-step / 8, step * 7 / 8], nice=False)
    aside = alt.YOffset("off:Q", scale=around)
    layers = [
        alt.Chart(data(means)).mark_tick(thickness=2, size=16).encode(x=x, y=y, **colour),
        alt.Chart(data(dots))
        .mark_point(filled=True, size=45, opacity=0.75)
        .encode(x=x, y=y, yOffset=aside, **colour),
    ]
    what = "one seed" if results.origin else "the network after the last epoch, from one seed"
    caption = f"Dot: {what}. Tick: their mean."
    shape = specification(layers, alt.Step(step))
    return Figure(name, "Each seed", caption + left_out(results, MOST_ROWS), shape)
