"""The studies that come with the package: the report's tables by name, and collections."""

from pathlib import Path
from typing import Any

import pytest

from blocklab import cost, list_models
from blocklab.errors import InputError
from blocklab.models.spec import model_spec
from blocklab.study.claims import parse_claim
from blocklab.study.collection import StudyCollection
from blocklab.study.schema import find_study, is_collection, read_errata, study_names
from blocklab.study.study import Study
from blocklab.training.recipe import load_recipe

TABLES = [f"table_{number}" for number in range(1, 12)]
FIGURES = ["figure_36", "figure_37"]
RES2NET = TABLES[7:]

# What the report prints: MACs in G, params in M, top-1 and top-5 in %.
PRINTED = {
    "table_1": {
        "avg_max": (4.17, 22.52, 64.20, 87.23),
        "avg_max_median": (4.17, 22.521, 64.02, 87.54),
        "l1_max": (4.18, 22.52, 64.29, 87.36),
        "l2_max": (4.19, 22.52, 65.24, 87.26),
    },
    "table_2": {
        "Triplet": (4.17, 22.52, 64.60, 87.23),
        "CA": (4.90, 22.94, 63.09, 87.21),
        "TripletCA": (4.83, 22.53, 65.71, 88.55),
        "TripletLKN": (5.01, 23.49, 63.02, 87.19),
    },
    "table_3": {
        "7x7Conv-sigmoid": (4.17, 22.52, 64.16, 87.23),
        "7x7Conv-relu": (4.17, 22.52, 64.36, 87.44),
        "7x7Conv-gelu": (4.17, 22.52, 64.11, 87.51),
        "7x7Conv-celu": (4.17, 22.52, 64.86, 88.35),
        "7x7Conv-elu": (4.17, 22.52, 65.72, 87.89),
        "BatchNorm-sigmoid": (4.17, 22.52, 63.02, 87.44),
        "BatchNorm-tanh": (4.17, 22.52, 61.32, 85.83),
        "BatchNorm-softmax": (4.17, 22.52, 44.86, 73.47),
    },
    "table_4": {
        "VAN-B0": (0.870, 4.103, 51.79, 78.68),
        "VAN-LK-B0": (0.931, 4.256, 52.80, 80.30),
        "VAN-MB-B0": (1.173, 5.460, 52.49, 79.55),
        "VAN-BN-B0": (0.878, 13.873, 47.45, 74.07),
        "VAN-Act-B0": (0.870, 4.103, 53.15, 79.95),
        "VAN-RepLK-B0": (1.491, 5.803, 54.25, 81.55),
        "VAN-Res2Net-B0": (20.409, 62.459, 55.47, 81.47),
        "VAN-Res2Net-RepLK-B0": (21.050, 64.204, 54.13, 80.36),
        "VAN-B1": (2.506, 13.856, 52.49, 79.87),
        "VAN-LK-B1": (2.592, 14.114, 53.28, 80.13),
        "VAN-MB-B1": (3.276, 18.191, 50.98, 78.12),
        "VAN-BN-B1": (2.516, 13.873, 48.78, 75.11),
        "VAN-Act-B1": (2.506, 13.856, 52.96, 80.19),
        "VAN-RepLK-B1": (58.456, 213.874, 56.11, 82.23),
    },
    "table_5": {
        "VAN-MB-B0-3-5-7": (1.127, 5.344, 49.94, 76.99),
        "VAN-MB-B0-5-7-9": (1.173, 5.460, 52.49, 79.55),
        "VAN-MB-B0-7-9-11": (1.234, 5.613, 51.64, 78.74),
        "VAN-B0": (0.870, 4.103, 51.79, 78.68),
    },
    "table_6": {
        "VAN-Act-B0-relu": (0.870, 4.103, 53.02, 79.78),
        "VAN-Act-B0-celu": (0.870, 4.103, 49.05, 77.62),
        "VAN-Act-B0-gelu": (0.870, 4.103, 52.98, 79.82),
        "VAN-Act-B0-elu": (0.870, 4.103, 49.05, 77.62),
        "VAN-B0": (0.870, 4.103, 51.79, 78.68),
    },
    "table_7": {
        "VAN-Res2Net-RepLK-B0": (21.050, 64.204, 54.13, 80.36),
        "without-RepLK": (20.409, 62.459, 55.47, 81.47),
        "without-Res2Net": (1.491, 5.803, 54.25, 81.55),
        "VAN-B0": (0.870, 4.103, 51.79, 78.68),
    },
    "table_8": {
        "Res2Net": (2.630, 6.360, 46.05, 74.41),
        "Res2Net_c": (2.630, 16.360, 57.23, 83.72),
        "Res2Net_g": (2.630, 16.360, 50.19, 78.35),
        "Res2Net_l": (2.630, 16.360, 43.72, 73.25),
        "Res2Net_e": (2.630, 16.360, 57.15, 83.07),
    },
    "table_9": {
        "Res2Net": (2.630, 6.360, 46.05, 74.41),
        "Res2Net_S1": (2.631, 16.371, 44.19, 72.56),
        "Res2Net_T1": (2.643, 16.365, 40.78, 69.62),
        "Res2Net_S2": (2.633, 18.885, 49.70, 76.81),
        "Res2Net_T2": (2.674, 16.359, 52.49, 79.09),
        "Res2Net_SS": (2.635, 18.896, 50.37, 77.39),
        "Res2Net_ST": (2.675, 16.370, 53.51, 80.55),
        "Res2Net_TS": (2.631, 16.371, 49.22, 76.88),
        "Res2Net_TT": (2.687, 16.359, 49.41, 76.65),
    },
    "table_10": {
        "Res2Net": (2.630, 6.360, 46.05, 74.41),
        "Res2Net_C": (3.464, 16.421, 46.75, 75.86),
        "Res2Net_D": (2.625, 16.354, 46.26, 74.83),
        "Res2Net_CD": (3.464, 16.421, 47.01, 76.81),
    },
    "table_11": {
        "Res2Net": (2.630, 6.360, 46.05, 74.41),
        "Res2Net_c": (2.630, 16.360, 57.23, 83.72),
        "Res2Net_cCD": (3.464, 16.421, 57.99, 83.82),
        "Res2Net_cCD_T2": (3.512, 16.425, 58.47, 84.89),
        "Res2Net_cCD_ST": (3.513, 16.436, 60.90, 84.85),
    },
    "figure_36": {
        "resnet+ta": (None, None, 54, 80),
        "resnet": (None, None, 42, 69),
        "res2net": (None, None, 46, 74),
        "res2net+se": (None, None, 49, 76),
        "resnet+sknet": (None, None, 46, 73),
        "resnet+gcnet": (None, None, 42, 70),
        "replknet": (None, None, 49, 77),
        "resnet+ca": (None, None, 48, 75),
    },
}

