"""Candidates for new seeds of the kinds that failed most: `--suggest-seeds FILE`.

A held-out task must never become a seed, nor lead to one that is like it: then the next evaluation would
measure memory. So the model (the judge's, if there is one) is shown seeds of the failing kind, never held-out
tasks; all it learns of those is the kind. What it proposes must pass the screen of instructions, be unlike
every seed, and share neither 13 words in a row nor wording nor meaning with any held-out task. The kind
is that of the seeds shown, not proved; outputs are left empty: a person chooses, corrects and answers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.dedup.contamination import Contamination, HeldOut
from pipeline.dedup.encoder import Encoder
from pipeline.dedup.meaning import Meaning
from pipeline.dedup.rouge import RougeIndex
from pipeline.engines.base import Request, Response, Sampling
from pipeline.errors import PipelineError
from pipeline.evaluation.options import Options
from pipeline.evaluation.tasks import Item
from pipeline.format.sources import File, Source
from pipeline.judging.flow import Language
from pipeline.records import SeedTask, to_json
from pipeline.rundir import RunDir
from pipeline.stages.prompts import Prompts
from pipeline.stages.propose import Demonstrations, parse_proposals, propose_request
from pipeline.stages.screen import screen
from pipeline.stages.seeds import MAX_ROUGE

_SHOWN, _ASKED = 6, 4  # seeds in a prompt, instructions asked for
_NGRAM, _ROUGE, _COSINE = 13, 0.5, 0.8  # what a candidate may not share with a held-out task
_SHIPPED = Path(__file__).resolve().parents[2] / "seeds"


def check_file(options: Options, sources: Sequence[Source]) -> None:
    """Refuse a file among seeds or held-out tasks, and one that is there. Raises PipelineError."""
    if not options.suggest_seeds:
        return
    where, file = f"--suggest-seeds {options.suggest_seeds}", Path(options.suggest_seeds).resolve()
    read = {Path(name).resolve() for name in (*options.seeds, *options.heldout)} | {_SHIPPED}
    read |= {source.path.resolve() for source in sources if isinstance(source, File)}
    for place in sorted(read & {file, *file.parents}):
        problem = f"it lies in {place}, whose tasks are read as they are"
        raise PipelineError(where, problem, "Name a file elsewhere: a person checks candidates first.")
    if file.exists() and not (options.resume or options.overwrite):
        raise PipelineError(where, "the file is there already", "Name another, or use --overwrite.")


class Proposing:
    """Implements `scheduler.Job`: asks for instructions of the worst kinds in turn."""

    def __init__(
        self, options: Options, kinds: Sequence[Mapping[str, Any]], seeds: Sequence[SeedTask], *, chat: bool
    ) -> None:
        self._options, self._kinds, self._seeds = options, kinds, seeds
        self._prompts, self._style = Prompts(options.prompts), "chat" if chat else "completion"
        self._shown: dict[int, tuple[Mapping[str, Any], Demonstrations]] = {}
        self.proposed: list[tuple[Mapping[str, Any], Demonstrations, int, str]] = []

    def next_request(self, number: int) -> Request | None:
        """Ask for one kind, showing seeds of that kind, others of the language where it has few."""
        if not self._kinds or number >= self._options.num_suggestions:
            return None
        kind = self._kinds[number % len(self._kinds)]
        language, tag = kind["language"], kind["tag"]
        rng = random.Random(f"{self._options.seed}/{number}/suggest")
        mine = [seed for seed in self._seeds if seed.language == language]
        same = [seed for seed in mine if tag in seed.tags]
        chosen = rng.sample(same, min(_SHOWN, len(same)))
        others = [seed for seed in mine if seed not in same]
        chosen += rng.sample(others, min(max(0, 2 - len(chosen)), len(others)))
        shown = Demonstrations(tuple(seed.instruction for seed in chosen), tuple(seed.id for seed in chosen))
        self._shown[number] = kind, shown
        name = "propose_classification" if tag == "classification" else "propose"
        sampling = Sampling(0.7, 0.9, max_tokens=300, seed=rng.getrandbits(31))
        prompt = self._prompts.get(language, name, self._style)
        request = propose_request(prompt, shown, "", _ASKED, sampling)
        if not self._options.judge_model:
            return request
        return Request(request.prompt, request.chat, request.system, request.sampling, role="judge")

    def prepare(self, first: int, responses: Sequence[Response]) -> None:
        """Nothing is done better together."""

    def admit(self, number: int, response: Response) -> None:
        """Read the proposals."""
        kind, shown = self._shown[number]
        if response.error:
            return
        found = parse_proposals(
            response.text,
            "",
            chat=self._style == "chat",
            finish_reason=response.finish_reason,
            shown=shown.texts,
        )
        self.proposed += [(kind, shown, number, text) for text, drop in found if not drop]


def candidates(
    job: Proposing,
    items: Sequence[Item],
    seeds: Sequence[SeedTask],
    languages: Mapping[str, Language],
    encoder: Encoder,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The candidates as seed tasks without outputs, and how many proposals were left out, by reason."""
    held = HeldOut([item.id for item in items], [item.prompt.request for item in items])
    asked = HeldOut([item.id for item in items], [item.instruction for item in items])
    whole = HeldOut([item.id for item in items], [item.text for item in items])
    meaning = Meaning(_COSINE, encoder)
    meaning.insert(held.where, held.texts, meaning.encode(held.texts))
    against = (
        Contamination(whole, ngram=_NGRAM, rouge=1),
        Contamination(asked, ngram=0, rouge=_ROUGE),
        Contamination(held, ngram=0, rouge=_ROUGE, meaning=meaning),
    )
    index = RougeIndex(MAX_ROUGE)
    index.insert([seed.id for seed in seeds], [seed.instruction for seed in seeds])
    out, left = list[dict[str, Any]](), dict[str, int]()
    for kind, shown, number, text in job.proposed:
        language, tag = kind["language"], kind["tag"]
        if drop := screen(text, language, languages[language].words):
            reason = drop.reason
        elif any(one.find([text], meaning.encode([text])) for one in against):
            reason = "like_a_held_out_task"
        elif not index.add([f"candidate-{number}"], [text]).kept[0]:
            reason = "near_duplicate"
        else:
            out.append(_candidate(len(out) + 1, kind, shown, text, language, tag))
            continue
        left[reason] = left.get(reason, 0) + 1
    return out, dict(sorted(left.items()))


def write(options: Options, found: Sequence[Mapping[str, Any]]) -> None:
    """Put the file in place. Raises PipelineError if the disk refuses."""
    path = Path(options.suggest_seeds)
    path.parent.mkdir(parents=True, exist_ok=True)
    RunDir(path.parent).write(path.name, "".join(to_json(row) + "\n" for row in found))


def _candidate(
    number: int, kind: Mapping[str, Any], shown: Demonstrations, text: str, language: str, tag: str
) -> dict[str, Any]:
    return {
        "id": f"candidate-{language}-{tag}-{number}",
        "instruction": text,
        "instances": [{"input": "", "output": ""}],
        "is_classification": tag == "classification",
        "language": language,
        "tags": [tag],
        "provenance": {"because": kind["add"], "shown": list(shown.ids)},
    }
