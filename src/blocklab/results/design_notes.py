"""What a reader must know of how a study was looked at, in sentences."""

from collections.abc import Collection, Sequence

from blocklab.results.design_file import DesignJson, LookJson, pairing
from blocklab.results.waves import WaveTaken
from blocklab.statistics.sequential import chance_over_looks
from blocklab.study.schema import in_list

_FEWEST = 2  # seeds at which a look can say anything


def design_notes(
    design: DesignJson, waves: Sequence[WaveTaken], claims: Collection[str]
) -> tuple[str, ...]:
    """Return the sentences of a study's design.json.

    Args:
        design: what is on record.
        waves: what the looks of `until_decided` say by the runs that are there.
        claims: what the study claims now.
    """
    notes = []
    if design.until_decided:
        notes += _until_decided(design, waves)
    elif said := _added_seeds(design):
        notes.append(said)
    notes += _looks_elsewhere(design)
    if design.finished_before:
        notes.append(
            f"{_count(design.finished_before, 'run')} had finished before this study was stated"
        )
    for name, row in design.rows.items():
        if row.dropped:
            seeds = _count(len(row.runs), "seed")
            notes.append(
                f"dropped after it had run, and counted among the rows: {name} ({seeds}, "
                f"dropped {_day(row.dropped)})"
            )
        elif row.after_runs:
            notes.append(f"added after {_count(row.after_runs, 'run')} had finished: row {name}")
    margin = None if design.margin is None else f"{design.margin:g}"
    in_its_file = {*claims, *design.left_out}
    stated = [(f"claim {text}", one, text in in_its_file) for text, one in design.claims.items()]
    stated += [(f"margin {one}", at, one == margin) for one, at in design.margins.items()]
    for ever, now, what in (
        (design.baselines, design.baseline, "baseline {}"),
        (design.pairings, pairing(design.paired), "seeds {}"),
    ):
        stated += [(what.format(text), one, text == now) for text, one in ever.items()]
    for what, one, still in stated:
        if not still:
            counted = ", and counted in p (Holm)" if what.startswith("claim") else ""
            notes.append(f"stated and dropped{counted}: {what}")
        elif one.after_runs:
            notes.append(f"stated after {_count(one.after_runs, 'run')} had finished: {what}")
    return tuple(notes)


def late_claims(design: DesignJson | None) -> frozenset[str]:
    """Return the claims that were stated after runs had finished."""
    stated = design.claims if design else {}
    return frozenset(claim for claim, one in stated.items() if one.after_runs)


def dropped_claims(design: DesignJson | None, claims: Collection[str]) -> tuple[str, ...]:
    """Return the claims that were stated and are not any more, but for those of rows left out."""
    if design is None:
        return ()
    return tuple(text for text in design.claims if text not in {*claims, *design.left_out})


def _until_decided(design: DesignJson, waves: Sequence[WaveTaken]) -> list[str]:
    assert design.until_decided is not None
    sizes, times = design.until_decided.seeds, design.until_decided.baseline_times
    more = f", the baseline with {times} times as many" if times > 1 else ""
    notes = [
        f"seeds until decided: looks at {_listed(sizes)} seeds of a row{more}; a study in which "
        f"nothing differs says better or worse of any row at any look in at most "
        f"{100 * design.alpha:g} %"
    ]
    if len(waves) > 1:  # also one of which the file has no row any more: it was looked at
        notes[0] += (
            f"; here {len(waves)} groups of rows are looked at, each by itself: any of all rows in "
            f"at most {100 * len(waves) * design.alpha:g} %"
        )
    for number, one in enumerate(waves):
        if number and one.wave.rows:
            earlier = [look.looked_at for other in waves[:number] for look in other.wave.looks]
            came = "back" if frozenset().union(*earlier).issuperset(one.wave.rows) else "first run"
            notes.append(
                f"{', '.join(map(in_list, one.wave.rows))}: {came} after a look, so with looks "
                f"of {'their' if len(one.wave.rows) > 1 else 'its'} own, at "
                f"{100 * design.alpha:g} % of {'them' if len(one.wave.rows) > 1 else 'it'} alone"
            )
        notes += _of_wave(one, sizes)
    return notes


def _of_wave(taken: WaveTaken, sizes: Sequence[int]) -> list[str]:
    looks, notes, before = taken.wave.looks, list[str](), frozenset[str]()
    for number, one in enumerate(looks, 1):
        ended = [row for row in one.verdicts if one.ended(row) and row not in before]
        before |= {*ended}
        words = ", ".join(f"{in_list(row)} {one.verdicts[row]}" for row in ended)
        going = f"{_count(len(one.going), 'row')} going on" if one.going else "none going on"
        notes.append(
            f"look {number} of {len(sizes)}, {_day(one.at)}, at {one.planned} seeds and a level "
            f"of {100 * one.level:.2f} %: {words or 'none decided'}; {going}"
        )
    if len(looks) < len(sizes) and taken.wave.going:
        notes.append(
            f"not decided yet: look {len(looks) + 1} of {len(sizes)} is at {sizes[len(looks)]} "
            "seeds; run the study again to go on"
        )
    for number, (there, now) in enumerate(zip(looks, taken.looks, strict=False), 1):
        for row, one in now.family.comparisons.items():
            if row in there.verdicts and there.verdicts[row] != one.word:
                notes.append(
                    f"look {number} said {there.verdicts[row]} of {row}, and its runs as they are "
                    f"now say {one.word}"
                )
    return notes


def _added_seeds(design: DesignJson) -> str | None:
    looks = _tested(design.looks)
    if len(looks) < 2:
        return None
    rows = max(one.rows for one in looks)
    chance = chance_over_looks(
        [one.planned for one in looks], [one.level for one in looks], rows, design.paired
    )
    before = _listed([one.planned for one in looks[:-1]])
    return (
        f"seeds were added after a look: the verdicts had been looked at with {before} seeds "
        f"before these {looks[-1].planned}; where nothing differs, such a study says better or "
        f"worse of some row in {100 * chance:.1f} %, not {100 * design.alpha:g} % (say seeds: "
        "until_decided beforehand, and it stays there)"
    )


def _looks_elsewhere(design: DesignJson) -> list[str]:
    """Say which other looks these rows have had, that nothing here is corrected for."""
    found = [
        f"{_day(one.at)} with {_seeds_of(one, design.baseline)}" for one in design.looks_elsewhere
    ]
    if not found:
        return []
    return [
        f"these rows have also been looked at elsewhere ({'; '.join(found)}), and what is said "
        f"here is not corrected for that: whoever chooses between looks errs in more than "
        f"{100 * design.alpha:g} %"
    ]


def _seeds_of(look: LookJson, baseline: str) -> str:
    seeds = look.seeds.get(baseline, [])
    if seeds and seeds == list(range(seeds[0], seeds[-1] + 1)) and len(seeds) > 2:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'' if len(seeds) == 1 else 's'} {_listed(seeds)}"


def _tested(looks: Sequence[LookJson]) -> list[LookJson]:
    by_size = {one.planned: one for one in looks if one.planned >= _FEWEST and one.rows}
    return [by_size[size] for size in sorted(by_size)]


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _day(at: str) -> str:
    return at[:10] or "earlier"
