"""What the looks of a study say: of each wave of its rows, and of all rows together."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from blocklab.results.design_file import DesignJson, Wave
from blocklab.statistics.family import Comparison, Family
from blocklab.statistics.sequential import LookTaken, Seen, before_looks, levels, take_looks
from blocklab.study.schema import in_list

Figures = Mapping[str, Mapping[int, float]]  # row -> seed -> figure


@dataclass(frozen=True)
class WaveTaken:
    """A wave of rows, and what its looks say by the runs that are there."""

    wave: Wave
    looks: tuple[LookTaken, ...]

    @property
    def family(self) -> Family | None:
        """What its last look says; None before its first."""
        return self.looks[-1].family if self.looks else None

    @property
    def judged(self) -> Mapping[int, tuple[str, ...]]:
        """The looks, from 0, whose words rows have now: that at which each ended, or the last."""
        last, found = len(self.looks) - 1, dict[int, tuple[str, ...]]()
        for row in self.wave.rows if self.looks else ():
            places = (i for i, look in enumerate(self.wave.looks) if look.ended(row))
            place = next(places, last)
            found[place] = (*found.get(place, ()), row)
        return dict(sorted(found.items()))


def take_waves(
    design: DesignJson, figures: Figures, rows: Sequence[str], **how: Any
) -> tuple[WaveTaken, ...]:
    """Return what the looks on record say.

    Args:
        design: with `until_decided`.
        figures: what rows are compared by, those of rows that were dropped too.
        rows: the study's, the baseline among them.
        how: what `take_looks` takes beside them.
    """
    found = []
    for wave in design.waves(rows):
        seen = [look.seen for look in wave.looks]
        found.append(WaveTaken(wave, _taken(design, figures, wave, seen, how)))
    return tuple(found)


def next_looks(
    design: DesignJson, figures: Figures, rows: Sequence[str], **how: Any
) -> tuple[WaveTaken, ...]:
    """Take the look after those on record of each wave that goes on, by all finished runs.

    Returns the waves, that look last; none of those of whose rows, or baseline, no run finished.
    """
    assert design.until_decided is not None
    found = []
    for wave in design.waves(rows):
        now = {row: sorted(figures.get(row, ())) for row in (design.baseline, *wave.rows)}
        if len(wave.looks) == len(design.until_decided.seeds) or not now[design.baseline]:
            continue
        if any(now[row] for row in wave.going):
            seen = [*(look.seen for look in wave.looks), Seen(now)]
            found.append(WaveTaken(wave, _taken(design, figures, wave, seen, how)))
    return tuple(found)


def family_of(design: DesignJson, figures: Figures, waves: Sequence[WaveTaken]) -> Family:
    """Return all rows' verdicts, and the tests of the look that was taken last."""
    assert design.until_decided is not None
    before = before_looks(figures, design.baseline, design.until_decided.looks())
    taken = [wave for wave in waves if wave.looks]
    if not taken:
        return before
    said = dict[str, Comparison]()
    for wave in taken:
        said |= wave.looks[-1].family.comparisons
    latest = max(taken, key=lambda wave: design.looks.index(wave.wave.looks[-1]))
    comparisons = {row: said.get(row, one) for row, one in before.comparisons.items()}
    return replace(latest.looks[-1].family, comparisons=comparisons)


def how_judged(waves: Sequence[WaveTaken]) -> tuple[str, ...]:
    """Say by which tests rows have the words that they have now, and which rows at which look.

    What holds of a look as of one before it is said once; which rows, where looks are several.
    """
    found = [
        (f"{', '.join(map(in_list, rows))} (look {look + 1})", wave.looks[look].family)
        for wave in waves
        for look, rows in wave.judged.items()
    ]
    if len(found) == 1:
        return found[0][1].sentences
    said: list[str] = []
    for rows, family in found:
        new = [sentence for sentence in family.sentences if sentence not in said]
        said += new[:1] and [f"{rows}: {new[0]}", *new[1:]]
    return tuple(said)


def smallest_level(design: DesignJson, waves: Sequence[WaveTaken]) -> float:
    """Return what claims on rows that stop by what they show are held to; 0 before any look.

    It is the smallest of all looks of the waves that were looked at, those still to come too: what
    a claim is held to must not depend on how far the looks are.
    """
    assert design.until_decided is not None
    looks, found = design.until_decided.looks(), list[float]()
    for wave in (one.wave for one in waves if one.looks):
        rows = max(1, len(wave.rows) + wave.dropped)
        to_come = levels(looks, rows, design.paired)[len(wave.looks) :]
        found += [*(look.level for look in wave.looks), *to_come]
    return min(found, default=0.0)


def _has_all(wave: Wave, row: str, by_seed: Mapping[int, float]) -> bool:
    """Whether all of a row's runs are there that the looks saw."""
    return all(set(look.seeds.get(row, ())) <= by_seed.keys() for look in wave.looks)


def _taken(
    design: DesignJson, figures: Figures, wave: Wave, seen: Collection[Seen], how: Mapping[str, Any]
) -> tuple[LookTaken, ...]:
    assert design.until_decided is not None
    if not seen or not wave.rows:
        return ()
    left = frozenset[str]().union(*(look.looked_at for look in wave.looks)).difference(wave.rows)
    dropped = [row for row in figures if row in left and _has_all(wave, row, figures[row])]
    rows = {design.baseline, *wave.rows, *dropped}
    first = wave.looks[0].seeds if wave.looks else ()  # in whose order rows were resampled
    values = {row: figures[row] for row in dict.fromkeys([*first, *figures]) if row in rows}
    looks = design.until_decided.looks()
    how = {**how, "more_rows": wave.dropped - len(dropped), "dropped": dropped}
    return tuple(take_looks(values, design.baseline, looks, seen, **how))
