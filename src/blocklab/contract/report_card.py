"""The block contract: what every block must do, tried on a real one, and told as a report card.

A check that passes says what was tried; one that fails says where. The checks themselves are in
`blocklab.contract.checks`.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from blocklab.backbones.own import KIND
from blocklab.blocks.plugins import place_in_plugins
from blocklab.blocks.registry import BlockSpec, block_info, parse_block
from blocklab.contract.backbones import BACKBONE_CHECKS, BackboneSubject
from blocklab.contract.checks import CHECKS, STUDY
from blocklab.contract.trial import CheckFailed, NotApplicable, Subject
from blocklab.errors import InputError, did_you_mean, error_line

Outcome = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class CheckResult:
    """What came of one check."""

    check: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class ReportCard:
    """What came of all checks of one block; the options are as they were checked."""

    kind: str
    block: str
    options: BlockSpec
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    def __getitem__(self, check: str) -> CheckResult:
        """Return what came of a check, by its name."""
        return next(result for result in self.results if result.check == check)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**asdict(self), "passed": self.passed}


def check_block(
    kind: str,
    block: str | Mapping[str, Any],
    compile_backend: str | None = None,
    checks: Sequence[str] | None = None,
) -> ReportCard:
    """Run the contract's checks on a registered block.

    Args:
        kind: ``attention``, ``mixer``, ``token_mixer``, ``ffn_mixer`` or ``backbone``.
        block: its name, or a specification with options; those left out have their defaults.
        compile_backend: what `torch.compile` is tried with: ``inductor`` makes code and needs a
            C++ compiler; ``aot_eager`` traces forward and backward and runs them as they are.
            None leaves the check out, as compiling takes most of the time.
        checks: names of `CHECKS`, or of a backbone's `BACKBONE_CHECKS`, to run (default: all);
            whether it builds is always looked at.

    Raises:
        InputError: for an unknown block, option, backend or check.
    """
    known = BACKBONE_CHECKS if kind == KIND else CHECKS
    for name in checks or ():
        if name not in known:
            raise InputError(
                f"no check '{name}'{did_you_mean(name, known) or '.'} Checks: {', '.join(known)}"
            )
    if compile_backend is not None:
        backends = torch.compiler.list_backends(exclude_tags=())
        if compile_backend not in backends:
            raise InputError(
                f"no compiler backend '{compile_backend}'"
                f"{did_you_mean(compile_backend, backends) or '; try inductor or aot_eager'}"
            )
    spec = parse_block(kind, block)
    made = BackboneSubject if kind == KIND else Subject
    subject = made(block_info(kind, spec["type"]), spec, compile_backend)
    results: list[CheckResult] = []
    faults: dict[tuple[str, str], str] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny maps: more threads only wait for one another
    try:
        for name, check in known.items():
            if checks is not None and name not in checks and results:
                continue
            if results and results[0].outcome == "failed":  # nothing can be tried on no block
                results.append(CheckResult(name, "not applicable", "it cannot be built"))
            elif name == STUDY and any(result.outcome == "failed" for result in results):
                results.append(CheckResult(name, "not applicable", "tried once all else passes"))
            else:
                results.append(_run(name, check, subject, faults))
    finally:
        torch.set_num_threads(threads)
    options = {key: value for key, value in spec.items() if key != "type"}
    return ReportCard(kind, subject.info.name, options, tuple(results))


def _run(
    name: str, check: Any, subject: Subject, faults: dict[tuple[str, str], str]
) -> CheckResult:
    """Run a check; `faults` has where errors came from, and which check met them first."""
    try:
        with torch.random.fork_rng(devices=[]):
            return CheckResult(name, "passed", check(subject))
    except NotApplicable as reason:
        return CheckResult(name, "not applicable", str(reason))
    except Exception as error:  # whatever a block does wrong is for the card to say
        said = str(error) if isinstance(error, CheckFailed) else error_line(error)
        place = place_in_plugins(error, inspect.getfile(subject.info.cls))
        if not place:
            return CheckResult(name, "failed", said)
        first = faults.setdefault((place, _kind_of(error)), name)
        if first != name:
            return CheckResult(name, "failed", f"the same error as in '{first}'")
        return CheckResult(name, "failed", f"{said} ({place})")


def _kind_of(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


__all__ = ["CheckResult", "ReportCard", "check_block"]
