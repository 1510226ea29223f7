"""The page: whole without any other file, honest about what is missing, and only ever text."""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from blocklab.report.page import html, summary_sentence, write_report
from blocklab.results.study_results import StudyResults
from blocklab.study.metric import TOP1, Metric
from blocklab.study.reported import CostAt, Reported

MakeResults = Callable[..., StudyResults]
ATTACK = "<script>alert(1)</script>"


class Elements(HTMLParser):
    """Collects what a browser would see: elements with attributes, scripts, and plain text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def plain_page(results: StudyResults) -> str:
    """Return the page without its figures, which take most of the time."""
    return html(results, drawn=())


@pytest.fixture
def three_seeds(make_results: MakeResults) -> StudyResults:
    return make_results({"base": [46.0, 47.0, 48.0], "other": [50.0, 51.5, 52.0]})


def test_every_file_is_written(three_seeds: StudyResults, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    assert write_report(three_seeds, folder) == folder / "report.html"
    assert sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    ) == [
        *(
            f"figures/{name}.{ending}"
            for name in (
                "accuracy_against_macs",
                "accuracy_against_memory",
                "accuracy_against_params",
                "accuracy_against_time",
                "accuracy_of_each_seed",
                "differences",
                "train_loss_over_epochs",
                "validation_accuracy_over_epochs",
                "validation_top5_over_epochs",
            )
            for ending in ("png", "svg")
        ),
        "report.html",
        "rows/base.html",
        "rows/other.html",
        "runs.csv",
        "table.csv",
        "table.md",
        "table.tex",
        "verdicts.tex",
    ]
    assert len((folder / "runs.csv").read_text().splitlines()) == 7


def test_page_fetches_nothing(three_seeds: StudyResults) -> None:
    page = html(three_seeds)
    assert not re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?\s*(?:https?:)?//""", page)
    assert "@import" not in page
    elements = Elements(page)
    assert not [tag for tag, _ in elements.found if tag in ("link", "iframe", "img", "object")]
    assert not [attributes for tag, attributes in elements.found if "src" in attributes and tag]
    policy = [a["content"] for _, a in elements.found if a.get("http-equiv")]
    assert len(policy) == 1
    assert "default-src 'none'" in (policy[0] or "")
    assert "http" not in (policy[0] or "")


def test_one_script_runs_and_is_known_by_its_hash(three_seeds: StudyResults) -> None:
    page = html(three_seeds)
    (script,) = Elements(page).scripts
    assert len(script) < 20_000
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "unsafe-eval" not in page


def named_throughout(make_results: MakeResults, name: str, other: str) -> StudyResults:
    """Return results that say `name` in every place that takes text from a file."""
    return make_results(
        {name: [46.0, None], other: [50.0, "missing"]},
        reads_test_set=True,
        title=name,
        description=other,
        data={"source": name},
        recipe={name: {name: name}},
        recipe_name=name,
        varies=(name,),
        notes=(name,),
        command=name,
        failed={name: (name,)},
        reported={name: Reported(top1=1.0, macs_g=9.0, note=name, errata=(name,))},
        rows_with={name: {"reported_cost": CostAt(10**9, 10**6, 224)}},
        claims=(f'"{name}" > "{other}"' if '"' not in other else name, name),
    )


def test_names_are_text_everywhere(make_results: MakeResults) -> None:
    closing = f'"{ATTACK}</title></style></svg><img src=x onerror=alert(1)>'
    plain = Elements(html(named_throughout(make_results, "plain", "simple")))
    hostile = Elements(html(named_throughout(make_results, ATTACK, closing)))
    # A long name may break, and stand on the other side of its point.
    tags = [sorted(tag for tag, _ in page.found if tag != "wbr") for page in (hostile, plain)]
    assert tags[0] == tags[1]
    assert not [script for script in hostile.scripts if script.strip() == "alert(1)"]
    assert hostile.words.count(ATTACK) > 15
    assert len(hostile.scripts) == 1 and "alert" not in hostile.scripts[0]