# What the report concludes, in its prose and its section of conclusions, by table.
CLAIMS = {
    "table_1": (
        "l2_max best of all in top1",
        "avg_max_median < avg_max in top1",
        "avg_max_median > avg_max in top5",
        "l2_max == avg_max in params",
    ),
    "table_2": (
        "TripletCA > Triplet in top1",
        "TripletCA > Triplet in top5",
        "TripletCA > CA in top1",
        "TripletCA > TripletLKN in top1",
        "TripletCA best of all in top1",
        "TripletCA best of all in top5",
        "TripletLKN worst of all in top1",
        "TripletLKN < Triplet in top1",
        "CA < Triplet in top1",
        "TripletCA == Triplet within 0.3 in params",
        "TripletLKN worst of all in macs",
    ),
    "table_3": (
        "7x7Conv-celu > BatchNorm-sigmoid in top1",
        "7x7Conv-elu > BatchNorm-sigmoid in top1",
        "7x7Conv-celu > BatchNorm-sigmoid in top5",
        "7x7Conv-celu == 7x7Conv-elu",
        "7x7Conv-gelu < BatchNorm-sigmoid in top1",
        "BatchNorm-tanh < BatchNorm-sigmoid in top1",
        "BatchNorm-softmax < BatchNorm-sigmoid by 10 in top1",
        "BatchNorm-softmax worst of all in top1",
        "7x7Conv-celu == BatchNorm-sigmoid in params",
    ),
    "table_4": (
        "VAN-LK-B0 > VAN-B0 in top1",
        "VAN-LK-B1 > VAN-B1 in top1",
        "VAN-LK-B0 == VAN-B0 within 0.2 in params",
        "VAN-MB-B0 > VAN-B0 in top1",
        "VAN-MB-B1 < VAN-B1 in top1",
        "VAN-BN-B0 < VAN-B0 in top1",
        "VAN-BN-B1 < VAN-B1 in top1",
        "VAN-Act-B0 > VAN-B0 in top1",
        "VAN-Act-B1 > VAN-B1 in top1",
        "VAN-RepLK-B0 > VAN-B0 in top1",
        "VAN-RepLK-B1 > VAN-B1 in top1",
        "VAN-RepLK-B0 == VAN-LK-B0 within 1 in top1",
        "VAN-RepLK-B0 > VAN-LK-B0 in macs",
        "VAN-Res2Net-B0 > VAN-B0 in top1",
        "VAN-Res2Net-B0 > VAN-B0 by 50 in params",
        "VAN-Res2Net-B0 best of VAN-B0, VAN-LK-B0, VAN-MB-B0, VAN-BN-B0, VAN-Act-B0, "
        "VAN-RepLK-B0, VAN-Res2Net-RepLK-B0",
        "VAN-Res2Net-RepLK-B0 < VAN-Res2Net-B0 in top1",
    ),
    "table_5": (
        "VAN-MB-B0-5-7-9 > VAN-MB-B0-7-9-11 in top1",
        "VAN-MB-B0-5-7-9 > VAN-MB-B0-3-5-7 in top1",
        "VAN-MB-B0-5-7-9 best of all in top1",
        "VAN-MB-B0-3-5-7 < VAN-B0 in top1",
        "VAN-MB-B0-3-5-7 < VAN-MB-B0-5-7-9 in macs",
        "VAN-MB-B0-7-9-11 worst of all in macs",
    ),
    "table_6": (
        "VAN-Act-B0-celu == VAN-Act-B0-elu",
        "VAN-Act-B0-celu < VAN-B0 in top1",
        "VAN-Act-B0-elu < VAN-B0 in top1",
        "VAN-Act-B0-relu > VAN-B0 in top1",
        "VAN-Act-B0-gelu > VAN-B0 in top1",
        "VAN-Act-B0-gelu > VAN-Act-B0-relu in top1",
        "VAN-Act-B0-gelu best of all in top1",
        "VAN-Act-B0-gelu == VAN-B0 in params",
    ),
    "table_7": (
        "without-RepLK > VAN-Res2Net-RepLK-B0 in top1",
        "without-Res2Net == VAN-Res2Net-RepLK-B0 in top1",
        "gain(VAN-Res2Net-RepLK-B0) < gain(without-RepLK) + gain(without-Res2Net)",
        "without-RepLK > VAN-B0 in top1",
        "without-Res2Net > VAN-B0 in top1",
        "without-RepLK best of all in top1",
        "without-Res2Net < without-RepLK by 50 in params",
    ),
    "table_8": (
        "Res2Net_c > Res2Net by 5 in top1",
        "Res2Net_e > Res2Net by 5 in top1",
        "Res2Net_g > Res2Net in top1",
        "Res2Net_l < Res2Net in top1",
        "Res2Net_c == Res2Net_e",
        "Res2Net_c best of Res2Net, Res2Net_g, Res2Net_l in top1",
        "Res2Net_c best of Res2Net, Res2Net_g, Res2Net_l in top5",
        "Res2Net_c == Res2Net in params",
    ),
    "table_9": (
        "Res2Net_S1 < Res2Net in top1",
        "Res2Net_T1 < Res2Net in top1",
        "Res2Net_T1 worst of all in top1",
        "Res2Net_S2 > Res2Net in top1",
        "Res2Net_T2 > Res2Net in top1",
        "Res2Net_T2 > Res2Net_S2 in top1",
        "Res2Net_SS > Res2Net_S2 in top1",
        "Res2Net_ST > Res2Net_T2 in top1",
        "Res2Net_TS < Res2Net_S2 in top1",
        "Res2Net_TT < Res2Net_T2 in top1",
        "Res2Net_TS > Res2Net in top1",
        "Res2Net_TT > Res2Net in top1",
        "Res2Net_ST best of all in top1",
        "Res2Net_ST best of all in top5",
        "Res2Net_T2 < Res2Net_S2 in params",
        "Res2Net_T2 > Res2Net_S2 in macs",
    ),
    "table_10": (
        "Res2Net_C > Res2Net in top1",
        "Res2Net_D > Res2Net in top1",
        "Res2Net_CD > Res2Net in top1",
        "Res2Net_CD best of all in top1",
        "Res2Net_CD best of all in top5",
        "Res2Net_C < Res2Net in macs",
        "Res2Net_D == Res2Net in params",
    ),
    "table_11": (
        "Res2Net_cCD_ST > Res2Net by 10 in top1",
        "Res2Net_cCD_ST best of all in top1",
        "gain(Res2Net_c) > 0.5 * gain(Res2Net_cCD_ST)",
        "Res2Net_c > Res2Net in top1",
        "Res2Net_cCD > Res2Net_c in top1",
        "Res2Net_cCD_T2 > Res2Net_cCD in top1",
        "Res2Net_cCD_ST > Res2Net_cCD_T2 in top1",
        "Res2Net_cCD_ST worst of all in macs",
    ),
    "figure_36": (
        "resnet+ta > resnet in top1",
        "resnet+ca > resnet in top1",
        "resnet+sknet > resnet in top1",
        "resnet+gcnet > resnet in top1",
        "res2net > resnet in top1",
        "res2net+se > res2net in top1",
        "replknet > resnet in top1",
        "resnet+ta best of all in top1",
        "resnet+ta best of all in top5",
        "resnet+ta > replknet in top1",
        "resnet+ta > resnet+ca in top1",
        "replknet worst of all in macs",
    ),
    "figure_37": (
        "TripletCA best of all in top1",
        "TripletCA best of all in top5",
        "Res2Net_cCD_ST best of Res2Net_cCD_T2, Res2Net_CD in top1",
        "VAN-Res2Net-B0 best of VAN-RepLK-B0, VAN-Res2Net-RepLK-B0 in top1",
    ),
    "dead_neurons": (
        "relu > celu in zeros",
        "relu > celu by 1000000 in zeros",
    ),
}

