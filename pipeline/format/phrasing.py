"""From what a row says (instruction, input, output) to what a user says and what the assistant answers.

Three families of phrasings:

- `plain`: the instruction, an empty line, the input; as `records.Example.messages`.
- `self-instruct`: the varied encodings of Self-Instruct (Wang et al. 2022, arXiv:2212.10560), with labels and
  without, with different line breaks, so that the model does not hang on one of them.
- `flan`: many natural phrasings per kind of task, as in FLAN (Wei et al. 2021, arXiv:2109.01652) and T0 (Sanh
  et al. 2021, arXiv:2110.08207), and its later mixture of zero-shot, few-shot, chain-of-thought and inverted
  examples (Chung et al. 2022, arXiv:2210.11416; Longpre et al. 2023, arXiv:2301.13688).

Deviations from FLAN:

1. Its templates belong to a data set and say what to do; ours belong to a kind of task and go around an
   instruction that says so itself, whose words they keep as they are.
2. An inverted example asks for the instruction and shows the input, where FLAN lets the model make one up.
3. The wording is ours, in English and in Chinese: prompts/formats/flan.*.yaml and self-instruct.yaml.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.format.phrasing_files import (
    DEFAULT,
    FOLDER,
    Exemplars,
    Flan,
    Phrasing,
    Section,
    fill,
    read_flan,
    read_self_instruct,
)
from pipeline.records import LANGUAGES

FAMILIES = ("plain", "self-instruct", "flan")
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")  # a Chinese character counts as a word
# Where an instruction says that its input stands: a phrasing must not put it on the other side.
_BELOW = re.compile(r"\b(?:below|following)\b|下面|下列|下述|下文|下方|以下|如下", re.IGNORECASE)
_ABOVE = re.compile(r"\b(?:above|preceding)\b|上面|上述|上文|上方", re.IGNORECASE)
_PLAIN = Section((Phrasing("", "{instruction}\n\n{input}"),), (Phrasing("", "{instruction}"),))


@dataclass(frozen=True)
class Asked:
    """What a row says. `kind` is a tag of the seeds ("" = unknown), `options` the answers to choose from."""

    instruction: str
    input: str
    output: str
    language: str
    kind: str
    rationale: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phrased:
    """One exchange, and which phrasing it is: `plain`, `self-instruct/en/4`, `flan/classification/3`."""

    messages: tuple[dict[str, str], ...]
    variety: str


@dataclass(frozen=True)
class Shares:
    """How often `flan` takes a form, of the rows that allow it, in [0, 1].

    `inversion`: the answer is shown and the instruction asked for, where the answer has at least
    `min_inversion_words` words (a Chinese character is one) and is no choice among options.
    `chain_of_thought`: the rationale comes before the answer, where there is one. `few_shot`: the shots come
    before the question. The last two combine if every shot has a rationale.
    """

    inversion: float = 0.1
    chain_of_thought: float = 0.5
    few_shot: float = 0.25
    min_inversion_words: int = 20


DEFAULT_SHARES = Shares()


def phrase(
    asked: Asked,
    family: str,
    seed: int,
    key: str,
    *,
    shots: Sequence[Asked] = (),
    shares: Shares = DEFAULT_SHARES,
    folder: Path = FOLDER,
) -> Phrased:
    """Say a row in a phrasing of the family, drawn by `seed` and `key` alone.

    So neither the order of rows nor the number of workers matters. `shots` are examples in the language of
    `asked` for a few-shot prompt; only `flan` uses them, and options and rationales. `folder` holds the files
    of phrasings. Raises PipelineError.
    """
    if asked.language not in LANGUAGES:
        problem = f"no phrasings for language '{asked.language}', expected {' or '.join(LANGUAGES)}"
        raise PipelineError(key, problem, "Correct it.")
    draw = random.Random(f"{seed} {key}")
    if family == "plain":
        return _said(asked, _PLAIN, draw, family)
    if family == "self-instruct":
        section = read_self_instruct(folder / "self-instruct.yaml", asked.language)
        return _said(asked, section, draw, family)
    if family == "flan":
        return _flan(asked, read_flan(folder / f"flan.{asked.language}.yaml"), draw, shots, shares)
    raise PipelineError(f"phrasing '{family}'", f"expected one of {', '.join(FAMILIES)}", "Correct it.")


def _flan(asked: Asked, flan: Flan, draw: random.Random, shots: Sequence[Asked], shares: Shares) -> Phrased:
    wished = (shares.inversion, shares.chain_of_thought, shares.few_shot)
    inverted, reasoned, shown = (draw.random() < share for share in wished)
    if inverted and not asked.options and len(_WORD.findall(asked.output)) >= shares.min_inversion_words:
        phrasing = draw.choice(flan.inversion.with_input if asked.input.strip() else flan.inversion.alone)
        return _exchange(fill(phrasing.text, _values(asked)), asked.instruction, f"flan/{phrasing.name}")
    reasoned = reasoned and bool(asked.rationale.strip())
    if shown and shots and (not reasoned or all(shot.rationale.strip() for shot in shots)):
        return _few_shot([*shots, asked], flan.few_shot, draw, reasoned=reasoned)
    if reasoned:
        return _said(_listed(asked), flan.chain_of_thought, draw, "flan", reasoned=True)
    section = flan.options if asked.options else flan.kinds.get(asked.kind, flan.kinds[DEFAULT])
    return _said(asked, section, draw, "flan")


def _said(
    asked: Asked, section: Section, draw: random.Random, family: str, *, reasoned: bool = False
) -> Phrased:
    phrasing = draw.choice(_fitting(section, asked))
    variety = f"{family}/{phrasing.name}".rstrip("/")
    return _exchange(fill(phrasing.text, _values(asked)), _answer(asked, reasoned), variety)


def _fitting(section: Section, asked: Asked) -> Sequence[Phrasing]:
    """Those that put the input, if there is one, where the instruction says it is ("the text below")."""
    if not asked.input.strip():
        return section.alone
    below, above = _BELOW.search(asked.instruction), _ABOVE.search(asked.instruction)
    fitting = [p for p in section.with_input if not (below if p.input_first else above)]
    return fitting or section.with_input


def _few_shot(
    examples: Sequence[Asked], forms: Sequence[Exemplars], draw: random.Random, *, reasoned: bool
) -> Phrased:
    """The last of the examples is the question."""
    listed = [_listed(example) for example in examples]
    alike = all(e.instruction == listed[-1].instruction and e.input.strip() for e in listed)
    form = draw.choice([form for form in forms if alike or not form.shared])
    texts = [form.with_input if e.input.strip() else form.alone for e in listed]
    texts[-1] = texts[-1].removesuffix("{output}").rstrip()
    said = [
        fill(text, {**_values(e), "output": _answer(e, reasoned)})
        for text, e in zip(texts, listed, strict=True)
    ]
    head = [fill(form.head, _values(listed[-1]))] if form.head else []
    variety = f"flan/chain_of_thought_{form.name}" if reasoned else f"flan/{form.name}"
    return _exchange("\n\n".join(head + said), _answer(examples[-1], reasoned), variety)


def _listed(asked: Asked) -> Asked:
    """With the options below the instruction, for forms that have no place for them."""
    if not asked.options:
        return asked
    return replace(asked, instruction=f"{asked.instruction}\n{_lines(asked.options)}")


def _values(asked: Asked) -> Mapping[str, str]:
    return {
        "instruction": asked.instruction,
        "input": asked.input,
        "output": asked.output,
        "options": _lines(asked.options),
        "options_inline": " / ".join(asked.options),
    }


def _lines(options: Sequence[str]) -> str:
    return "\n".join(f"- {option}" for option in options)


def _answer(asked: Asked, reasoned: bool) -> str:
    return f"{asked.rationale}\n\n{asked.output}" if reasoned else asked.output


def _exchange(user: str, assistant: str, variety: str) -> Phrased:
    return Phrased(({"role": "user", "content": user}, {"role": "assistant", "content": assistant}), variety)
