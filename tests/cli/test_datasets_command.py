"""``blocklab study`` on several data sets, from the YAML file to the page of all."""

import json
from pathlib import Path
from typing import Any

Blocklab = Any

STUDY = """\
title: Two small data sets
datasets:
  small: {source: digits, train_images: 32, test_images: 40, image_size: 8}
  smaller: {source: digits, train_images: 24, test_images: 30, image_size: 8}
recipe: {base: quick, epochs: 1, batch_size: 16}
seeds: 1
varies: [attention]
model: {widths: [4, 4, 8], depths: [1, 1, 1]}
rows: {plain: resnet20, se: resnet20_se}
claims: [se > plain, se == plain within 90 on all]
"""


def test_a_study_on_two_data_sets(blocklab: Blocklab, tmp_path: Path) -> None:
    path, out = tmp_path / "two.yaml", tmp_path / "runs"
    path.write_text(STUDY)
    planned = json.loads(blocklab("study", path, "--out", out, "--dry-run", "--json").out)
    over_all = {"study": "two", "claim": "se == plain within 90 on all"}
    assert planned["claims"][-1] == {**over_all, "text": "over the data sets"}
    said = blocklab("study", path, "--out", out, "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert [one["study"] for one in found["studies"]] == ["two-small", "two-smaller"]
    over = found["over_datasets"]
    assert over["datasets"] == ["small", "smaller"]
    plain, se = over["rows"]
    by_study = [
        {row["row"]: row["test_top1_percent_mean"] for row in one["rows"]}
        for one in found["studies"]
    ]
    for row in (plain, se):
        means = [one[row["row"]] for one in by_study]
        assert list(row["top1_percent"].values()) == means
    gain = sum(one["se"] - one["plain"] for one in by_study) / 2
    assert abs(se["gain_points"] - gain) < 1e-9
    assert se["verdict"] in ("too few seeds", "at chance")
    assert [one["claim"] for one in over["claims"]] == ["se == plain within 90 on all"]
    assert "Over the data sets" in (out / "two" / "index.html").read_text()
    # A claim over the data sets that comes after the runs is marked, and one that goes counts.
    late = STUDY.replace("within 90 on all]", "within 90 on average]")
    path.write_text(late)
    (claim,) = json.loads(blocklab("study", path, "--out", out, "--json").out)["over_datasets"][
        "claims"
    ]
    assert claim["numbers"].endswith("; stated after the runs")
    path.write_text(STUDY)
    (claim,) = json.loads(blocklab("study", path, "--out", out, "--json").out)["over_datasets"][
        "claims"
    ]
    assert claim == over["claims"][0]
    assert (
        "counted in p (Holm): se == plain within 90 on average"
        in blocklab("report", out / "two").out
    )
    path.write_text(STUDY)
    again = blocklab("study", path, "--out", out)
    assert "over 2 data sets" in again.out and f"{out / 'two' / 'index.html'}" in again.out
    assert len(list(out.glob("*/result.json"))) == 4
    reported = blocklab("report", out / "two")
    assert reported.out == again.out
    over_again = json.loads(blocklab("report", out / "two", "--json").out)["over_datasets"]
    assert over_again == over
