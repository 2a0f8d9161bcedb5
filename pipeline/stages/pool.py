"""One language's half of a run: its seeds, its pool of instructions, its queue of work, its prompts."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.dedup.embedding import EmbeddingIndex
from pipeline.dedup.rouge import RougeIndex
from pipeline.dedup.verdicts import Neighbour
from pipeline.errors import PipelineError
from pipeline.records import Drop, SeedTask
from pipeline.stages.classify import classify_demonstrations
from pipeline.stages.evolve import load_evolution
from pipeline.stages.instantiate import instance_demonstrations, whole_seeds
from pipeline.stages.parents import Parents
from pipeline.stages.plan import Plan
from pipeline.stages.prompts import Prompt, Prompts
from pipeline.stages.propose import Demonstrations, MachineWritten, load_primers, pick_demonstrations
from pipeline.stages.screen import load_words, screen
from pipeline.stages.text import length

if TYPE_CHECKING:
    from pipeline.stages.books import Ask


_SHORT_ANSWER = 8  # units: labels, numbers and names say too little to be compared
_SAME_FIELD = 0.35  # lowest cosine of what is evolved in breadth with its parent


class Pool:
    """State of one language; `target` examples are wanted.

    `earlier` are the instructions of earlier rounds, as (id, instruction).
    """

    def __init__(
        self,
        language: str,
        seeds: Sequence[SeedTask],
        prompts: Prompts,
        plan: Plan,
        target: int,
        earlier: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.language, self.seeds, self.plan, self.target = language, seeds, plan, target
        self.kept = self.proposals = self.proposals_in_flight = self.open_candidates = (
            self.closed_candidates
        ) = self.evolved = self.evolved_kept = 0
        self.max_proposals = plan.max_proposals
        self.queue: deque[Ask] = deque()
        self.machine = MachineWritten()
        self.words = load_words(prompts.path(f"{language}/words.yaml"))
        self.classification_now, self.shown_now = False, Demonstrations((), ())
        self.seeds_now: Sequence[SeedTask] = ()
        self.evolution = load_evolution(prompts.path(f"{language}/evolve.yaml")) if plan.evolve_frac else None
        self._primers = load_primers(prompts.path(f"{language}/primers.yaml"))
        self._prompts = prompts
        # two characters of Chinese say about as much as one word of English
        self.max_shown = plan.max_shown * (2 if language == "zh" else 1)
        rng = random.Random(f"{plan.seed}/{language}/demonstrations")
        self.classify_shown = classify_demonstrations(rng, seeds, self.max_shown)
        self.shown = instance_demonstrations(rng, seeds, self.max_shown)
        self._short = {c: self._shortest(c) for c in (False, True)}
        self.parents = Parents(language, seeds, self.words, plan, self.max_shown)
        self._whole = whole_seeds(seeds, self.max_shown) or list(seeds)
        shown = {"demonstrations": (), "opener": "", "count": 1, "instruction": "", "input": ""}
        answer = self.prompt("answer").request(shown)
        self.prompt_texts = (
            *(self.prompt(stage).render(**shown) for stage in ("propose", "propose_classification")),
            answer.system,
            answer.prompt,
        )
        self.proposing_texts = (*self.prompt_texts, *self._evolve_texts())  # no instruction may repeat them
        self.rouge = RougeIndex(plan.rouge_threshold)
        self.embedding = EmbeddingIndex(plan.embedding_threshold, plan.encoder)
        self._index([*((s.id, s.instruction) for s in self.seeds), *earlier])
        for key, text in earlier:  # what this run would not have admitted is not shown
            if not screen(text, language, self.words, plan.screen, self.proposing_texts):
                self.machine.add(key, text)
                self.parents.written.add(key, text)

    @property
    def embeds(self) -> bool:
        """Whether paraphrases are looked for: the threshold is below 1 and the model reads the language."""
        return self.plan.embedding_threshold < 1 and self.embedding.covers(self.language)

    @property
    def full(self) -> bool:
        """Whether enough examples are kept."""
        return self.kept >= self.target

    @property
    def progress(self) -> float:
        """Kept over wanted."""
        return self.kept / self.target

    @property
    def wants_proposals(self) -> bool:
        """Whether what is under way will probably not do, and the limit on proposals is not reached.

        The share of candidates that end in a kept example is estimated from those that are closed.
        """
        share = (self.kept + 3) / (self.closed_candidates + 10)
        coming = self.open_candidates + self.proposals_in_flight * self.plan.num_proposals
        return self.proposals < self.max_proposals and self.kept + coming * share < self.target

    def go_on(self, *asks: Ask) -> None:
        """Take what was begun further, in this order, before anything new.

        So examples are kept from the first minutes on, and the share that is kept is known before much more
        is proposed than will be needed.
        """
        self.queue.extendleft(reversed(asks))

    def prompt(self, stage: str) -> Prompt:
        """The prompt of a stage, in the style chosen for it."""
        style = self.plan.answer_style if stage == "answer" else self.plan.style
        return self._prompts.get(self.language, stage, style)

    def stamp(self, name: str) -> str:
        """The name and digest of a prompt file that was used, for the provenance."""
        return f"{name}@{self._prompts.digest(name)}"

    def openers(self, classification: bool) -> Sequence[str]:
        """First words to prime a proposal with."""
        return self._primers["classification" if classification else "open"]

    def draw_demonstrations(self, rng: random.Random) -> None:
        """Choose what the next proposals show.

        Seeds and machine-written instructions, all of one kind or of any.

        Alpaca's variant shows whole seeds, and none that a model wrote.
        """
        plan, alpaca = self.plan, self.plan.variant == "alpaca"
        self.classification_now = not alpaca and rng.random() < plan.classification_frac
        if alpaca:
            self.seeds_now = rng.sample(self._whole, min(plan.num_human, len(self._whole)))
            texts, ids = [s.instruction for s in self.seeds_now], [s.id for s in self.seeds_now]
            self.shown_now = Demonstrations(tuple(texts), tuple(ids))
            return
        machine = None if self.classification_now else self.machine
        seeds = self._short[self.classification_now]
        self.shown_now = pick_demonstrations(rng, seeds, machine, plan.num_human, plan.num_machine)

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode texts together, if the model reads this language; see `EmbeddingIndex.prepare`."""
        self.embedding.prepare(texts if self.embedding.covers(self.language) else ())

    def request_and_answer(self, instruction: str, input: str, output: str) -> list[str]:
        """The two texts that `off_topic` compares; none if it does not."""
        looks = self.plan.min_relevance and self.embedding.covers(self.language)
        return [f"{instruction} {input}".strip(), output] if looks and length(output) >= _SHORT_ANSWER else []

    def off_topic(self, instruction: str, input: str, output: str) -> Drop | None:
        """Drop an answer of some length whose meaning is far from the request's (reason off_topic).

        The measure is the cosine of sentence embeddings; a haiku scores low too, hence a low threshold.
        """
        least = self.plan.min_relevance
        texts = self.request_and_answer(instruction, input, output)
        if not texts:
            return None
        asked, said = self.embedding.encode(texts)
        score = float(asked @ said)
        return (
            Drop("off_topic", f"cosine {score:.3f} < {least:g} between request and answer")
            if score < least
            else None
        )

    def lost_field(self, text: str, parent: str) -> Drop | None:
        """Drop what was evolved in breadth and is of another field than its parent, by their embeddings."""
        if not self.embeds:
            return None
        ours, theirs = self.embedding.encode([text, parent])
        score = float(ours @ theirs)
        evidence = f"cosine {score:.3f} < {_SAME_FIELD:g} with its parent"
        return Drop("lost_field", evidence) if score < _SAME_FIELD else None

    def compare(self, key: str, text: str, parent: str = "") -> tuple[Drop | None, dict[str, Any]]:
        """Admit an instruction unless it is too like one admitted before.

        The nearest neighbours as evidence. What was made harder must not be worded like its `parent` (an id),
        but means nearly the same: a requirement more hardly moves an embedding.
        """
        by_words = self.rouge.neighbour(self.rouge.compare([text]), 0)
        if by_words:
            return Drop("near_duplicate", _evidence("ROUGE-L", by_words, self.rouge.threshold)), {}
        nearest: dict[str, Any] = {"rouge": _short(next(iter(self.rouge.most_similar(text)), None))}
        if self.embeds:
            vector = self.embedding.encode([text])[0]
            by_meaning = self.embedding.nearest(vector, parent)
            if by_meaning and by_meaning.score > self.embedding.threshold:
                return Drop("same_meaning", _evidence("cosine", by_meaning, self.embedding.threshold)), {}
            nearest["embedding"] = _short(by_meaning)
            self.embedding.insert(key, text, vector)
        self.rouge.insert([key], [text])
        return None, nearest

    def _evolve_texts(self) -> list[str]:
        """What the prompts that evolve say of their own."""
        if not self.evolution:
            return []
        prompt, rest = self.prompt("evolve"), {"examples": (), "instruction": "", "opener": ""}
        return [prompt.render(how=o.how, in_depth=o.in_depth, **rest) for o in self.evolution.operations]

    def _shortest(self, classification: bool) -> Sequence[SeedTask]:
        fitting = [s for s in self.seeds if length(s.instruction) <= self.max_shown]
        kind = [s for s in fitting if s.is_classification == classification]
        needed = self.plan.num_human + self.plan.num_machine
        pool = next((p for p in (kind, fitting, self.seeds) if len(p) >= needed), self.seeds)
        if not pool:
            raise PipelineError(
                "--seeds", f"no seed in language '{self.language}'", "Add some, or leave the language out."
            )
        return pool

    def _index(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Admit without asking, as (id, instruction)."""
        keys, texts = [key for key, _ in pairs], [text for _, text in pairs]
        self.rouge.insert(keys, texts)
        if self.embeds:
            for key, text, vector in zip(keys, texts, self.embedding.encode(texts), strict=True):
                self.embedding.insert(key, text, vector)


def _evidence(measure: str, found: Neighbour, threshold: float) -> str:
    return f"{measure} {found.score:.3f} > {threshold:g} against {found.key}: {found.text[:80]}"


def _short(found: Neighbour | None) -> dict[str, Any] | None:
    return {"id": found.key, "score": round(found.score, 4)} if found else None
