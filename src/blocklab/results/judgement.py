"""What runs say of one claim: its word, and the numbers and the p for it."""

from dataclasses import dataclass

from blocklab.statistics.summary import ALPHA

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclass(frozen=True)
class Judgement:
    """A claim's text, one of `supported`, `contradicted`, `undecided`, and the numbers for it.

    `p` is that of the test that speaks for the word, `p_holm` the same corrected for the study's
    other claims, and `p_holm_collection` for those of all studies that were judged together. None
    where nothing was tested, or only one study was judged. A p below `level` speaks.
    """

    claim: str
    word: str
    numbers: str
    p: float | None = None
    p_holm: float | None = None
    p_holm_collection: float | None = None
    level: float = ALPHA

    @property
    def word_in_collection(self) -> str:
        """The word that the p of the collection allows."""
        p = self.p_holm_collection
        return self.word if p is None or p < self.level else UNDECIDED
