"""Held-out texts that a run must not give away: what `--heldout` drops, with reason `contaminated`."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.dedup.contamination import Contamination, HeldOut
from pipeline.dedup.fields import held_out_text, whole_text
from pipeline.format.sources import Source
from pipeline.records import Drop

CONTAMINATED = "contaminated"


class HeldOutFilter:
    """Compares instructions and examples with held-out rows of any shape.

    `ngram` words in a row (0: off) are looked for in all that a held-out row says, ROUGE-L above `rouge` in
    its instruction.
    """

    def __init__(self, sources: Sequence[Source], *, ngram: int, rouge: float) -> None:
        rows = [row for source in sources for row in source.rows()]
        where = [row.name for row in rows]
        asked = HeldOut(where, [held_out_text(row, "instruction", "") for row in rows])
        said = HeldOut(where, [whole_text(row) for row in rows])
        self._wording = Contamination(asked, ngram=0, rouge=rouge)
        self._passages = Contamination(said, ngram=ngram, rouge=1)

    def instruction(self, instruction: str) -> Drop | None:
        """Drop an instruction that shares n-grams with a held-out text, or is worded like its instruction."""
        return _drop(self._passages, instruction) or _drop(self._wording, instruction)

    def example(self, instruction: str, input: str, output: str) -> Drop | None:
        """Drop an example that shares n-grams with a held-out text in any of its parts."""
        return _drop(self._passages, "\n".join((instruction, input, output)))


def _drop(held_out: Contamination, text: str) -> Drop | None:
    found = held_out.find([text])
    return Drop(CONTAMINATED, found[0][0].sentence()) if found else None