# Where our count and the report's differ by more than 3 %, and the erratum that says why.
EXPLAINED = {
    **{(table, row): 8 for table in TABLES[:3] for row in PRINTED[table]},
    ("table_4", "VAN-BN-B0"): 2,
    ("table_4", "VAN-RepLK-B1"): 3,
    **{("figure_37", row): 8 for row in ("TripletCA", "TripletLKN", "Triplet-CELU")},
    **{(table, "Res2Net"): 1 for table in ("table_8", "table_9", "table_10", "table_11")},
    ("table_9", "Res2Net_TS"): 5,
}


@pytest.mark.parametrize("name", PRINTED)
def test_every_row_and_figure_of_the_report_is_there(name: str) -> None:
    study = Study.load(name)
    assert [row.name for row in study.rows] == list(PRINTED[name])
    for row in study.rows:
        assert row.reported is not None
        figures = (row.reported.macs_g, row.reported.params_m, row.reported.top1, row.reported.top5)
        assert figures == PRINTED[name][row.name]


def test_figure_37_repeats_what_the_tables_print() -> None:
    printed = [figures for rows in PRINTED.values() for figures in rows.values()]
    for row in Study.load("figure_37").rows:
        assert row.reported is not None
        figures = (row.reported.macs_g, row.reported.params_m, row.reported.top1, row.reported.top5)
        assert figures in printed


