"""Stage 4, classify: is the answer one label out of a small set? (Wang et al. 2022, section 2.2)

With a chat model the question is asked, with yes and no shown, and the two answers' likelihoods are
compared where the engine can score, else the answer is parsed. A small base model cannot answer such a
question, but it can tell in which of two lists a task is likelier to stand: with completion prompts and
scoring, the task's likelihood after a list of classification tasks is compared with that after a list of
open tasks (the noisy channel of Min et al. 2022, arXiv:2108.04106; tests/bench/classify.py measures both).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from pipeline.engines.base import Request, Response, Sampling
from pipeline.records import Drop, SeedTask
from pipeline.stages.prompts import Prompt
from pipeline.stages.references import refers_to_input
from pipeline.stages.structured import one_of, plain
from pipeline.stages.text import cjk_share, length
from pipeline.stages.words import Words

ANSWERS = {"en": ("Yes", "No"), "zh": ("是", "否")}
_SHOWN = 4  # demonstrations of each kind
_YES = re.compile(r"^\W*(yes\b|是(?![否不])|对(?![不于]))", re.IGNORECASE)
_NO = re.compile(r"^\W*(no\b|否|不|非(?!常))", re.IGNORECASE)

# A question that yes or no answers, in English from its first word on, in Chinese by what it holds.
_CLOSED = re.compile(
    r"(?:(?:in|for|given|based on|according to)\b[^,.?!]*, *)?"
    r"(?:(?:is|are|was|were|does|do|did|has|have|had|should|must)(?:n['’]t)?"
    r"|(?:can|could|would|will)(?:n['’]t)?(?! you\b))\b",
    re.IGNORECASE,
)
_CLOSED_ZH = re.compile(
    r"是否|是不是|有没有|有无|对不对|吗[？?]?$|[能会可]否|能不能|会不会|(?P<verb>[\u4e00-\u9fff])不(?P=verb)"
)
_MORE = re.compile(
    r"\b(?:explain|why|how|fix|rewrite|please|if (?:so|not|yes|no)|or(?! not\b))\b"
    r"|(?:\band|\bthen|[,;])\s+(?:then |also |to )?(?:what|which|who|where|when|correct|give|list|name"
    r"|identify|provide|justify|describe|translate|suggest|show|tell|say|write|find|make|change)\b"
    r"|什么|哪|怎|如何|为何|多少|几[个种条处]|谁|还是|或|解释|说明|理由|原因|修改|改[成为正写]|翻译|指出|找出|列出"
    r"|如果|若|(?<!合)并(?![非不没列排])"
    r"|^(?:请问?|麻烦)?[你您]?(?:能|可[以否])|(?:能否|能不能|可以|可否)(?:帮|把|给|为|替)",
    re.IGNORECASE,
)
# "Yes or no.", "Answer true or false.", "请回答是或否。" behind the question ask for nothing more.
_YES_OR_NO = re.compile(
    r"(?<=[.?!。？！])\s*(?:(?:please )?(?:answer|reply|respond|say)(?: with)?\s*)?\W{0,2}(?:yes"
    r"|true) or \W{0,2}(?:no|false)\W*$"
    r"|(?<=[。？！，?])\s*(?:请?(?:只)?(?:回)?答)\W{0,2}[是对有]\W{0,2}(?:或|还是)者?\W{0,2}[否错无]\W*$",
    re.IGNORECASE,
)

# First words that leave no doubt: of a choice among labels, and of a text to be written.
_CHOOSE = re.compile(
    r"(?:classify|categori[sz]e|label"
    r"|(?:decide|tell|determine|judge|state|say|check|identify) (?:whether|if))\b"
    r"|(?:is|are) (?:this|these|the following)\b[^.?!]{1,60}\bor\b[^.?!]{1,30}\?$"
    r"|请?(?:判断|分类|归类|[将把].{0,30}分类)",
    re.IGNORECASE,
)
_WRITE = re.compile(
    r"(?:(?:can|could) you |please )*(?:explain|describe|write|summari[sz]e|rewrite|translate|discuss|compose"
    r"|draft|outline|paraphrase|list|give|suggest|plan|share|define|compare|create)\b"
    r"|(?:how (?:do|does|can|could|would|should)|what are|why)\b"
    r"|请?(?:解释|说明|描述|写|撰写|概括|总结|改写|翻译|讨论|列出|列举|给出|设计|制定|推荐|介绍)",
    re.IGNORECASE,
)


def told_by_verb(instruction: str) -> bool | None:
    """Say whether it is a classification task where its first words leave no doubt, else None."""
    asked = instruction.strip()
    return True if _CHOOSE.match(asked) else False if _WRITE.match(asked) else None


def closed_question(instruction: str, words: Words) -> bool:
    """Say whether the instruction is one yes/no question about a given text and asks for nothing more."""
    asked = _YES_OR_NO.sub("", instruction.strip()).strip(" ，,")
    if re.search(r"[.?!。？！\n]", asked[:-1]) or _MORE.search(asked):
        return False
    if cjk_share(asked) > 0.5:
        closed = _CLOSED_ZH.search(asked) is not None
    else:
        closed = asked.endswith("?") and _CLOSED.match(asked) is not None
    return closed and refers_to_input(asked, words)


def classify_demonstrations(
    rng: random.Random, seeds: Sequence[SeedTask], max_length: int
) -> list[tuple[str, bool]]:
    """Short seeds of both kinds in turn, as (instruction, is it classification)."""
    short = [s for s in seeds if length(s.instruction) <= max_length]
    yes = [s.instruction for s in short if s.is_classification]
    no = [s.instruction for s in short if not s.is_classification]
    count = min(_SHOWN, len(yes), len(no))
    pairs = zip(rng.sample(yes, count), rng.sample(no, count), strict=True)
    return [shown for y, n in pairs for shown in ((y, True), (n, False))]


def compare_request(prompt: Prompt, shown: Sequence[tuple[str, bool]], instruction: str) -> Request:
    """Score `instruction` as the next item of a list of classification tasks and of a list of open tasks."""
    lists = [
        prompt.render(classification=kind, demonstrations=[t for t, k in shown if k == kind])
        for kind in (True, False)
    ]
    return Request("", choices=tuple((context, f" {instruction}\n") for context in lists))


def ask_request(
    prompt: Prompt,
    shown: Sequence[tuple[str, bool]],
    instruction: str,
    language: str,
    *,
    can_score: bool,
    structured: bool = False,
) -> Request:
    """Ask whether `instruction` is a classification task, as JSON if `structured`; "yes" is choice one."""
    values = {"demonstrations": shown, "instruction": instruction}
    if can_score:
        lead = "" if prompt.chat or language == "zh" else " "
        return prompt.request(values, choices=tuple(("", lead + answer) for answer in ANSWERS[language]))
    if structured:
        return prompt.request(values, Sampling(max_tokens=24), schema=one_of(ANSWERS[language]))
    return prompt.request(values, Sampling(max_tokens=8, stop=("\n",)))


def parse_classification(response: Response, margin: float = 0.0) -> bool | None:
    """True for a classification task, False for another one, None where the answer says neither.

    Likelihoods must differ by more than `margin` nats for a yes.
    """
    if response.choice_logprobs:
        return response.choice_logprobs[0] - response.choice_logprobs[1] > margin
    text = plain(response.text)
    return True if _YES.match(text) else False if _NO.match(text) else None


def implausible(response: Response, instruction: str, least: float, most: float) -> Drop | None:
    """Drop an instruction that the model finds unlikely in both lists.

    That is under `least` nats per unit of length (0: none), or with a surprisal, summed over the tokens, of
    more than `most` nats. Only for compared lists (`compare_request`). The former removes word salad that
    keeps the form of a request; two units are added to the length for the end of the line, or short
    instructions would look unlikely. The latter removes what a small model loses the thread in.
    """
    total = max(response.choice_logprobs)
    per_unit = total / (length(instruction) + 2)
    if least and per_unit < least:
        return Drop("implausible", f"{per_unit:.2f} nats a unit < {least:g}")
    return Drop("implausible", f"surprisal {-total:.1f} nats > {most:g}") if -total > most else None
