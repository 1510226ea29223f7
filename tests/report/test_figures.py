"""The figures' files, their data, and labels that must not cover each other."""

import random
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from blocklab.report.cost_figures import MOST_LABELS
from blocklab.report.curves import MOST_LINES, MOST_NAMES, MOST_POINTS_A_LINE, left_out
from blocklab.report.drawing import COLOURS, ON_PAPER, spread
from blocklab.report.figures import MOST_DIFFERENCES, figures, save_figures, svg
from blocklab.report.seed_figure import seeds_as_dots
from blocklab.results.study_results import StudyResults
from blocklab.training.recipe import Recipe

MakeResults = Callable[..., StudyResults]


def values_of(specification: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all points of a specification, wherever Altair put them."""
    found = [point for data in specification.get("datasets", {}).values() for point in data]
    for part in [specification, *specification.get("layer", [])]:
        found += (part.get("data") or {}).get("values", [])
    return found


def by_name(results: StudyResults) -> dict[str, dict[str, Any]]:
    return {figure.name: figure.specification for figure in figures(results)}


def test_files_are_written_and_are_what_they_say(make_results: MakeResults, tmp_path: Path) -> None:
    results = make_results({"base": [46.0, 47.0], "<b>&": [50.0, 51.0]}, reads_test_set=True)
    written = save_figures(figures(results), tmp_path / "figures")
    assert sorted(path.name for path in written) == sorted(
        path.name for path in (tmp_path / "figures").iterdir()
    )
    assert len(written) == 22  # without learning rates and accuracies on training images
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
        else:
            root = ElementTree.fromstring(path.read_text())
            assert root.tag.endswith("svg")
            assert "<b>&" in "".join(root.itertext())
            marks = [one.attrib for one in root.iter() if "data-row" in one.attrib]
            assert {mark["data-row"] for mark in marks} >= {"1"}
            assert all("\ue000" not in value for mark in marks for value in mark.values())


def test_a_figure_without_data_goes(make_results: MakeResults, tmp_path: Path) -> None:
    save_figures(figures(make_results({"base": [46.0], "other": [47.0]})), tmp_path)
    assert (tmp_path / "differences.svg").exists()
    save_figures(figures(make_results({"only": [46.0]})), tmp_path)
    assert not (tmp_path / "differences.svg").exists()
    assert (tmp_path / "accuracy_against_macs.svg").exists()


def test_nothing_finished_is_no_figure(make_results: MakeResults) -> None:
    assert figures(make_results({"base": ["missing"], "other": [None]})) == ()


def test_curves_average_finished_seeds_only(make_results: MakeResults) -> None:
    results = make_results({"base": [40.0, 50.0, None]}, reads_test_set=True)
    points = values_of(by_name(results)["test_accuracy_over_epochs"])
    means = {point["epoch"]: point for point in points if "n" in point and "label" not in point}
    assert (means[4]["n"], sorted(means)) == (2, [1, 2, 3, 4, 5])
    at_last = [point for point in points if point["epoch"] == 5]
    assert {point["value"] for point in at_last if "n" in point} == {45.0}
    assert {(point["low"], point["high"]) for point in at_last} == {(40.0, 50.0)}  # the band


def test_test_curve_only_where_the_recipe_reads_it(make_results: MakeResults) -> None:
    assert "test_accuracy_over_epochs" not in by_name(make_results({"base": [46.0]}))


def test_top5_has_its_curve(make_results: MakeResults) -> None:
    points = values_of(by_name(make_results({"base": [40.0]}))["validation_top5_over_epochs"])
    assert max(point["value"] for point in points) == pytest.approx(60.0)


def test_learning_rate_is_the_recipes(make_results: MakeResults) -> None:
    assert "learning_rate" not in by_name(make_results({"base": [40.0]}))  # of no recipe
    recipe = Recipe(epochs=60, lr=0.1, schedule="step", step_epochs=30, warmup_epochs=0)
    results = make_results({"base": [40.0]}, recipe=recipe.model_dump(mode="json"))
    points = {p["epoch"]: p["lr"] for p in values_of(by_name(results)["learning_rate"])}
    before, after = max(e for e in points if e < 30), min(e for e in points if e >= 30)
    assert (points[0], points[before], points[after]) == pytest.approx((0.1, 0.1, 0.01))
    assert after - before < 0.2


def test_learning_rate_by_step_counts_the_runs_own_steps(make_results: MakeResults) -> None:
    recipe = Recipe(epochs=60, batch_size=256, drop_last=False, schedule="step", step_epochs=30)
    results = make_results({"base": [40.0]}, recipe=recipe.model_dump(mode="json"))
    points = values_of(by_name(results)["learning_rate_by_step"])
    steps = 176  # of 45,000 images
    assert max(point["step"] for point in points) < 60 * steps
    after = [point["step"] for point in points if point["lr"] < 0.05]
    assert 30 * steps <= min(after) < 30.2 * steps
    ran = [point for point in points if point["step"] in (steps, 5 * steps)]  # as it was recorded
    assert {point["lr"] for point in ran} == {0.1}
    assert len(points) == 400 + 5
    left_out = recipe.model_copy(update={"drop_last": True})
    fewer = make_results({"base": [40.0]}, recipe=left_out.model_dump(mode="json"))
    figure = next(one for one in figures(fewer) if one.name == "learning_rate_by_step")
    assert "An epoch is 175 steps." in figure.caption
    for _, run in fewer.runs:
        run.run["train_images"] = 0
    assert "learning_rate_by_step" not in by_name(fewer)


def test_of_many_rows_the_best_and_the_baseline_are_named(make_results: MakeResults) -> None:
    results = make_results({f"row{i:02}": [20.0 + i, 21.0 + i] for i in range(MOST_LINES + 10)})
    made = {figure.name: figure for figure in figures(results)}
    curve = made["validation_accuracy_over_epochs"]
    points = [p for p in values_of(curve.specification) if "row" in p]
    best = [f"row{i:02}" for i in range(70)][::-1]
    assert {p["row"] for p in points if "label" in p} == {"row00", *best[: MOST_NAMES - 1]}
    assert {p["row"] for p in points} == {"row00", *best[: MOST_LINES - 1]}
    assert "Of 70 rows 60 are drawn and 14 named: the baseline and" in curve.caption
    against = values_of(made["accuracy_against_macs"].specification)
    assert len({p["row"] for p in against if "row" in p}) == 70  # a point each
    assert len([p for p in against if "label" in p]) <= 2 * 2 * MOST_LABELS  # each with its line
    bars = {p["row"] for p in values_of(made["differences"].specification) if "row" in p}
    assert len(bars) == MOST_DIFFERENCES
    assert "row69" in bars and "row01" not in bars


def test_small_costs_keep_their_digits(make_results: MakeResults) -> None:
    macs = {"plain": 10_140_000, "narrow": 654_500}
    made = make_results({"plain": [99.0, 99.2], "narrow": [97.0, 97.3]}, macs=macs)
    figure = next(figure for figure in figures(made) if figure.name == "accuracy_against_macs")
    drawn = svg(figure, ON_PAPER)
    texts = [one.text for one in ElementTree.fromstring(drawn).iter() if one.tag.endswith("text")]
    assert {"0.001", "0.002", "0.01"} <= set(texts)
    assert "narrow: 97.15 %, MACs 0.0006545 G" in drawn
    assert not re.search(r' (?:d|transform)="[^"]*\d\.\d{3}', drawn)  # half of a page's bytes


def test_rows_without_a_run_are_not_said_to_be_left_out(make_results: MakeResults) -> None:
    rows: dict[str, list[Any]] = {f"row{n}": [20.0 + n] for n in range(MOST_NAMES)}
    all_named = make_results({**rows, "none": ["missing"], "gone": ["missing"]})
    assert left_out(all_named, MOST_NAMES) == ""
    one_not = make_results({**rows, "more": [50.0], "gone": ["missing"]})
    assert left_out(one_not, MOST_NAMES).startswith(f" Of {MOST_NAMES + 1} rows {MOST_NAMES} are")


def test_a_name_does_not_stand_on_the_front(make_results: MakeResults) -> None:
    macs = {"plain": 10_000_000_000, "narrow": 1_000_000_000}
    made = make_results({"plain": [99.0, 99.2], "narrow": [97.0, 97.3]}, macs=macs)
    figure = next(figure for figure in figures(made) if figure.name == "accuracy_against_macs")
    label = next(
        point
        for point in values_of(figure.specification)
        if point.get("row") == "narrow" and "label" in point
    )
    assert label["align"] == "left"  # to the right of its point, where the front goes on
    assert abs(label["label"] - label["top1"]) > 0.05


def test_long_logs_are_thinned_to_their_last_epoch(make_results: MakeResults) -> None:
    results = make_results({"base": [40.0, 41.0]}, epochs=1000)
    points = values_of(by_name(results)["validation_accuracy_over_epochs"])
    means = [point for point in points if "n" in point and "label" not in point]
    assert 50 < len(means) <= MOST_POINTS_A_LINE
    assert max(point["epoch"] for point in means) == 1000


def test_axes_do_not_start_at_zero(make_results: MakeResults) -> None:
    specification = by_name(make_results({"a": [60.0, 60.4], "b": [61.0, 61.5]}))
    for layer in specification["accuracy_against_macs"]["layer"]:
        low, high = layer["encoding"]["y"]["scale"]["domain"]
        assert 45 < low < 60 < 61.5 < high


def test_differences_show_the_zero_line_and_all_but_the_baseline(
    make_results: MakeResults,
) -> None:
    results = make_results({"base": [46.0, 47.0], "up": [50.0, 51.5], "down": [45.0, 45.5]})
    points = values_of(by_name(results)["differences"])
    assert {point["row"] for point in points if "row" in point} == {"up", "down"}
    assert {"zero": 0} in points
    up = next(point for point in points if point.get("row") == "up")
    assert (up["mean"], up["n"]) == (4.25, 2)
    assert (
        up["text"] == "+4.25 [+1.30, +7.20]"
    )  # 4.302653 (t of 2 df) times sqrt((0.5 + 1.125) / 2 / 2 * 2 / 2)


@pytest.mark.parametrize("down", [[41.5], [41.5, 48.0], [46.0], [46.0, 46.0]])
def test_few_enough_differences_are_marked_that_zero_is_written(
    make_results: MakeResults, down: list[float]
) -> None:
    results = make_results({"base": [46.0] * len(down), "down": down, "up": [48.0] * len(down)})
    figure = next(one for one in figures(results) if one.name == "differences")
    written = re.findall(r"<text([^>]*)>([−0-9.]+)</text>", svg(figure, ON_PAPER))
    marks = [text for attributes, text in written if 'text-anchor="middle"' in attributes]
    seen = [text for attributes, text in written if 'opacity="0"' not in attributes]
    assert any(float(text) == 0 for text in seen if "−" not in text)
    assert set(marks) <= set(seen) and len(marks) <= 9


def test_colours_are_used_once_before_dashes_change(make_results: MakeResults) -> None:
    results = make_results({f"row{i}": [40.0 + i] for i in range(9)})
    specification = by_name(results)["validation_accuracy_over_epochs"]
    encoding = next(
        layer["encoding"] for layer in specification["layer"] if "strokeDash" in layer["encoding"]
    )
    colours = encoding["color"]["scale"]["range"]
    dashes = [tuple(dash) for dash in encoding["strokeDash"]["scale"]["range"]]
    assert len(set(colours[: len(COLOURS)])) == len(COLOURS)
    assert len(set(zip(colours, dashes, strict=True))) == 9


def test_accuracy_axes_stay_within_what_an_accuracy_can_be(make_results: MakeResults) -> None:
    made = by_name(make_results({"a": [99.0, 96.0], "b": [1.0, 0.0]}))
    curves = made["validation_accuracy_over_epochs"]["layer"]
    costs = made["accuracy_against_macs"]["layer"]
    for layer in [*curves, *costs]:
        low, high = layer["encoding"]["y"]["scale"]["domain"]
        assert 0 <= low < high <= 100
    ends = [p for p in values_of(made["accuracy_against_macs"]) if "low" in p]
    assert {(p["row"], p["high"]) for p in ends if p["high"] == 100} == {("a", 100.0)}
    assert {(p["row"], p["low"]) for p in ends if p["low"] == 0} == {("b", 0.0)}
    shapes = {layer["mark"].get("shape") for layer in costs}  # marks where an interval was cut
    assert {"triangle-up", "triangle-down"} <= shapes


def test_labels_cover_nothing_with_two_seeds(make_results: MakeResults) -> None:
    names = ("plain", "se", "coordinate", "global_context", "triplet", "selective_kernel", "cbam")
    draw = random.Random(1)
    accuracies = {name: [draw.gauss(90, 3), draw.gauss(90, 3)] for name in names}
    macs = {name: 41_000_000 + 300_000 * i for i, name in enumerate(names)}
    made = by_name(make_results(accuracies, macs=macs))["accuracy_against_macs"]
    low, high = made["layer"][0]["encoding"]["y"]["scale"]["domain"]
    gap = (high - low) * 14 / made["height"]
    labelled = {p["row"]: p for p in values_of(made) if "label" in p}
    assert labelled.keys() == set(names)
    covered = []
    for point in labelled.values():
        left = point["place"] + 10
        right = left + 6.5 * len(point["row"])
        if point["align"] == "right":
            left, right = 2 * point["place"] - right, 2 * point["place"] - left
        covered.append((left, right, point["label"] - gap / 2.1, point["label"] + gap / 2.1))
        assert left >= 0 and point["label"] > low
        for other in labelled.values():  # no label on a point
            assert not (
                left < other["place"] < right and abs(other["top1"] - point["label"]) < gap / 2.1
            )
    for one, other in combinations(covered, 2):
        across = one[0] < other[1] and other[0] < one[1]
        assert not (across and one[2] < other[3] and other[2] < one[3])


@pytest.mark.parametrize("name", [r"$\xi$", r"\underline{a}", "${x}", "'\"`", "\\"])
def test_names_that_are_code_elsewhere_are_drawn(make_results: MakeResults, name: str) -> None:
    for figure in figures(make_results({name: [46.0, 47.0], "b": [48.0, 48.5]})):
        shown = "".join(ElementTree.fromstring(svg(figure, ON_PAPER)).itertext())
        assert name in shown or figure.name.startswith("learning_rate")


def test_equal_costs_and_accuracies_keep_labels_apart(make_results: MakeResults) -> None:
    macs = {name: 4_170_000_000 for name in ("first", "second", "third")}
    results = make_results({name: [60.0] for name in macs}, macs=macs)
    specification = by_name(results)["accuracy_against_macs"]
    points = {p["row"]: p for p in values_of(specification) if "label" in p}
    low, high = specification["layer"][0]["encoding"]["y"]["scale"]["domain"]
    line = (high - low) * 14 / specification["height"]
    assert len(points) == 3
    for side in ("left", "right"):
        heights = sorted(p["label"] for p in points.values() if p["align"] == side)
        assert all(b - a >= 0.98 * line for a, b in pairwise(heights))


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([1.0, 5.0], [1.0, 5.0]),
        ([2.0, 2.0], [1.5, 2.5]),
        ([3.0, 1.0, 1.2], [3.0, 0.6, 1.6]),
        ([0.0, 0.5, 1.0], [-0.5, 0.5, 1.5]),
        ([], []),
    ],
)
def test_spread_moves_as_little_as_it_can(places: list[float], expected: list[float]) -> None:
    assert spread(places, 1.0) == pytest.approx(expected)


def test_spread_stays_below_the_top() -> None:
    assert spread([9.0, 9.5, 2.0], 1.0, highest=9.5) == pytest.approx([8.5, 9.5, 2.0])


@pytest.mark.parametrize(("epochs", "expected"), [(2, [1, 2]), (50, list(range(1, 51, 7)))])
def test_epochs_are_named_once(make_results: MakeResults, epochs: int, expected: list[int]) -> None:
    made = by_name(make_results({"base": [40.0]}, epochs=epochs))
    layers = made["validation_accuracy_over_epochs"]["layer"]
    axes = [layer["encoding"]["x"].get("axis") or {} for layer in layers]
    assert [axis["values"] for axis in axes if "values" in axis][:1] == [expected]


def test_seeds_alike_are_seen_as_several(make_results: MakeResults) -> None:
    figure = seeds_as_dots(make_results({"plain": [76.0] * 4}), "seeds")
    assert figure is not None
    drawn = svg(figure, ON_PAPER)
    places = re.findall(r'data-said="plain, seed[^>]*?transform="translate\(([^)]*)\)"', drawn)
    assert len(places) == 4 and len(set(places)) == 4
    across = {place.split(",")[0] for place in places}
    down = [float(place.split(",")[1]) for place in places]
    assert len(across) == 1 and all(0 <= one <= 24 for one in down)
    assert sum(down) / 4 == pytest.approx(12, abs=1)  # around their row's line
