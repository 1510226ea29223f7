"""The quickstart: a comparison that can be believed, and what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.study.study import Study

Blocklab = Callable[..., Any]


def test_it_trains_on_all_digits_and_says_what_is_known_beforehand() -> None:
    study = Study.load("quickstart")
    assert study.data.train_images is None and study.baseline == "plain"
    assert [str(row.name) for row in study.rows][-1] == "quarter_width"
    assert study.claims[0] == "plain > quarter_width"
    assert set(study.claims) == set(study.claim_notes)  # each in words
    runs = {row.definition(0).to_dict()["model"]["widths"][0] for row in study.rows}
    assert runs == {16, 4}  # but for the row that is known to be worse, one network


@pytest.mark.slow
def test_every_row_learns_a_verdict_is_given_and_a_claim_is_decided(
    blocklab: Blocklab, tmp_path: Path
) -> None:
    """Seeds decide it, and where bits differ from machine to machine so do the figures a little."""
    said = blocklab("quickstart", "--out", tmp_path / "runs", "--json")
    assert said.status == 0, said.err
    (study,) = json.loads(said.out)
    top1 = {row["row"]: row["test_top1_percent_mean"] for row in study["rows"]}
    assert top1["plain"] > 97 and min(top1.values()) > 95, top1
    assert max(top1.values()) - top1["plain"] < 1, top1
    verdicts = {row["row"]: row["verdict"] for row in study["rows"]}
    assert verdicts["quarter_width"] == "worse", verdicts
    claims = {claim["claim"]: claim["word"] for claim in study["claims"]}
    assert claims["plain > quarter_width"] == "supported", claims
    assert Path(study["page"]).exists() and not study["troubles"]