@pytest.mark.parametrize("name", [*TABLES, *FIGURES])
def test_costs_are_the_reports_to_three_percent_but_for_rows_with_an_erratum(name: str) -> None:
    far = {}
    for row in Study.load(name).rows:
        at = row.reported_cost
        if at is None:
            continue
        assert row.reported is not None
        assert at.input_size == 224
        assert row.counted_as is not None
        assert row.counted_as.num_classes == 1000
        ours = (at.macs / 1e9, at.params / 1e6)
        theirs = (row.reported.macs_g, row.reported.params_m)
        gaps = [abs(a / b - 1) for a, b in zip(ours, theirs, strict=True) if b is not None]
        if max(gaps) > 0.03:
            far[name, row.name] = [int(text.partition(":")[0]) for text in row.reported.errata]
    assert far == {key: [number] for key, number in EXPLAINED.items() if key[0] == name}


@pytest.mark.parametrize("name", [*TABLES, *FIGURES])
def test_each_is_set_up_as_the_report_was(name: str) -> None:
    study = Study.load(name)
    assert study.seeds == (666,)
    assert study.recipe_name == ("report_res2net" if name in RES2NET else "report")
    assert study.recipe.crop_padding == (4 if name in RES2NET else 0)
    assert study.recipe.normalize == ("cifar10" if name in RES2NET else "half")
    assert (study.recipe.epochs, study.recipe.batch_size, study.recipe.lr) == (50, 256, 0.1)
    assert study.recipe.test_every_epoch  # its figures are of the best test epoch
    assert study.data.source == "cifar100"
    assert study.data.validation_fraction == 0  # it trained on all 50,000 images
    stems = {
        stem if isinstance(stem, str) else stem["type"]
        for stem in (row.model.to_dict()["stem"] for row in study.rows)
    }
    if name in TABLES[:3]:
        assert stems == {"cifar"}
    else:
        assert stems <= {"imagenet", "deep"} | ({"cifar"} if name == "figure_37" else set())
    for text in study.claims:
        parse_claim(text, [row.name for row in study.rows], study.baseline)
    assert any(note.startswith("Erratum 9:") for note in study.notes)


