"""The block contract: kept by every registered block, and seen to catch those that break it."""

import json
import re
from typing import Any

import broken_blocks
import pytest
import torch
from torch import nn

from blocklab.blocks.registry import (
    BlockInfo,
    block_info,
    parse_block,
    register_block,
    registered_blocks,
)
from blocklab.contract.checks import CHECKS, STUDY
from blocklab.contract.report_card import ReportCard, check_block
from blocklab.contract.trial import Subject
from blocklab.errors import InputError

pytestmark = pytest.mark.usefixtures("registry_as_it_was")

# What a block that has no useful defaults is checked with.
NEEDED: dict[str, dict[str, Any]] = {"mean": {"of": ["se", "coordinate"]}}

# The changes to blocks that the report tries, beside the defaults.
VARIED: list[tuple[str, dict[str, Any]]] = [
    *(
        ("attention", {"type": "triplet", **options})
        for options in (
            {"statistics": ["avg", "max", "median"]},
            {"statistics": ["l1", "max"]},
            {"statistics": ["l2", "max"]},
            {"inner_activation": "celu"},
            {"gate": "tanh"},
            {"gate": "softmax"},
            {"gate": "softmax_over_batch"},
            {"inner_activation": "celu_after_norm"},
            {"spatial": "coordinate"},
            {"spatial": "large_kernel"},
            {"spatial": "full_large_kernel"},
        )
    ),
    ("attention", {"type": "global_context", "fusion": "scale"}),
    ("attention", {"type": "bam", "combine": "product", "norms": "inner"}),
    ("attention", {"type": "bam", "combine": "max"}),
    ("attention", {"type": "gather_excite", "extent": 4}),
    ("attention", {"type": "gather_excite", "extent": 2, "extra_params": True}),
    ("attention", {"type": "gather_excite", "extent": 8, "extra_params": True, "excite": True}),
    ("attention", {"type": "ela", "group_width": 8, "kernel": 5}),
    ("attention", {"type": "large_kernel_attention", "norm": True}),
    ("attention", {"type": "large_kernel_attention", "inner_activation": "elu"}),
    (
        "attention",
        {"type": "large_kernel_attention", "local_kernel": 7, "kernel": 11, "dilation": 5},
    ),
    ("token_mixer", {"type": "multi_scale_lka", "kernels": [7, 9, 11]}),
    ("token_mixer", {"type": "reparam_large_kernel", "drop_path_rate": 0.3}),
    ("token_mixer", {"type": "reparam_large_kernel", "kernel": 13, "small_kernel": None}),
    *(
        ("mixer", {"type": "hierarchical_split", "base_width": 16, **options})
        for options in (
            {"inner_activation": "celu"},
            {"attention": "se"},
            {"attention": "triplet"},
        )
    ),
    ("mixer", {"type": "selective_kernel", "split_input": True}),
    ("ffn_mixer", {"type": "hierarchical_split", "inner_activation": "relu", "expansion": 2}),
]


def assert_keeps_contract(card: ReportCard) -> None:
    said = "; ".join(f"{result.check}: {result.detail}" for result in card.failures)
    assert card.passed, f"{card.kind} {card.block} {card.options}: {said}"


def defaults(info: BlockInfo) -> dict[str, Any]:
    return {"type": info.name, **NEEDED.get(info.name, {})}


@pytest.mark.parametrize(
    "info", list(registered_blocks()), ids=lambda info: f"{info.kind}-{info.name}"
)
def test_every_block_keeps_the_contract(info: BlockInfo) -> None:
    card = check_block(info.kind, defaults(info))
    assert_keeps_contract(card)
    assert [result.check for result in card.results] == list(CHECKS)
    skipped = {result.check for result in card.results if result.outcome == "not applicable"}
    assert skipped <= {"compile", "merge", "fold_norms", "options"}
    assert ("options" in skipped) == (not info.options.model_fields)


@pytest.mark.parametrize(("kind", "spec"), VARIED, ids=lambda value: str(value)[:70])
def test_the_reports_changes_keep_the_contract(kind: str, spec: dict[str, Any]) -> None:
    tried = {"options"}  # by the defaults' test
    if spec["type"] in ("triplet", "hierarchical_split"):
        tried.add(STUDY)  # by `tests/models/test_contract.py`, in the named models that have them
    checks = [name for name in CHECKS if name not in tried]
    assert_keeps_contract(check_block(kind, spec, checks=checks))


FAST = {"se", "large_kernel_attention"}


