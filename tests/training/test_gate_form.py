"""Which form gates take on a GPU: by the memory that a step of each was measured to need."""

import pytest
import torch

from blocklab.models.spec import model_spec
from blocklab.training import gate_form
from blocklab.training.gate_form import choose_gate_form
from blocklab.training.recipe import Recipe
from blocklab.training.workload import Workload

MB = 10**6


@pytest.mark.parametrize(
    ("free", "plain", "lean", "measured", "chosen", "says"),
    [
        (80_000, 500, 300, 0, False, ""),
        (1_000, 500, 300, 1, False, "0.50 GB of 1.00 GB free"),
        (1_000, 950, 600, 2, True, "0.60 GB of 1.00 GB free, less than 1.06 GB"),
        (1_000, None, 600, 2, True, "0.60 GB of 1.00 GB free, too little for the plain form"),
        (1_000, None, None, 2, False, "no form of them fits in 1.00 GB"),
        (1_000, 950, 950, 2, False, "they save nothing of 0.95 GB, and 1.00 GB are free"),
        (1_000, 950, None, 2, False, "they save nothing of 0.95 GB"),
    ],
)
def test_the_lean_form_is_for_where_the_plain_one_leaves_too_little(
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    plain: int | None,
    lean: int | None,
    measured: int,
    chosen: bool,
    says: str,
) -> None:
    needs, asked = {False: plain, True: lean}, list[bool]()

    def step_memory(_: object, lean: bool) -> int | None:
        asked.append(lean)
        need = needs[lean]
        return None if need is None else need * MB

    monkeypatch.setattr(gate_form, "probe_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(gate_form, "free_memory", lambda: free * MB)
    monkeypatch.setattr(gate_form, "step_memory", step_memory)
    recipe = Recipe.parse({"batch_size": 128})
    work = Workload(model_spec("resnet50_triplet"), recipe, 32, 10, 12800, 1)
    found, why = choose_gate_form(work, lambda _: pytest.fail("not measured by itself"))
    assert found is chosen
    assert why.startswith(says) and bool(why) == bool(says)
    assert asked == [False, True][:measured]


def test_on_a_processor_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_form, "free_memory", lambda: pytest.fail("asked"))
    work = Workload(model_spec("resnet20"), Recipe(), 32, 10, 12800, 1)
    assert choose_gate_form(work, lambda _: pytest.fail("made")) == (False, "")