@pytest.mark.parametrize("name", CLAIMS)
def test_every_conclusion_of_the_report_is_a_claim_of_its_table(name: str) -> None:
    study = Study.load(name)
    assert set(CLAIMS[name]) <= set(study.claims)
    assert set(study.claims) == set(study.claim_notes)  # each in words
    assert all(sentence[0].isupper() for sentence in study.claim_notes.values())


def test_figures_train_each_row_by_the_recipe_of_its_script_under_any_recipe() -> None:
    crops = {
        "figure_36": {"resnet+ta", "res2net", "res2net+se", "resnet+sknet", "resnet+gcnet"},
        "figure_37": {"Res2Net_cCD_T2", "Res2Net_cCD_ST", "Res2Net_CD"},
    }
    for name, cropped in crops.items():
        for recipe in (None, "quick"):
            study = Study.load(name, recipe=recipe)
            assert all(row.recipe.test_every_epoch for row in study.rows)  # for its curves
            assert {row.name for row in study.rows if row.recipe.crop_padding == 4} == cropped
            if recipe is None:
                of = {row.name: row.recipe.normalize for row in study.rows}
                assert {row for row, value in of.items() if value == "cifar10"} == cropped
            assert len({row.recipe.epochs for row in study.rows}) == 1
    guessed = {r.name for r in Study.load("figure_36").rows if r.note and "a guess" in r.note}
    assert guessed == {"resnet+ta", "resnet+sknet", "resnet+gcnet"}


def test_figure_37_has_the_nine_curves_of_the_report() -> None:
    models = {row.name: row.model for row in Study.load("figure_37").rows}
    assert models == {
        "TripletCA": model_spec("resnet50_tripletca:stem=cifar"),
        "TripletLKN": model_spec("resnet50_tripletlkn_as_run:stem=cifar"),
        "Triplet-CELU": model_spec("resnet50_triplet_conv_celu:stem=cifar"),
        "Res2Net_cCD_T2": model_spec("res2net50_celu_cd_t2"),
        "Res2Net_cCD_ST": model_spec("res2net50_celu_cd_st"),
        "Res2Net_CD": model_spec("res2net50_cd"),
        "VAN-RepLK-B0": model_spec("van_b0_replk_plain"),
        "VAN-Res2Net-B0": model_spec("van_b0_res2net"),
        "VAN-Res2Net-RepLK-B0": model_spec("van_b0_res2net_replk"),
    }


