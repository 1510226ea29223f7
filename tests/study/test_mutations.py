"""Files that were damaged or guessed at: whatever a mapping holds, it is read or refused.

Sound models, recipes and studies are changed at random: keys renamed, dropped and added, values
exchanged for others of any type. The answer is the object or an `InputError` of one line; anything
else fails. The short form runs always, the long one by hand.
"""

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocklab.errors import InputError
from blocklab.models.inline_spec import parse_filled
from blocklab.models.names import catalogue, list_models
from blocklab.models.spec import ModelSpec, model_spec
from blocklab.study.schema import CollectionFile, find_study, is_collection, study_names
from blocklab.study.study import Study
from blocklab.training.recipe import Recipe

SHORT = settings(max_examples=75, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))

SLOTS = (
    "mixer attention activation stem downsample widths depths block kernels drop_path_rate "
    "ffn_mixer ffn_ratios ffn_ratio mixer.scale mixer.attention attention.gate attention.of base "
    "backbone type of stages reduction scale base_width"
).split()
STUDY_KEYS = (
    "title data recipe seeds varies rows model baseline claims tune notes reported errata "
    "general_errata reported_cost lr note source image_size train_images macs_g merged claim text "
    "ablate full diagnose first last curves see epoch zeros"
).split()
WORDS = [
    *SLOTS, *STUDY_KEYS, "se", "triplet", "mean", "resnet20", "van_b0", "res2net20:mixer.scale=2",
    "quick", "report", "digits", "cifar100", "relu", "celu", "deep", "cifar", "a > b", "a == b",
    "a best of all", "a best of b, c", "gain(b) > 0.5 * gain(c)", "a > b in zeros", "test",
    "none", "", " ", ":", "\n", "\x00", "..", "é", "a" * 300, "true", "1e-3", "nan",
]  # fmt: skip

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.sampled_from([2**31, 2**63, 2**64, -(2**70), 10**30]),
    st.floats(),
    st.sampled_from(WORDS),
    st.text(max_size=12),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    ),
    max_leaves=8,
)


def mutate(value: Any, draw: Callable[[Any], Any], rng: random.Random) -> Any:
    """Change one place of nested mappings and lists, found by a random walk."""
    value = copy.deepcopy(value)
    if not isinstance(value, dict | list) or not value:
        return draw(values)
    holder = value
    while True:
        places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        place = rng.choice(places)
        inner = holder[place]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.7:
            holder = inner
            continue
        kind = rng.choice(["replace", "replace", "replace", "drop", "add", "rename"])
        if kind == "replace" or isinstance(holder, list):
            holder[place] = draw(values)
        elif kind == "drop":
            del holder[place]
        elif kind == "add":
            holder[draw(st.sampled_from(WORDS))] = draw(values)
        else:
            holder[draw(st.sampled_from(WORDS))] = holder.pop(place)
        return value


@st.composite
def mutated(draw: Any, originals: st.SearchStrategy[Any]) -> Any:
    rng = random.Random(draw(st.integers(0, 2**32)))
    value = draw(originals)
    for _ in range(draw(st.integers(1, 3))):
        value = mutate(value, draw, rng)
    return value


def reads_or_refuses(read: Callable[[], object]) -> bool:
    """Whether it was read; a refusal is an InputError of one line."""
    try:
        read()
    except InputError as error:
        assert str(error).strip()
        assert "\n" not in str(error)
        return False
    return True


