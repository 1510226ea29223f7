"""What a study's file states: its claims, what they stand for, and the errata to know with them."""

from collections.abc import Collection, Mapping, Sequence

from blocklab.errors import InputError
from blocklab.study.claims import ZEROS, AnyClaim, parse_claim
from blocklab.study.rows import erratum_text
from blocklab.study.schema import StudyFile, in_list

_MOST_LEFT_OUT = 12  # names in a note


def read_claims(
    file: StudyFile, rows: Collection[str], baseline: str, name: str
) -> tuple[AnyClaim, ...]:
    """Read a study's claims about rows of these names.

    Raises:
        InputError: if one is none, is there twice, or is of what no run records.
    """
    claims: dict[str, AnyClaim] = {}
    for item in file.claims:
        text = item.claim
        try:
            claim = parse_claim(text, rows, baseline)
        except InputError as error:
            raise InputError(f"study '{name}': {error}") from None
        if text in claims:
            raise InputError(f"study '{name}' makes the claim '{text}' twice; remove one")
        if claim.metric == ZEROS and file.diagnose is None:
            raise InputError(
                f"study '{name}': claim '{text}' is of zeros, which no run of it records; add "
                "diagnose: {first: 30, last: 40}"
            )
        claims[text] = claim
    return tuple(claims.values())


def stated_notes(
    file: StudyFile, claims: Sequence[str], errata: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the study's notes, with the errata of all of it and of its claims; and a note a claim.

    Raises:
        InputError: if the study has no such erratum.
    """
    numbers = dict.fromkeys(file.general_errata)
    words: dict[str, str] = {}
    for item in file.claims:
        if item.claim in claims and (item.text or item.errata):
            numbers |= dict.fromkeys(item.errata)
            plural = "errata" if len(item.errata) > 1 else "erratum"
            see = f"({plural} {', '.join(map(str, item.errata))})" if item.errata else ""
            words[item.claim] = f"{item.text} {see}".strip()
    general = [f"Erratum {erratum_text(number, errata)}" for number in numbers]
    return (*file.notes, *general), words


def left_out(given: Collection[str], chosen: Sequence[str], claims: int) -> tuple[str, ...]:
    """Say which rows of the file are not in the study, and how many claims went with them."""
    others = [in_list(row) for row in given if row not in chosen]
    if not others:
        return ()
    note = f"a part of its file's study, without the row{'s' * (len(others) > 1)} {_some(others)}"
    if claims:
        note += f" and the {f'{claims} claims that name' if claims > 1 else 'claim that names'} "
        note += "one of them" if len(others) > 1 else "it"
    return (note,)


def studies_left_out(names: Sequence[str]) -> tuple[str, ...]:
    """Say which studies of a collection are not in it, as they have none of the rows asked for."""
    if not names:
        return ()
    studies = "studies" if len(names) > 1 else "study"
    return (
        f"a part of its file's collection, without the {studies} {_some(names)}, which "
        f"{'have' if len(names) > 1 else 'has'} none of these rows",
    )


def claims_left_out(count: int) -> tuple[str, ...]:
    """Say how many claims over data sets went with the rows that a part leaves out."""
    if not count:
        return ()
    claims = (
        f"{count} claims over data sets that name"
        if count > 1
        else ("the claim over data sets that names")
    )
    return (f"a part of its file's study, without {claims} rows that are not in it",)


def over_datasets_left_out(count: int) -> tuple[str, ...]:
    """Say how many claims over data sets are not judged on one in place of them all."""
    if count > 1:
        return (f"on one data set; its file's {count} claims over several are not judged",)
    return ("on one data set; its file's claim over several is not judged",)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LEFT_OUT
    return ", ".join(names[:_MOST_LEFT_OUT]) + (f" and {more} more" if more > 0 else "")