def test_figure_35_is_the_learning_rate_of_the_reports_recipe() -> None:
    study = Study.load("figure_35")
    assert study.recipe == load_recipe("report")
    assert [study.recipe.learning_rate(epoch) for epoch in (0, 29.99, 30, 49.99)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01]
    )
    assert len(study.rows) == 1
    assert cost(study.rows[0].model, 32, 100).params < 10_000  # it trains in seconds


def test_dead_neurons_are_counted_as_the_report_counted_them() -> None:
    study = Study.load("dead_neurons")
    assert study.diagnose is not None
    assert (study.diagnose.first, study.diagnose.last) == (30, 40)
    assert study.recipe == load_recipe("report_res2net", {"epochs": 1})
    rows = {
        row.name: (row.model, row.reported.zeros if row.reported else None) for row in study.rows
    }
    assert rows == {
        "relu": (model_spec("res2net50"), 4_138_107),
        "celu": (model_spec("res2net50_celu"), 2),
    }
    assert "relu > celu in zeros" in study.claims


def test_of_which_epoch_a_reported_accuracy_is_is_said_where_it_is_known() -> None:
    known = {
        (name, row.name): row.reported.epoch
        for name in [*TABLES, "figure_37"]
        for row in Study.load(name).rows
        if row.reported and row.reported.epoch != "unknown"
    }
    assert known == {
        **{(table, "Res2Net"): "last" for table in RES2NET},
        ("table_11", "Res2Net_cCD_ST"): "best",
        ("figure_37", "Res2Net_cCD_ST"): "best",
    }


def test_the_reports_errata_are_all_there_and_used() -> None:
    shipped = read_errata("report", "t")
    assert list(shipped) == [str(number) for number in range(1, 23)]
    shown = set()
    for study in StudyCollection.load("report_all").studies:
        texts = [note.removeprefix("Erratum ") for note in study.notes]
        for row in study.rows:
            texts += [*row.reported.errata, *row.reported.see] if row.reported else []
        shown |= {text.partition(":")[0] for text in texts}
    assert set(shipped) <= shown
    assert "not imitated" in shipped["20"]  # the test images that its scripts flipped


def test_the_models_of_the_rows() -> None:
    def same(table: str, row: str, name: str) -> None:
        assert next(r for r in Study.load(table).rows if r.name == row).model == model_spec(name)

    same("table_2", "TripletLKN", "resnet50_tripletlkn:stem=cifar")
    same("table_4", "VAN-MB-B1", "van_b1_mb")
    same("table_4", "VAN-RepLK-B0", "van_b0_replk_plain")
    same("table_4", "VAN-RepLK-B1", "van_b1_replk_plain")
    same("table_7", "without-Res2Net", "van_b0_replk_plain")
    same("table_9", "Res2Net_TS", "res2net50_ts")
    same("table_11", "Res2Net_cCD_ST", "res2net50_celu_cd_st")
    same("figure_36", "resnet+gcnet", "resnet50_gc")
    assert {"van_b0_lk_d3", "resnet50_tripletlkn_full"} <= set(list_models())


def test_report_all_has_every_study_and_each_distinct_run_once() -> None:
    everything = StudyCollection.load("report_all")
    assert [study.name for study in everything.studies] == [
        *TABLES,
        "figure_35",
        *FIGURES,
        "dead_neurons",
    ]
    runs = [run.definition.hash for run in everything.plan()]
    assert len(runs) == len(set(runs)) == 62
    assert sum(len(study.rows) for study in everything.studies) == 86
    assert sum(len(study.claims) for study in everything.studies) == 119
    assert {r.definition.hash for s in everything.studies for r in s.plan()} == set(runs)