def test_no_name_turns_the_figures_beside_it_around(make_results: MakeResults) -> None:
    results = make_results(
        {"plain": [46.0, 47.0], "\u05e9\u05dc\u05d5\u05dd 7": [50.0, 51.0]},
        title="12 \u202e34",
        description="bell \x07, line\u2028end\nnext",
    )
    page = html(results)
    assert "\u202e" not in page.partition("<script")[0] and "12 \\u202e34" in page
    assert "bell \\x07, line\\u2028end\nnext" in page
    assert "\u2068\u05e9\u05dc\u05d5\u05dd\u2069 7" in page


def test_table_of_the_page_is_the_table(three_seeds: StudyResults) -> None:
    page = plain_page(three_seeds)
    assert '<th scope="row">other</th>' in page
    assert "<td>51.17 \u00b1 1.04</td><td>2.650</td>" in page  # what it costs stands beside it
    assert '<td>3</td><td class="less">[48.58, 53.75]</td>' in page
    assert page.count('data-word="" class="baseline">') == 1


def test_medians_stand_beside_the_seeds_where_those_scatter(make_results: MakeResults) -> None:
    calm, wild = [76.0, 76.1, 75.9, 76.05, 76.0], [70.0, 60.0, 75.0, 50.0, 72.0]
    page = plain_page(make_results({"plain": calm, "wild": wild}))
    first, _, rest = page.partition('<details id="seeds">')
    assert "median" not in first.partition("<body")[2]
    assert "Medians and worst seeds" in rest
    assert "<td>70.00</td><td>50.00</td>" in rest.replace("\n", "")
    assert "Medians and worst seeds" not in plain_page(make_results({"plain": calm, "se": calm}))


def test_figures_are_seen_without_scripts(three_seeds: StudyResults) -> None:
    drawn = html(three_seeds).partition("<script")[0]
    assert drawn.count('class="forest') == 2
    assert drawn.count('class="drawing"') == 8
    assert drawn.count('fill="currentColor"') > 20  # so that they follow light and dark


def test_a_study_without_rows_is_a_page(three_seeds: StudyResults) -> None:
    assert "No run has finished yet." in html(replace(three_seeds, rows=()))


def test_one_seed_says_why_there_is_no_interval(
    make_results: MakeResults, three_seeds: StudyResults
) -> None:
    said = "One seed, so no interval."
    one, three = (
        plain_page(make_results({"first": [46.0], "second": [47.0]})),
        plain_page(three_seeds),
    )
    assert said in one and said not in three
    for caption in ("bar: an interval", "In brackets behind a difference: an interval"):
        assert caption in three and caption not in one


def test_nothing_finished_is_a_page_that_says_so(make_results: MakeResults, tmp_path: Path) -> None:
    results = make_results({"base": ["missing"] * 2, "other": ["missing"] * 2})
    page = write_report(results, tmp_path).read_text()
    assert "No run has finished yet." in page
    assert "no result from seeds 0, 1" in page
    assert 'class="drawing"' not in page and 'class="forest' not in page
    assert (tmp_path / "runs.csv").read_text().startswith("row,seed,status")


def test_selection_rule_is_said_as_it_was(
    make_results: MakeResults, three_seeds: StudyResults
) -> None:
    once = Elements(plain_page(three_seeds)).words
    assert "the test set is read once, after that epoch" in once
    assert "optimistic" not in once
    always = Elements(
        plain_page(make_results({"x": [46.0], "y": [47.0]}, reads_test_set=True))
    ).words
    assert "reads the test set after every epoch" in always
    assert "top\u20111, best test epoch (optimistic)" in always
    assert "46.75" in always


def test_what_failed_is_listed(make_results: MakeResults) -> None:
    results = make_results(
        {"base": [46.0, None, "missing"]}, failed={"base": ("seed 2: the disk is full",)}
    )
    words = Elements(plain_page(results)).words
    assert "seed 2: the disk is full" in words
    diverged = results.rows[0].diverged[0].hash
    assert f"seed 1 diverged after 5 epochs (run {diverged})" in words
    assert "no result from seed 2" in words
    assert "1 of 3 planned runs have finished" in words


