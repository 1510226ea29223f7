"""Studies as data: what a file may say, what is checked, and what each mistake is answered with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blocklab.errors import InputError
from blocklab.models.spec import model_spec
from blocklab.study.study import Study

Fields = dict[str, Any]


def fields(**changes: Any) -> Fields:
    return {
        "title": "A study",
        "data": {"source": "digits", "train_images": 100},
        "recipe": {"base": "quick", "epochs": 2},
        "seeds": 2,
        "varies": ["attention"],
        "rows": {"plain": "resnet20", "se": "resnet20_se", "ca": "resnet20_ca"},
        **changes,
    }


def refusal(value: object, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        Study.parse(value, "mine", **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


# What a study is.
def test_rows_share_all_that_the_study_says() -> None:
    study = Study.parse(fields(model={"stem": "imagenet"}), "mine")
    assert [row.name for row in study.rows] == ["plain", "se", "ca"]
    assert study.baseline == "plain"
    assert study.seeds == (0, 1)
    assert {row.recipe.epochs for row in study.rows} == {2}
    assert {row.data.train_images for row in study.rows} == {100}
    assert {row.model.to_dict()["stem"]["type"] for row in study.rows} == {"imagenet"}
    assert len({run.definition.hash for run in study.plan()}) == 6


def test_the_plan_goes_through_all_rows_seed_by_seed() -> None:
    study = Study.parse(fields(), "mine")
    order = [(run.definition.seed, run.row.name) for run in study.plan()]
    assert order == [(seed, name) for seed in (0, 1) for name in ("plain", "se", "ca")]


def test_a_row_may_fill_slots_and_change_recipe_and_data() -> None:
    row = {
        "model": {"base": "resnet20", "attention": ["se", "triplet"]},
        "recipe": {"lr": 0.05},
        "data": {"image_size": 40},
        "reported": {"top1": 77.6, "macs_g": 0.04, "note": "from a table"},
        "note": "larger images",
    }
    value = fields(
        varies=["attention", "recipe.lr", "data.image_size"], rows={"plain": "resnet20", "x": row}
    )
    changed = Study.parse(value, "mine").rows[1]
    assert changed.model == model_spec("resnet20:attention=[se,triplet]")
    assert changed.recipe.lr == 0.05
    assert changed.recipe.epochs == 2
    assert changed.data.image_size == 40
    assert changed.data.train_images == 100
    assert changed.reported is not None
    assert changed.reported.top1 == 77.6
    assert changed.note == "larger images"


def test_rows_may_be_a_list_of_names_in_text_form_too() -> None:
    study = Study.parse(fields(rows=["resnet20", "resnet20:attention=[se,triplet]"]), "mine")
    assert [row.name for row in study.rows] == ["resnet20", "resnet20:attention=[se,triplet]"]


def test_a_row_of_its_own_slots_goes_before_the_slots_of_all() -> None:
    rows = {"deep": {"base": "resnet18", "stem": "deep"}, "plain": "resnet18"}
    study = Study.parse(fields(model={"stem": "cifar"}, varies=["stem"], rows=rows), "mine")
    assert [row.model.to_dict()["stem"]["type"] for row in study.rows] == ["deep", "cifar"]


@pytest.mark.parametrize("slot", [{"stem": "deep"}, {"drop_rate": 0.3}], ids=str)
def test_a_slot_beside_a_rows_model_is_a_slot_whatever_field_it_looks_like(
    slot: dict[str, Any],
) -> None:
    rows = {"plain": "resnet20", "other": {"model": "resnet20", **slot}}
    beside = Study.parse(fields(varies=["model"], rows=rows), "mine").rows[1].model
    assert beside == model_spec({"base": "resnet20", **slot})
    with pytest.raises(InputError, match="did you mean 'note'"):
        Study.parse(fields(rows={**rows, "o": {"model": "resnet20", "nots": "x"}}), "mine")


def test_seeds_until_decided_are_a_files_own() -> None:
    with pytest.raises(InputError, match=r"stands in a study's own file.*give how many, or a list"):
        Study.parse(fields(), "mine", seeds="until_decided")  # type: ignore[arg-type]


def test_changes_from_the_command_line() -> None:
    study = Study.parse(
        fields(),
        "mine",
        data="cifar10",
        recipe="report",
        seeds=3,
        rows=["ca"],
        settings={"epochs": 7, "data.train_images": 50},
    )
    assert study.data.source == "cifar10"
    assert study.data.train_images == 50
    assert study.recipe.epochs == 7
    assert study.recipe.schedule == "step"
    assert study.recipe_name == "report (changed)"
    assert study.seeds == (0, 1, 2)
    assert [row.name for row in study.rows] == ["plain", "ca"]  # the baseline stays
    assert {row.recipe.epochs for row in study.rows} == {7}
    assert {row.data.train_images for row in study.rows} == {50}
    assert Study.parse(fields(), "mine", seeds=[5, 9]).seeds == (5, 9)


def test_a_study_is_found_by_path(tmp_path: Path) -> None:
    path = tmp_path / "my study.yaml"
    path.write_text(
        "title: t\ndata: digits\nrecipe: quick\nvaries: [attention]\n"
        "rows: {plain: resnet20, se: resnet20_se}\n"
    )
    study = Study.load(path)
    assert study.name == "my study"
    assert study.seeds == (0,)


# Fairness.
@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"rows": {"a": "resnet20", "b": "resnet20:activation=gelu"}}, "activation"),
        ({"rows": {"a": "resnet20", "b": {"model": "resnet20", "recipe": {"lr": 0.3}}}}, "recipe."),
        ({"rows": {"a": "resnet20", "b": {"model": "resnet20", "recipe": "strong"}}}, "recipe."),
        (
            {"rows": {"a": "resnet20", "b": {"model": "resnet20", "recipe": {"epochs": 9}}}},
            "epochs",
        ),
        ({"rows": {"a": "resnet20", "b": {"model": "resnet20", "data": "cifar10"}}}, "data.source"),
        ({"rows": ["resnet20", "resnet32"]}, "depths"),
        ({"rows": ["resnet20", "van_b0"]}, "family"),
        ({"rows": ["resnet20:attention=se", "resnet20:mixer=selective_kernel"]}, "mixer"),
        (
            {"varies": ["mixer.scale"], "rows": ["res2net20", "res2net20_26w_4s"]},
            "mixer.base_width",
        ),
        ({"varies": ["recipe"], "rows": ["resnet20", "resnet20_se"]}, "attention"),
        ({"varies": [], "rows": ["resnet20", "resnet20_se"]}, "attention"),
    ],
)
def test_rows_that_differ_outside_varies_are_refused(changes: Fields, path: str) -> None:
    message = refusal(fields(**changes))
    assert path in message
    assert "which is not in varies; add it there or make the rows alike" in message


@pytest.mark.parametrize(
    ("varies", "rows"),
    [
        (["model"], ["resnet20", "van_b0", "replknet_31n"]),
        (["mixer"], ["res2net20", "res2net20_26w_4s", "resnet20_sk", "resnet20"]),
        (["mixer.base_width"], ["res2net20", "res2net20_26w_4s"]),
        (["mixer.attention", "attention"], ["res2net20", "res2net20_st", "res2net20_s1"]),
        (["recipe"], {"a": "resnet20", "b": {"model": "resnet20", "recipe": "strong"}}),
        (["recipe.lr"], {"a": "resnet20", "b": {"model": "resnet20", "recipe": {"lr": 0.3}}}),
        (["data.source"], {"a": "resnet20", "b": {"model": "resnet20", "data": "cifar10"}}),
    ],
)
def test_rows_may_differ_in_what_varies_says(varies: list[str], rows: Any) -> None:
    assert len(Study.parse(fields(varies=varies, rows=rows), "mine").rows) == len(rows)


def test_rows_that_are_one_run_are_refused_and_one_function_twice_is_not() -> None:
    message = refusal(fields(rows={"a": "res2net20_se", "b": "res2net20_s2"}))
    assert "rows 'a' and 'b' are the same run; remove one" in message
    rows = {"celu": "van_b0_act_celu", "elu": "van_b0_act_elu"}
    assert len(Study.parse(fields(varies=["mixer"], rows=rows), "mine").rows) == 2


ABLATE = {
    "base": "resnet20",
    "full": {
        "se": {"attention": "se"},
        "c": {"activation": "celu"},
        "deep": {"stem": {"type": "deep", "widths": [8, 8]}},
    },
}


def ablated(**changes: Any) -> Fields:
    value = fields(ablate={**ABLATE, **changes}, varies=["attention", "activation", "stem"])
    return {key: field for key, field in value.items() if key != "rows"}


def test_an_ablation_has_each_change_left_out_and_alone() -> None:
    study = Study.parse(ablated(), "mine")
    assert [row.name for row in study.rows] == [
        *("full", "without-se", "without-c", "without-deep"),
        *("base", "with-se", "with-c", "with-deep"),
    ]
    assert study.baseline == "base"
    of = {row.name: row.model for row in study.rows}
    deep = "stem={type: deep, widths: [8, 8]}"
    assert of["full"] == model_spec(f"resnet20_se:activation=celu,{deep}")
    assert of["without-se"] == model_spec(f"resnet20:activation=celu,{deep}")
    assert of["with-c"] == model_spec("resnet20:activation=celu")
    assert of["base"] == model_spec("resnet20")


def test_an_ablation_of_two_changes_and_of_one_has_each_run_once() -> None:
    two = {change: ABLATE["full"][change] for change in ("se", "c")}  # type: ignore[index]
    study = Study.parse(ablated(full=two), "mine")
    assert [row.name for row in study.rows] == ["full", "without-se", "without-c", "base"]
    one = Study.parse(ablated(full={"se": two["se"]}), "mine")
    assert [row.name for row in one.rows] == ["full", "base"]


def test_an_ablation_has_claims_reported_figures_and_slots_of_all() -> None:
    value = ablated() | {
        "reported": {"full": {"top1": 60.9}},
        "claims": ["full best of all", "gain(with-c) > 0.5 * gain(full)"],
        "model": {"stem": "imagenet"},
    }
    study = Study.parse(value, "mine", rows=["full", "with-c"])
    assert [row.name for row in study.rows] == ["full", "base", "with-c"]
    assert study.rows[0].reported is not None
    assert study.claims == ("gain(with-c) > 0.5 * gain(full)",)
    assert study.rows[1].model.to_dict()["stem"]["type"] == "imagenet"


def test_curves_are_recorded_of_rows_with_a_recipe_of_their_own() -> None:
    rows = {"a": "resnet20", "b": {"model": "resnet20", "recipe": "strong"}}
    study = Study.parse(fields(curves="test", rows=rows, varies=["recipe"], baseline="a"), "mine")
    assert [row.recipe.test_every_epoch for row in study.rows] == [True, True]


def test_a_studys_field_holds_for_a_row_that_gives_it_something_to_do() -> None:
    """`ema_warmup` does nothing without `ema_decay`, and is left out of what such a run is."""
    rows = {"a": "resnet20", "b": {"model": "resnet20", "recipe": {"ema_decay": 0.9}}}
    given = fields(
        rows=rows, varies=["recipe"], baseline="a", recipe={"base": "quick", "ema_warmup": False}
    )
    assert Study.parse(given, "mine").rows[1].recipe.ema_warmup is False
    plain = {**given, "rows": {"a": "resnet20"}}
    for settings in ({"ema_decay": 0.9}, {"ema_decay": 0.9, "lr": 0.2}):
        (row,) = Study.parse(plain, "mine", settings=settings).rows
        assert row.recipe.ema_warmup is False


def test_curves_are_recorded_under_any_recipe() -> None:
    for changes in ({}, {"recipe": "strong"}):
        study = Study.parse(fields(curves="test"), "mine", **changes)
        assert {row.recipe.test_every_epoch for row in study.rows} == {True}
        assert study.recipe_name.endswith("(changed)")
        assert study.recipe_name.count("(changed)") == 1
    off = Study.parse(fields(curves="test"), "mine", settings={"test_every_epoch": False})
    assert not off.recipe.test_every_epoch


def test_errata_of_rows_and_claims_are_said_once() -> None:
    value = fields(
        errata={"1": "one", "2": "two", "3": "three"},
        general_errata=[1],
        reported={"se": {"top1": 50, "see": [2]}},
        claims=[{"claim": "se > plain", "text": "SE helps.", "errata": [2, 3]}],
    )
    study = Study.parse(value, "mine")
    assert study.notes == ("Erratum 1: one", "Erratum 2: two", "Erratum 3: three")
    assert study.claim_notes == {"se > plain": "SE helps. (errata 2, 3)"}
    assert study.rows[1].reported is not None
    assert study.rows[1].reported.see == ("2: two",)
    assert study.rows[1].reported.epoch == "unknown"
    narrowed = Study.parse(value, "mine", rows=["ca"])  # without the row and the claim
    without = "a part of its file's study, without the row se and the claim that names it"
    assert narrowed.notes == ("Erratum 1: one", without)
    assert narrowed.claim_notes == {}


def test_what_a_run_records_when_it_is_diagnosed_can_be_claimed() -> None:
    value = fields(diagnose={"first": 1, "last": 2}, claims=["se > plain in zeros"])
    study = Study.parse(value, "mine")
    assert study.diagnose is not None
    assert (study.diagnose.first, study.diagnose.last) == (1, 2)
    assert study.claims == ("se > plain in zeros",)


# Mistakes.
MISTAKES: list[tuple[str, Callable[[], object], str]] = [
    ("nothing", lambda: None, "study 'mine' holds no fields"),
    ("a list", lambda: ["resnet20"], "study 'mine' holds no fields"),
    ("a collection", lambda: {"title": "t", "studies": ["a"]}, "'mine' is a collection of studies"),
    ("unknown key", lambda: fields(epochs=3), "study 'mine' has no 'epochs'"),
    ("misspelt key", lambda: fields(recipes="quick"), "did you mean 'recipe'"),
    ("rows as text", lambda: fields(rows="resnet20"), "write such as rows: [resnet20"),
    ("row of many lines", lambda: fields(rows={"a\nb": "resnet20"}), "names no row"),
    ("no rows key", lambda: {k: v for k, v in fields().items() if k != "rows"}, "rows: is missing"),
    ("no title", lambda: {k: v for k, v in fields().items() if k != "title"}, "title: is missing"),
    ("empty rows", lambda: fields(rows={}), "has no rows; add one"),
    ("rows twice", lambda: fields(rows=["resnet20", "resnet20"]), "lists a row twice"),
    ("row that rings", lambda: fields(rows={"a\x07": "resnet20"}), "names no row"),
    ("row that turns", lambda: fields(rows={"a\u202e9": "resnet20"}), r"u202e9' names no row"),
    ("row of half a letter", lambda: fields(rows={"\ud800": "resnet20"}), "names no row"),
    ("row of two lines", lambda: fields(rows={"a\u2028b": "resnet20"}), "names no row"),
    ("row of no name", lambda: fields(rows={"": "resnet20"}), "'' names no row"),
    ("row as number", lambda: fields(rows={"a": 3}), "a row is a model's name or slots"),
    ("row as nothing", lambda: fields(rows={"a": None}), "row 'a'"),
    ("row's unknown key", lambda: fields(rows={"a": {"model": "resnet20", "x": 1}}), "no slot 'x'"),
    ("unknown model", lambda: fields(rows=["resnet21"]), "no model 'resnet21'; did you mean"),
    ("unknown slot", lambda: fields(rows={"a": {"base": "resnet20", "att": 1}}), "no slot 'att'"),
    ("unknown block", lambda: fields(rows=["resnet20:attention=sse"]), "no attention 'sse'"),
    ("unknown recipe", lambda: fields(recipe="quik"), "no recipe 'quik'; did you mean 'quick'"),
    ("recipe's key", lambda: fields(recipe={"base": "quick", "lrr": 1}), "did you mean 'lr'"),
    ("unknown data", lambda: fields(data="cifar1000"), "cifar100"),
    ("data's key", lambda: fields(data={"source": "digits", "train": 1}), "train_images"),
    ("no seeds", lambda: fields(seeds=0), "seeds"),
    ("negative seed", lambda: fields(seeds=[-1]), "a seed is from 0"),
    ("seed twice", lambda: fields(seeds=[1, 1]), "a list of different numbers"),
    ("seeds as yes", lambda: fields(seeds=True), "seeds"),
    (
        "misspelt until_decided",
        lambda: fields(seeds="untildecided"),
        "or until_decided, not 'untildecided'; did you mean 'until_decided'",
    ),
    ("seeds as text", lambda: fields(seeds="3"), "seeds"),
    ("a million seeds", lambda: fields(seeds=1_000_000), "seeds"),
    ("a seed too large", lambda: fields(seeds=[2**40]), "a seed is from 0"),
    ("varies nothing known", lambda: fields(varies=["atention"]), "did you mean 'attention'"),
    ("varies no recipe's", lambda: fields(varies=["recipe.lrr"]), "did you mean 'recipe.lr'"),
    ("varies no option", lambda: fields(varies=["mixer.scale"]), "'mixer.scale', which no row"),
    ("row for rows", lambda: {"row": ["resnet20"], "titel": "a"}, "has no 'row'; did you mean"),
    ("titel for title", lambda: {"titel": "a", "row": ["resnet20"]}, "has no 'titel'; did you "),
    ("row's model misspelt", lambda: fields(rows={"a": {"modle": "se"}}), "you mean 'model'"),
    ("row's base misspelt", lambda: fields(rows={"a": {"bas": "se"}}), "did you mean 'base'"),
    ("claim misspelt", lambda: fields(claims=[{"clam": "se > ca"}]), "did you mean 'claim'"),
    ("data of no type", lambda: fields(data=5), "data: Input should be a valid string or a valid"),
    ("varies as text", lambda: fields(varies="attention"), "varies: Input should be a valid list"),
    ("no such baseline", lambda: fields(baseline="plan"), "is not a row; did you mean 'plain'"),
    ("reported for no row", lambda: fields(reported={"see": {"top1": 1}}), "did you mean 'se'"),
    ("reported is NaN", lambda: fields(reported={"se": {"top1": float("nan")}}), "top1"),
    ("reported over 100", lambda: fields(reported={"se": {"top1": 101}}), "top1"),
    ("reported misspelt", lambda: fields(reported={"se": {"top_1": 1}}), "did you mean 'top1'"),
    (
        "reported twice",
        lambda: fields(
            rows={"a": {"model": "resnet20", "reported": {"top1": 1}}}, reported={"a": {"top1": 1}}
        ),
        "reported twice",
    ),
    ("unknown errata", lambda: fields(errata="reprot"), "did you mean 'report'"),
    ("no erratum", lambda: fields(reported={"se": {"errata": [3]}}), "no erratum 3; it has none"),
    ("no general erratum", lambda: fields(errata={"1": "x"}, general_errata=[2]), "no erratum 2"),
    ("claim of no row", lambda: fields(claims=["see > plain"]), "did you mean 'se'"),
    ("claim of one row", lambda: fields(claims=["se > se"]), "itself"),
    ("no claim", lambda: fields(claims=["se is better"]), "'se is better' is no claim"),
    ("claim in nothing", lambda: fields(claims=["se > plain in topp1"]), "did you mean 'top1'"),
    ("claim twice", lambda: fields(claims=["se > ca", "se > ca"]), "twice"),
    ("claim without claim", lambda: fields(claims=[{"text": "SE helps"}]), "claims.0.claim"),
    ("claim of zeros", lambda: fields(claims=["se > ca in zeros"]), "no run of it records; add di"),
    (
        "claim's erratum",
        lambda: fields(claims=[{"claim": "se > ca", "errata": [4]}]),
        "no erratum 4",
    ),
    ("best of itself", lambda: fields(claims=["se best of se"]), "compares 'se' with itself"),
    ("gain of the baseline", lambda: fields(claims=["gain(plain) > gain(se)"]), "whose gain is 0"),
    ("diagnose backwards", lambda: fields(diagnose={"first": 3, "last": 2}), "diagnose: batches 3"),
    ("diagnose from 0", lambda: fields(diagnose={"first": 0}), "diagnose.first"),
    ("diagnose misspelt", lambda: fields(diagnose={"frist": 3}), "did you mean 'first'"),
    ("curves of nothing", lambda: fields(curves="validation"), "curves: Input should be 'test'"),
    ("reported of no epoch", lambda: fields(reported={"se": {"epoch": "first"}}), "epoch"),
    ("reported sees nothing", lambda: fields(reported={"se": {"see": [2]}}), "no erratum 2"),
    ("rows and ablate", lambda: fields(ablate=ABLATE), "keep one of them"),
    ("ablate nothing", lambda: ablated(full={}), "ablate.full"),
    ("ablate misspelt", lambda: ablated(fulll={}), "did you mean 'full'"),
    ("ablate an empty change", lambda: ablated(full={"a": {}}), "the change 'a' is empty; say"),
    (
        "ablate the same twice",
        lambda: ablated(full={"a": {"attention": "se"}, "b": {"attention": {"type": "se"}}}),
        "the changes 'a' and 'b' are the same; remove one",
    ),
    (
        "ablate without a change",
        lambda: ablated(full={"a": {"activation": "relu"}}),
        "the change 'a' changes nothing",
    ),
    (
        "ablate one slot twice",
        lambda: ablated(full={"a": {"attention": "se"}, "b": {"attention": "triplet"}}),
        "the changes 'a' and 'b' both fill attention; make them one",
    ),
    ("ablate an unknown slot", lambda: ablated(full={"a": {"att": "se"}}), "no slot 'att'"),
    ("ablate an unknown model", lambda: ablated(base="resnet21"), "did you mean"),
    ("reported size", lambda: fields(reported_cost={"input_size": 0}), "input_size"),
    ("slot of all", lambda: fields(model={"stemm": "cifar"}), "no slot 'stemm'"),
    ("tune one rate", lambda: fields(tune={"lr": [0.1]}), "tune.lr"),
    ("tune below zero", lambda: fields(tune={"lr": [0.1, -1]}), "tune.lr"),
    ("tune something else", lambda: fields(tune={"momentum": [0.1, 0.9]}), "tune"),
    ("tune a rate twice", lambda: fields(tune={"lr": [0.1, 0.1]}), "tune.lr has a value twice"),
    ("tune from used seeds", lambda: fields(tune={"lr": [1, 2], "seeds": [1]}), "share 1"),
    (
        "tune what a row sets",
        lambda: fields(
            tune={"lr": [1, 2]},
            varies=["recipe.lr"],
            rows={"a": "resnet20", "b": {"model": "resnet20", "recipe": {"lr": 0.3}}},
        ),
        "leave lr out of row 'b'",
    ),
]


@pytest.mark.parametrize(
    ("make", "message"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_mistakes(make: Callable[[], object], message: str) -> None:
    assert message in refusal(make())


def test_mistakes_on_the_command_line() -> None:
    assert "no row 'seo'; did you mean 'se'" in refusal(fields(), rows=["seo"])
    assert "1 to 1000 seeds, not 0" in refusal(fields(), seeds=0)
    assert "1 to 1000 seeds" in refusal(fields(), seeds=10**9)
    assert "no recipe 'quik'" in refusal(fields(), recipe="quik")
    assert "did you mean 'epochs'" in refusal(fields(), settings={"epoch": 3})
    assert "train_images" in refusal(fields(), settings={"data.train_image": 3})
    with pytest.raises(InputError, match="no study 'quickstar'; did you mean 'quickstart'"):
        Study.load("quickstar")
    with pytest.raises(InputError, match="cannot read"):
        Study.load("not_there.yaml")
    with pytest.raises(InputError, match="'report_all' is a collection of studies"):
        Study.load("report_all")


def test_one_seed_and_claims_are_no_mistake() -> None:
    study = Study.parse(fields(seeds=1, claims=["se > plain", "se == ca within 0.2"]), "mine")
    assert study.seeds == (0,)
    assert study.claims == ("se > plain", "se == ca within 0.2")


def test_claims_with_a_sentence_and_claims_of_rows_that_were_left_out() -> None:
    value = fields(claims=[{"claim": "se > plain by 1 in top5", "text": "SE helps."}, "se > ca"])
    study = Study.parse(value, "mine")
    assert study.claims == ("se > plain by 1 in top5", "se > ca")
    assert study.claim_notes == {"se > plain by 1 in top5": "SE helps."}
    narrowed = Study.parse(value, "mine", rows=["se"])
    assert narrowed.claims == ("se > plain by 1 in top5",)
    assert Study.parse(value, "mine", rows=["ca"]).claims == ()
    assert Study.parse(value, "mine", rows=["ca"]).notes == (
        "a part of its file's study, without the row se and the 2 claims that name it",
    )
    assert study.notes == () and Study.parse(fields(), "mine", rows=["plain"]).notes == (
        "a part of its file's study, without the rows se, ca",
    )


# What a publication counted.
def test_a_reported_cost_is_counted_at_the_reports_size_and_in_its_form() -> None:
    value = fields(
        varies=["mixer"],
        model={"stem": "cifar"},
        rows={"plain": "van_b0", "replk": "van_b0_replk"},
        reported_cost={"input_size": 64, "num_classes": 10, "model": {"stem": "imagenet"}},
        reported={
            "plain": {"macs_g": 1, "errata": [2]},
            "replk": {"params_m": 1, "merged": True},
        },
        errata={"2": "a misprint"},
        general_errata=[2],
    )
    plain, replk = Study.parse(value, "mine").rows
    from blocklab import cost

    for row, name in ((plain, "van_b0"), (replk, "van_b0_replk")):
        expected = cost(name, 64, 10, merged=name != "van_b0")
        at = row.reported_cost
        assert at is not None
        assert (at.macs, at.params, at.input_size) == (expected.macs, expected.params, 64)
    assert plain.reported is not None
    assert plain.reported.errata == ("2: a misprint",)
    assert Study.parse(value, "mine").notes == ("Erratum 2: a misprint",)
    only_accuracy = Study.parse(fields(reported={"se": {"top1": 50}}), "mine").rows[1]
    assert only_accuracy.reported_cost is None
    own = fields(
        model={"stem": "cifar"},
        rows={"a": "resnet18", "b": "resnet18_se"},
        reported={"a": {"macs_g": 1, "model": {"stem": "deep"}}},
    )
    row = Study.parse(own, "mine").rows[0]
    assert row.counted_as is not None
    assert row.counted_as.model == model_spec("resnet18:stem=deep")
    assert row.model == model_spec("resnet18:stem=cifar")


def test_slots_may_stand_beside_a_rows_model() -> None:
    rows = {
        "beside": {"model": "timm:convnext_atto", "drop_path_rate": 0.1, "note": "a note"},
        "within": {"model": {"base": "timm:convnext_atto", "drop_path_rate": 0.2}},
        "ours": {"model": {"base": "resnet20"}, "attention": "timm:eca"},
    }
    study = Study.parse(fields(rows=rows, varies=["model"]), "mine")
    assert [row.model.to_dict().get("drop_path_rate") for row in study.rows] == [0.1, 0.2, 0.0]
    assert study.rows[0].note == "a note"
    assert study.rows[2].model == model_spec("resnet20", attention="timm:eca")
    rows["beside"]["recpe"] = "quick"
    assert "has no 'recpe'; did you mean 'recipe'?" in refusal(fields(rows=rows, varies=["model"]))


def test_rows_of_a_model_of_timms_may_vary_one_option() -> None:
    rows = {rate: f"timm:convnext_atto:drop_path_rate={rate}" for rate in ("0.1", "0.2")}
    study = Study.parse(fields(rows=rows, varies=["drop_path_rate"]), "mine")
    assert len({run.definition.hash for run in study.plan()}) == 4
    assert "'drop_pth_rate', which no row has; did you mean 'drop_path_rate'?" in refusal(
        fields(rows=rows, varies=["drop_pth_rate"])
    )


@pytest.mark.parametrize("margin", [0, -0.5, "much", 101])
def test_a_margin_is_a_number_of_points_above_0(margin: object) -> None:
    assert "study 'mine': margin" in refusal(fields(margin=margin))
    assert Study.parse(fields(margin=0.5), "mine").margin == 0.5
    assert Study.parse(fields(), "mine").margin is None
