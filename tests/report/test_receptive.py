"""The figure of receptive fields: what it is of, and what they hang on, stand on it."""

import numpy as np
import pytest

from blocklab.errors import InputError
from blocklab.measure.receptive_field import ReceptiveField
from blocklab.report.drawing import ON_PAPER
from blocklab.report.figures import svg
from blocklab.report.receptive import MOST_CELLS, receptive_field_figure


def field(name: str, weights: str, size: int) -> ReceptiveField:
    away = np.abs(np.arange(size) - size // 2)
    values = np.exp(-(away[:, None] ** 2 + away**2) / size)
    return ReceptiveField(name, weights, size, 8, values)


def test_weights_and_input_size_are_printed_on_the_figure() -> None:
    fields = [field("first <b>", "random, seed 0", 64), field("second", "trained", 224)]
    drawn = svg(receptive_field_figure(fields), ON_PAPER)
    for said in (
        "first &lt;b&gt;",
        "weights: random, seed 0; input 64\u00d764",
        "weights: trained; input 224\u00d7224",
        f"50%: {fields[1].side_holding(0.5)}",
    ):
        assert said in drawn


def test_large_fields_are_made_coarse_and_keep_their_sum() -> None:
    specification = receptive_field_figure([field("one", "w", 224)]).specification
    (points,) = (
        specification["datasets"].values()
        if "datasets" in specification
        else [specification["concat"][0]["data"]["values"]]
    )
    assert len(points) == MOST_CELLS**2  # 224 pixels by fours
    brightest = max(points, key=lambda point: point["value"])
    assert brightest["value"] == 1.0
    assert brightest["x"] <= 112 < brightest["x2"] and brightest["y"] <= 112 < brightest["y2"]


def test_none_is_refused() -> None:
    with pytest.raises(InputError, match="no receptive field"):
        receptive_field_figure([])


def test_images_that_are_not_square_are_drawn_in_their_shape() -> None:
    values = np.zeros((30, 112))
    values[10:12, 100:102] = 1.0
    figure = receptive_field_figure([ReceptiveField("one", "w", (30, 112), 1, values)])
    (chart,) = figure.specification["concat"]
    assert chart["width"] / chart["height"] == 56 / 15
    (points,) = figure.specification["datasets"].values()
    assert len(points) == 56 * 15
    brightest = max(points, key=lambda point: point["value"])
    assert (brightest["x"], brightest["y"]) == (100, 10)
    assert "input 30\u00d7112" in svg(figure, ON_PAPER)