def test_verdicts_are_marked_and_explained(three_seeds: StudyResults) -> None:
    page = plain_page(three_seeds)
    assert three_seeds.comparisons["other"].word == "better"
    assert '<span class="better">better</span>' in page
    words = Elements(page).words
    assert "other is better than base: +4.17 [+1.85, +6.48] points." in words
    assert "The highest mean top-1 is 51.17 \u00b1 1.04 %, of other." in words
    assert "Dunnett's test of 1 row with the spread pooled over all rows" in words
    assert "4 degrees of freedom" in words


@pytest.mark.parametrize("metric", [TOP1, replace(TOP1, unit="", name="score")])
def test_every_figure_of_how_sure_has_its_word_explained(
    make_results: MakeResults, metric: Metric
) -> None:
    accuracies = {"base": [46.0, 46.4, 46.1], "up": [47.0, 50.0, 43.0], "c": [46.5, 46.1, 46.0]}
    results = make_results(accuracies, metric=metric)
    assert results.family.method == "uneven"
    page = plain_page(results)
    heads = page.partition("Would other seeds say the same?")[2].partition("</thead>")[0]
    linked = dict(re.findall(r'<a href="#(\w+)">(.*?)</a>', heads))
    assert set(linked) == {"many", "p", "alone", "again", "best"}
    for name in linked:
        assert f'<dt id="{name}">' in page
    words = Elements(page).words
    assert "studies in which nothing differs are made up" in words
    assert "at least 95.5 % of those studies have none as large (of 2 rows" in words
    assert words.count("Dunnett") == 2  # is not used, and must show it too: the glossary is silent


def test_two_seeds_of_unlike_spread_say_how_little_they_show(
    make_results: MakeResults, three_seeds: StudyResults
) -> None:
    said = "Two seeds say too little of each row's own spread"
    few = make_results({"first": [46.0, 46.5], "second": [47.0, 47.01]})
    assert said in Elements(plain_page(few)).words
    assert few.comparisons["second"].word == "too few seeds"
    assert said not in Elements(plain_page(three_seeds)).words


def test_the_same_bits_are_said_and_not_ranked(make_results: MakeResults) -> None:
    accuracies = {"relu": [46.0, 47.0], "elu": [50.0, 51.0], "celu": [50.0, 51.0]}
    words = Elements(plain_page(make_results(accuracies, images=100, twins={"celu": "elu"}))).words
    assert "Identical function: same bits on every seed. elu and celu gave the same" in words
    apart = Elements(plain_page(make_results(accuracies, images=100))).words
    assert "Identical function" not in apart
    # where the baseline is one of them, its twin has no other verdict
    swapped = make_results(
        {"elu": [50.0, 51.0], "celu": [50.0, 51.0]}, images=100, twins={"celu": "elu"}
    )
    assert '<span class="same">identical function</span>' in plain_page(swapped)


def test_uncertainties_are_told_apart(make_results: MakeResults) -> None:
    words = Elements(
        plain_page(make_results({"base": [46.0, 47.0], "up": [50.0, 51.5]}, images=300))
    ).words
    assert "Which uncertainty is which" in words
    assert "networks trained again from other weights" in words
    assert "on other images of the same kind" in words


def test_claims_have_a_section_with_numbers(make_results: MakeResults) -> None:
    results = make_results(
        {"base": [46.0, 47.0, 48.0], "other": [50.0, 51.1, 51.9]},
        claims=("other > base by 1", "base > other", "gone > base", "base < other in macs"),
    )
    page = plain_page(results)
    words = Elements(page).words
    assert '<span class="better">supported</span>' in page
    assert '<span class="worse">contradicted</span>' in page
    assert '<span class="open">undecided</span>' in page
    assert "+4.00 [" in words and "points, 3 seeds" in words
    assert "names no row 'gone'" in words
    assert "<h2>Claims</h2>" not in plain_page(replace(results, claims=()))
    notes = {"base > other": "The baseline <b>is</b> better. (erratum 13)"}
    page = plain_page(replace(results, claim_notes=notes))
    said = "The baseline &lt;b&gt;is&lt;/b&gt; better. (erratum 13)"
    assert f'base &gt; other<div class="soft">{said}</div></th>' in page