def load(path_or_name: str | Path, **changes: Any) -> tuple[Study, ...]:
    return StudyCollection.load(path_or_name, **changes).studies


def test_narrowing_and_changing_a_collection() -> None:
    changed = load("report_all", rows=["Res2Net_T2", "CA"], recipe="quick", data="cifar10", seeds=2)
    assert [(s.name, [row.name for row in s.rows]) for s in changed] == [
        ("table_2", ["Triplet", "CA"]),
        ("table_9", ["Res2Net", "Res2Net_T2"]),
    ]
    for study in changed:
        assert study.seeds == (0, 1)
        assert study.recipe_name == "quick"
        assert study.data.source == "cifar10"
    # A row that several tables have is kept in each.
    names = [study.name for study in load("report_all", rows=["VAN-B0"])]
    assert names == ["table_4", "table_5", "table_6", "table_7"]
    with pytest.raises(InputError, match="has a row 'Res2Net_T3'; did you mean 'Res2Net_T"):
        load("report_all", rows=["Res2Net_T3"])
    with pytest.raises(InputError, match="has no 'epoch'; did you mean 'epochs'"):
        load("report_all", settings={"epoch": 3})


def test_one_study_is_a_collection_of_one() -> None:
    studies = load("quickstart", seeds=1)
    assert len(studies) == 1
    assert studies[0] == Study.load("quickstart", seeds=1)


def test_everything_shipped_loads() -> None:
    names = study_names()
    assert {*TABLES, *FIGURES, "quickstart", "report_all"} <= set(names)
    for name in names:
        load(name)
    collections = [name for name in names if is_collection(find_study(name)[0])]
    assert collections == ["report_all", "report_short"]


def test_a_collection_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "title: mine\ndata: digits\nrecipe: quick\nvaries: [attention]\n"
        "rows: {plain: resnet20, se: resnet20_se}\n"
    )
    path = tmp_path / "both.yaml"
    path.write_text("title: both\nstudies: [mine.yaml, quickstart]\n")
    assert [study.name for study in load(path)] == ["mine", "quickstart"]
    for text, message in (
        ("title: t\nstudies: []\n", "studies: List should have at least 1 item"),
        ("title: t\nstudies: [quickstart, quickstart]\n", "names study 'quickstart' twice"),
        ("title: t\nstudies: [table_12]\n", "no study .*table_12"),
        ("title: t\nstudies: [gone.yaml]\n", "cannot read .*gone.yaml"),
        ("title: t\nstudies: [report_all]\n", "'report_all' is a collection of studies"),
        ("title: t\nstudies: [quickstart]\nseed: 3\n", "collection 'both' has no 'seed'"),
        ("title: t\nstudies: [quickstart]\nseeds: 0\n", "takes 1 to 1000 seeds, not 0"),
        ("title: t\nstudies: [quickstart]\nsettings: {epoch: 3}\n", "no 'epoch'"),
        ("studies: [quickstart]\n", "title: is missing; add it"),
        ("title: t\nstudies: [3]\n", "studies.0: Input should be a valid string"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_a_row_costs_what_its_model_costs() -> None:
    row = Study.load("table_9").rows[0]
    at = row.reported_cost
    assert at is not None
    assert (at.macs, at.params) == (cost("res2net50").macs, cost("res2net50").params)


def test_a_collection_changes_all_of_its_studies_and_a_command_changes_that() -> None:
    short = StudyCollection.load("report_short")
    assert short.folder_name == "report_short"
    assert [study.name for study in short.studies] == TABLES
    for study in short.studies:
        assert study.seeds == (0, 1)
        assert (study.recipe.epochs, study.recipe.step_epochs) == (10, 6)
        assert not study.recipe.test_every_epoch
        assert {f"seeds={2}", "epochs=10"} <= set(study.changes)
    changed = StudyCollection.load("report_short", seeds=[5], settings={"epochs": 1})
    assert changed.studies[0].seeds == (5,)
    assert (changed.studies[0].recipe.epochs, changed.studies[0].recipe.step_epochs) == (1, 6)
    assert changed.folder_name != short.folder_name and "epochs=1" in changed.folder_name
