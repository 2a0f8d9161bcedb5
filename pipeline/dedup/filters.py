"""The measures of `python -m pipeline.dedup` that its options switch on, applied to batches of rows."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.dedup.contamination import Contamination
from pipeline.dedup.duplicates import Duplicates
from pipeline.dedup.encoder import encoder_for
from pipeline.dedup.fields import read_held_out, text_of
from pipeline.dedup.meaning import Meaning
from pipeline.dedup.options import Options
from pipeline.dedup.outcome import CONTAMINATED, Outcome
from pipeline.format.sources import Source
from pipeline.rows import Row

_BATCH = 8192  # rows looked at together
_BATCH_EMBEDDED = 1024  # the same where embeddings are made


class Filters:
    """Near duplicates among rows and, if held-out files are named, contamination."""

    def __init__(self, options: Options, held: Sequence[Source]) -> None:
        self._options = options
        self._encoder = encoder_for(options.encoder_settings())
        self._meaning = Meaning(options.embedding, self._encoder) if options.embedding < 1 else None
        self._duplicates = Duplicates(options.rouge, self._meaning, cjk=options.cjk)
        self._contamination = self._against(held) if held else None
        self.batch = _BATCH_EMBEDDED if self._meaning else _BATCH

    def _against(self, held: Sequence[Source]) -> Contamination:
        options, meaning = self._options, None
        texts = read_held_out(held, options.on, options.against_on)
        if self._meaning:
            meaning = Meaning(options.embedding, self._encoder)
            meaning.insert(texts.where, texts.texts, self._meaning.encode(texts.texts))
        return Contamination(
            texts, ngram=options.ngram, rouge=options.rouge, meaning=meaning, cjk=options.cjk
        )

    @property
    def described(self) -> str:
        """What is looked for, in words."""
        o = self._options
        parts = [f"ROUGE-L above {o.rouge:g}"] if o.rouge < 1 else []
        parts += [f"cosine above {o.embedding:g}"] if o.embedding < 1 else []
        said = f"on {o.on}: {', '.join(parts) or 'no measure'} among the rows"
        if not self._contamination:
            return said
        parts = [f"shared {o.ngram}-grams", *parts] if o.ngram else parts
        count = len(self._contamination.held.texts)
        return f"{said}; {', '.join(parts) or 'no measure'} against {count} held-out texts"

    def apply(self, rows: Sequence[Row], outcome: Outcome) -> None:
        """Decide a batch of rows in order."""
        options = self._options
        outcome.take(rows)
        texts = [text_of(row, options.on) for row in rows]
        vectors = self._meaning.encode(texts) if self._meaning else None
        found = self._contamination.find(texts, vectors) if self._contamination else {}
        dropping = options.contaminated == "drop"
        clean = [i for i in range(len(rows)) if not (dropping and i in found)]
        names = [rows[i].name for i in clean]
        clean_vectors = None if vectors is None else vectors[clean]
        alike = self._duplicates.add(names, [texts[i] for i in clean], clean_vectors)
        verdicts = {clean[i]: (reason, [finding]) for i, (reason, finding) in alike.items()}
        for i, row in enumerate(rows):
            if i in verdicts:
                outcome.drop(row, *verdicts[i])
            elif i in found and dropping:
                outcome.drop(row, CONTAMINATED, found[i])
            else:
                outcome.keep(row, found.get(i, []))