def test_curves_have_a_section_where_there_are_any(make_results: MakeResults) -> None:
    results = make_results({"base": [46.0], "other": [47.0]})
    said = "No accuracies over epochs: these runs have no images for validation"
    assert "<h2>Curves over epochs</h2>" in html(results) and said not in html(results)
    assert "<h2>Curves over epochs</h2>" not in html(make_results({"base": ["missing"]}))
    for _, run in results.runs:  # as of a recipe that keeps no images for validation
        for line in run.log:
            del line["validation_top1_percent"], line["validation_top5_percent"]
    page = html(results)
    assert "Training loss over epochs" in page
    assert said in page and "test_every_epoch=true" in page


def test_reported_against_measured_is_a_table_of_its_own(make_results: MakeResults) -> None:
    ours = CostAt(2_586_000_000, 16_360_000, 224)
    results = make_results(
        {"base": [46.0], "other": [47.0]},
        reported={"base": Reported(params_m=6.36, top1=46.05, errata=("1: a misprint",))},
        rows_with={"base": {"reported_cost": ours}},
    )
    page = plain_page(results)
    words = Elements(page).words
    assert "Reported against measured" in words
    assert '<span class="far">+157.2</span>' in page
    assert "erratum 1: a misprint" in words
    assert "Reported against measured" not in plain_page(make_results({"base": [46.0]}))


def test_all_below_the_table_starts_folded_but_what_went_wrong(make_results: MakeResults) -> None:
    folded = Elements(html(make_results({"a": [40.0, 41.5], "b": [50.0, 51.0]}, images=50)))
    assert not [a for tag, a in folded.found if tag == "details" and "open" in a]
    failed = Elements(html(make_results({"a": [40.0, None], "b": [50.0, 51.0]})))
    assert [a["id"] for tag, a in failed.found if tag == "details" and "open" in a] == ["missing"]


def test_tables_that_are_no_more_are_removed(make_results: MakeResults, tmp_path: Path) -> None:
    write_report(make_results({"a": [1.0, 2.0], "b": [2.0, 4.0]}, images=20), tmp_path)
    assert (tmp_path / "uncertainty.tex").exists() and (tmp_path / "verdicts.tex").exists()
    write_report(make_results({"a": ["missing"]}), tmp_path)
    assert not (tmp_path / "uncertainty.tex").exists()
    assert not (tmp_path / "verdicts.tex").exists()


def test_summary_sentence(three_seeds: StudyResults) -> None:
    assert summary_sentence(three_seeds) == (
        "2 models on cifar100 (45,000 training, 5,000 validation and 10,000 test images, "
        "32\u00d732, 100 classes), each trained by the recipe report, 5 epochs, from 3 seeds; "
        "rows differ in attention only; the baseline is base."
    )


def test_seeds_that_differ_between_rows_are_counted_as_they_are(three_seeds: StudyResults) -> None:
    first, *others = three_seeds.rows
    more = replace(first, planned_seeds=(*first.planned_seeds, 3, 4, 5))
    assert "from 3 to 6 seeds;" in summary_sentence(replace(three_seeds, rows=(more, *others)))


def test_test_images_that_were_left_out_are_counted(three_seeds: StudyResults) -> None:
    three_seeds.runs[0][1].run["test_images_left_out"] = 39
    said = "10,000 test images, without 39 that have a copy in the training split, 32"
    assert said in summary_sentence(three_seeds)


def test_validation_images_that_vary_are_said(three_seeds: StudyResults) -> None:
    three_seeds.data["vary_split"] = True
    assert "5,000 validation (others from each seed) and 10,000" in summary_sentence(three_seeds)


def test_setup_runs_recipe_and_command_are_there(three_seeds: StudyResults) -> None:
    words = Elements(plain_page(three_seeds)).words
    for said in (
        "channels_last bf16-mixed 1 62 720 512",
        "Some CPU <fast> 2 1 c0de 2 3 4 6",
        f"runs/{three_seeds.rows[1].runs[2].hash}",
        "optimizer.lr 0.1",
        "ema none",
        "blocklab study attention --seeds 3",
    ):
        assert said in words


def test_machine_paths_stay_out_of_the_page(three_seeds: StudyResults) -> None:
    folder = three_seeds.rows[0].runs[0].folder
    assert str(folder.parent.parent) not in html(three_seeds)