@pytest.mark.parametrize(
    "info",
    [
        pytest.param(
            info,
            marks=() if info.name in FAST else pytest.mark.slow,
            id=f"{info.kind}-{info.name}",
        )
        for info in registered_blocks()
    ],
)
def test_every_block_compiles(info: BlockInfo) -> None:
    """Traced, forward and backward; the code that inductor makes is tried for one block below."""
    card = check_block(info.kind, defaults(info), compile_backend="aot_eager", checks=["compile"])
    assert_keeps_contract(card)
    assert "in one graph" in card["compile"].detail


@pytest.mark.slow
def test_code_that_inductor_makes() -> None:
    card = check_block("attention", "se", compile_backend="inductor", checks=["compile"])
    assert_keeps_contract(card)
    assert "compiled to code" in card["compile"].detail


@pytest.mark.parametrize(
    ("cls", "check", "said"), broken_blocks.BROKEN, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_broken_block_fails_the_right_check(cls: type[nn.Module], check: str, said: str) -> None:
    kind = broken_blocks.KINDS.get(cls, "attention")
    register_block("broken", kind)(cls)
    card = check_block(kind, "broken", compile_backend="eager" if check == "compile" else None)
    assert not card.passed
    failed = {result.check for result in card.failures}
    assert failed == {check} | broken_blocks.ALSO.get(cls, set()), card.failures
    result = card[check]
    assert result.outcome == "failed" and "\n" not in result.detail
    assert re.search(said, result.detail)


def test_a_good_block_passes_with_options_of_each_kind() -> None:
    register_block("good")(broken_blocks.Good)
    card = check_block("attention", "good", compile_backend="eager")
    assert_keeps_contract(card)
    assert card["options"].detail == "factor, gate, bias, reduction change something"
    assert card["merge"].outcome == "not applicable"


def test_a_block_that_cannot_be_built_is_not_tried_further() -> None:
    register_block("broken")(broken_blocks.CannotBeBuilt)
    card = check_block("attention", "broken")
    assert [result.check for result in card.failures] == ["builds"]
    assert {result.outcome for result in card.results[1:]} == {"not applicable"}
    only = check_block("attention", "broken", checks=["cost"])
    assert [result.check for result in only.results] == ["builds", "cost"]


def test_a_softmax_over_the_batch_is_the_contracts_exception_by_name() -> None:
    spec = {"type": "triplet", "gate": "softmax_over_batch"}
    for block in (spec, {"type": "mean", "of": ["se", spec]}):
        card = check_block("attention", block, checks=["shape", "samples", "cost"])
        assert_keeps_contract(card)
        assert card["samples"].outcome == "not applicable"
        said = "it mixes samples by design (softmax over the batch)"
        assert card["samples"].detail == said


def test_a_card_is_plain_json() -> None:
    card = check_block("attention", {"type": "se", "reduction": 4}, checks=["shape"])
    plain = json.loads(json.dumps(card.to_dict()))
    assert plain["passed"] is True and plain["options"] == {"reduction": 4}
    assert [result["check"] for result in plain["results"]] == ["builds", "shape"]
    assert plain["results"][1]["outcome"] == "passed"


def test_a_parameter_that_cancels_by_design_is_mentioned() -> None:
    """A bias before the softmax over positions: the authors' code has it too."""
    card = check_block("attention", "global_context", checks=["gradients"])
    assert "conv_mask.bias cancels out by design" in card["gradients"].detail


@pytest.mark.parametrize(
    ("block", "options", "said"),
    [
        ("se_", {}, "did you mean 'se'"),
        ({"type": "se", "reduction": 0}, {}, "reduction"),
        ("se", {"checks": ["shapes"]}, "did you mean 'shape'"),
        ("se", {"compile_backend": "inducter"}, "did you mean 'inductor'"),
    ],
)
def test_wrong_names_are_refused(block: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_block("attention", block, **options)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [*((info.kind, defaults(info)) for info in registered_blocks()), *VARIED],
)
def test_every_block_is_traced_symbolically(kind: Any, spec: dict[str, Any]) -> None:
    spec = parse_block(kind, spec)
    subject = Subject(block_info(kind, spec["type"]), spec)
    for place in subject.places():
        block = subject.build(place).eval()
        graph = torch.fx.symbolic_trace(block)
        for size in ((8, 12), (7, 5)):
            x = subject.images(place, size)
            with torch.no_grad():
                torch.testing.assert_close(graph(x), block(x), rtol=1e-4, atol=1e-4)
