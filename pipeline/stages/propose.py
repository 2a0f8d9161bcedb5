"""Stage 1, propose: show some instructions, have the model continue the list.

Wang et al. 2022, section 2.1.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.engines.base import Request, Sampling
from pipeline.errors import PipelineError
from pipeline.records import Drop, SeedTask, read_text
from pipeline.stages.prompts import Prompt
from pipeline.stages.sample import SteadySample
from pipeline.stages.text import collapse

# "9." "10)" "11、" "- " at the start of a line, but not "3.5" or "10:30"
_LINE_MARK = re.compile(
    r"^[ \t]*(?:(?:Task|任务)?[ \t]*\d{1,3}[ \t]*(?:[.．:：](?!\d)|[)）、])|[-*•·](?=[ \t]))[ \t]*",
    re.MULTILINE,
)
# "dog. 10. Explain" where lines were merged, but not the end of "in Python 3.11. Give"
_MERGED = re.compile(
    r"(?:(?:(?<=[!?。！？”\"])|(?<=\D\.))[ \t]*|(?<=\d\.)[ \t]+)"
    r"(\d{1,3})[.、．][ \t]*(?=[A-Z\u4e00-\u9fff\"“])"
)
_LEFTOVER = re.compile(r"^(?:\d{1,3}[ \t]*(?:[.．)）][ \t]+|、(?!\d)[ \t]*)|[-*•·][ \t]+)")
_BOLD = re.compile(r"(?<![A-Za-z0-9)])\*\*(?=\S)|(?<=\S)\*\*(?![A-Za-z0-9(])")  # but not 2**10


@dataclass(frozen=True)
class Demonstrations:
    """The instructions shown in one prompt, shuffled, and the ids of the tasks they come from."""

    texts: tuple[str, ...]
    ids: tuple[str, ...]


class MachineWritten:
    """The admitted instructions of a model, as (id, instruction)."""

    def __init__(self) -> None:
        self.items: list[tuple[str, str]] = []
        self._sample = SteadySample()

    def add(self, key: str, instruction: str) -> None:
        """Take in one more."""
        self.items.append((key, instruction))
        self._sample.add(instruction)

    def draw(self, key: str, count: int) -> list[tuple[str, str]]:
        """Draw up to `count` of them, steadily (`sample.SteadySample`)."""
        return [self.items[i] for i in self._sample.draw(key, count)]


def pick_demonstrations(
    rng: random.Random,
    human: Sequence[SeedTask],
    machine: MachineWritten | None,
    num_human: int,
    num_machine: int,
) -> Demonstrations:
    """Draw `num_human` seeds and `num_machine` machine-written instructions.

    Seeds stand in while the pool is small, and for all of them without `machine`.
    """
    order = rng.sample(human, min(num_human + num_machine, len(human)))
    made = machine.draw(str(rng.getrandbits(64)), num_machine) if machine else []
    shown = [(s.id, s.instruction) for s in order[: num_human + num_machine - len(made)]] + made
    rng.shuffle(shown)
    return Demonstrations(tuple(t for _, t in shown), tuple(i for i, _ in shown))


def propose_request(
    prompt: Prompt, shown: Demonstrations, opener: str, count: int, sampling: Sampling
) -> Request:
    """Ask for `count` new instructions; a completion stops at the number after the last one."""
    stop = () if prompt.chat else (f"\n{len(shown.texts) + count + 1}.", "\n\n")
    values = {"demonstrations": shown.texts, "opener": opener, "count": count}
    return prompt.request(values, replace(sampling, stop=stop))


def parse_proposals(
    text: str, opener: str, *, chat: bool, finish_reason: str, shown: Sequence[str]
) -> list[tuple[str, Drop | None]]:
    """The proposed instructions in order, each with the reason if it can be told here that it is no proposal.

    Copes with other numbering than asked for, lines merged into one, a first item that carries on the
    prompt's opener, and an introduction before the first number. Reasons: cut_off (the answer ended at the
    length limit inside this item), prompt_echo (it was shown in the prompt), repeated_item.
    """
    whole = _BOLD.sub("", text if chat else opener + text)
    lined = _MERGED.sub(lambda m: f"\n{m[1]}. ", whole)
    marks = list(_LINE_MARK.finditer(lined))
    bounds = [0, *(m.start() for m in marks), len(lined)]
    pieces = [lined[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    if (chat and marks) or clean_item(pieces[0]) == opener:
        pieces[0] = ""  # "Here are five tasks:", or an opener that was not carried on
    echoes, seen = {collapse(s).casefold() for s in shown}, set[str]()
    out: list[tuple[str, Drop | None]] = []
    for number, item in enumerate(map(clean_item, pieces), 1):
        key, drop = item.casefold(), None
        if not item:
            continue
        if finish_reason == "length" and number == len(pieces):
            drop = Drop("cut_off", f"the answer reached its length limit inside '{item[-40:]}'")
        elif key in echoes:
            drop = Drop("prompt_echo", item[:80])
        elif key in seen:
            drop = Drop("repeated_item", item[:80])
        seen.add(key)
        out.append((item, drop))
    return out


def clean_item(piece: str) -> str:
    """One item without its number (or two: "9) 9) ...") and without quotes around the whole."""
    text = _LEFTOVER.sub("", collapse(_LINE_MARK.sub("", piece, count=1)))
    pairs = {'"': '"', "“": "”", "「": "」"}
    if len(text) > 2 and pairs.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def load_primers(path: Path) -> dict[str, list[str]]:
    """The first words for proposals, for "open" and for "classification" tasks. Raises PipelineError."""
    import yaml

    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise PipelineError(path, f"not YAML ({error})", "Mend the file.") from None
    wanted = {"open", "classification"}
    if (
        not isinstance(found, dict)
        or set(found) != wanted
        or not all(isinstance(v, list) and v for v in found.values())
    ):
        raise PipelineError(path, "expected two lists, 'open' and 'classification'", "Mend the file.")
    return {kind: [str(word) for word in words] for kind, words in found.items()}