# Sound things to damage.
SPECS: list[Any] = [
    {"base": "resnet20", "attention": ["se", {"type": "triplet", "gate": "tanh"}]},
    {"base": "res2net20", "mixer.attention": "se", "activation": "celu"},
    {"backbone": "resnet18", "mixer": {"type": "selective_kernel", "groups": 1, "stages": [2]}},
    {"backbone": "resnet20", "attention": {"type": "mean", "of": ["se", "coordinate"]}},
    {"backbone": "van_b0", "mixer": {"type": "multi_scale_lka", "kernels": [3, 5]}},
    {"backbone": "van_b0", "ffn_mixer": {"type": "hierarchical_split", "scale": 2}},
    {"backbone": "replknet_31n", "mixer.small_kernel": 3, "kernels": [7, 7, 5, 3]},
    {"base": "resnet50", "stem": {"type": "deep", "widths": [32, 32]}, "downsample": "avgpool"},
    *catalogue().values(),
]
STUDIES: list[Any] = [
    {
        "title": "t",
        "data": {"source": "digits", "train_images": 100},
        "recipe": {"base": "quick", "epochs": 2},
        "seeds": [0, 1],
        "varies": ["attention", "recipe.lr"],
        "model": {"stem": "cifar"},
        "rows": {
            "a": "resnet20",
            "b": {"base": "resnet20", "attention": {"type": "se", "reduction": 8}},
            "c": {
                "model": "resnet20_triplet",
                "recipe": {"lr": 0.2},
                "data": {"source": "digits"},
                "reported": {"top1": 50, "macs_g": 1.0, "errata": [1]},
                "note": "n",
            },
        },
        "errata": {"1": "x"},
        "general_errata": [1],
        "claims": ["b > a by 1", {"claim": "a == b", "text": "as good"}],
        "notes": ["n"],
    },
    {
        "title": "t",
        "data": "digits",
        "recipe": "quick",
        "varies": ["model"],
        "rows": ["resnet20", "van_b0"],
        "tune": {"lr": [0.1, 0.2], "seeds": [9]},
        "reported": {"van_b0": {"params_m": 4.1, "merged": True}},
        "reported_cost": {"input_size": 224, "model": {"stem": "imagenet"}},
    },
    *(find_study(name)[0] for name in study_names() if not is_collection(find_study(name)[0])),
]
RECIPES: list[Any] = [
    Recipe().model_dump(),
    {"epochs": 3, "batch_size": 64, "schedule": "cosine", "warmup_epochs": 1, "mixup": 0.2},
]


def read_spec(value: Any) -> object:
    spec = model_spec(value)
    assert ModelSpec.from_dict(spec.to_dict()) == spec  # what is accepted can be written and read
    return spec


def read_recipe(value: Any) -> object:
    recipe = Recipe.parse(value)
    for epoch in (0.0, recipe.epochs / 2, float(recipe.epochs)):
        assert math.isfinite(recipe.learning_rate(epoch))
    return recipe


def read_study(value: Any) -> object:
    study = Study.parse(value, "mutated")
    assert study.rows
    return [run.definition.hash for run in study.plan()]


def check_specs(value: Any) -> None:
    reads_or_refuses(lambda: read_spec(value))


def check_recipes(value: Any) -> None:
    if isinstance(value, dict):
        reads_or_refuses(lambda: read_recipe(value))


def check_studies(value: Any) -> None:
    reads_or_refuses(lambda: read_study(value))


def check_names(text: str) -> None:
    reads_or_refuses(lambda: parse_filled(text) if ":" in text else None)
    reads_or_refuses(lambda: read_spec(text))


names = st.one_of(
    st.text(max_size=40),
    st.builds(
        lambda name, slot, value: f"{name}:{slot}={value}",
        st.sampled_from(list_models("*20*")),
        st.sampled_from(SLOTS),
        st.one_of(st.sampled_from(WORDS), st.text("[]{},:'\"= seabc0123", max_size=20)),
    ),
)


def test_nothing_is_damaged_to_begin_with() -> None:
    assert all(reads_or_refuses(lambda spec=spec: read_spec(spec)) for spec in SPECS)
    assert all(reads_or_refuses(lambda value=value: read_recipe(value)) for value in RECIPES)
    assert all(reads_or_refuses(lambda value=value: read_study(value)) for value in STUDIES)
    assert CollectionFile(title="t", studies=["a"]).studies == ["a"]


@SHORT
@given(mutated(st.sampled_from(SPECS)))
def test_models(value: Any) -> None:
    check_specs(value)


@SHORT
@given(mutated(st.sampled_from(RECIPES)))
def test_recipes(value: Any) -> None:
    check_recipes(value)


@SHORT
@given(mutated(st.sampled_from(STUDIES[:2])))
def test_studies(value: Any) -> None:
    check_studies(value)


@SHORT
@given(names)
def test_names(text: str) -> None:
    check_names(text)


@pytest.mark.slow
@LONG
@given(mutated(st.sampled_from(SPECS)))
def test_many_models(value: Any) -> None:
    check_specs(value)


@pytest.mark.slow
@LONG
@given(mutated(st.sampled_from(RECIPES)))
def test_many_recipes(value: Any) -> None:
    check_recipes(value)


@pytest.mark.slow
@LONG
@given(mutated(st.sampled_from(STUDIES)))
def test_many_studies(value: Any) -> None:
    check_studies(value)


@pytest.mark.slow
@LONG
@given(names)
def test_many_names(text: str) -> None:
    check_names(text)
