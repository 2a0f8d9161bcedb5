"""Whole runs of the state machine on an engine that answers every request by a rule, well or badly."""

from __future__ import annotations

import asyncio
import functools
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stub import StubEngine

from pipeline.engines.base import Request, Response
from pipeline.engines.job import Tally
from pipeline.engines.journal import Journal
from pipeline.engines.scheduler import Scheduler
from pipeline.records import Example, to_json
from pipeline.selfinstruct import Options
from pipeline.stages import setup
from pipeline.stages.flow import SelfInstruct
from pipeline.stages.prompts import Prompts
from pipeline.stages.seeds import load_seeds

ALL_SEEDS = load_seeds([str(Path(__file__).resolve().parents[1] / "seeds")])
SEEDS = {la: [s for s in ALL_SEEDS if s.language == la][::3] for la in ("en", "zh")}
TARGETS = {"en": 18, "zh": 12}

_TEMPORARY = tempfile.TemporaryDirectory()  # removed when the process ends
FOLDER = Path(_TEMPORARY.name)

# One line each, so that the engine can read back what it is asked: stage|language|values.
PROMPTS = {
    "propose": "{{ demonstrations | join('/') }}|{{ opener }}|{{ count }}",
    "propose_classification": "{{ demonstrations | join('/') }}|{{ opener }}|{{ count }}",
    "evolve": "{{ instruction }}|{{ opener }}|{{ in_depth }}",
    "classify": "{{ instruction }}",
    "classify_list": "{{ classification }}",
    "labels": "{{ instruction }}",
    "labelled_input": "{{ instruction }}|{{ label }}",
    "input": "{{ instruction }}",
    "answer": "{{ instruction }}|{{ input }}",
    "judge": "{{ instruction }}|{{ input }}|{{ output }}",
}
NOUNS = {
    "en": (
        "apple harbour ladder violin desert button lantern kitchen wagon pepper glacier mirror tunnel carpet "
        "rabbit compass saddle orchard needle bridge candle parrot hammer island jacket museum pillow rocket "
        "shovel temple anchor basket castle donkey engine feather garden helmet insect jungle kettle library "
        "meadow napkin oyster pencil quarry ribbon spider ticket umbrella valley window yogurt zipper balcony"
    ).split(),
    "zh": (
        "苹果 港口 梯子 提琴 沙漠 纽扣 灯笼 厨房 马车 辣椒 冰川 镜子 隧道 地毯 兔子 果园 "
        "桥梁 蜡烛 鹦鹉 锤子 海岛 夹克 枕头 火箭 铲子 寺庙 雨伞 书包 城堡 毛驴 羽毛 花园 "
        "头盔 昆虫 丛林 水壶 草地 餐巾 牡蛎 铅笔 丝带 蜘蛛 车票 山谷 窗户 酸奶 拉链 阳台"
    ).split(),
}
OPEN = {
    "en": [
        "Explain why {} and {} changed how a {} treats {}.",
        "Shorten the following note about {}, {}, {} and {}.",
        "Compare a {} with a {}, then a {} with a {}.",
    ],
    "zh": [
        "请解释{}和{}怎样影响{}与{}。",
        "把下面这段{}、{}、{}与{}的说明写短。",
        "比较{}跟{}，再比较{}跟{}。",
    ],
}
CLOSED = {
    "en": "Is the {} remark on {}, {} and {} positive or negative?",
    "zh": "{}和{}、{}的这条{}留言，正面还是负面？",
}
MORE = {  # what makes an instruction harder
    "en": [
        " Then compare the {} with the {}, say how the {} differs from the {}, and end with advice.",
        " Write for readers who own one {}, keep below ninety words, mention no {} and no {}, open with {}.",
        " First list three facts on every {}; rank them by cost; only then say whether {}, {} or {} wins.",
    ],
    "zh": [
        "再比较{}与{}，并说明{}和{}有哪些不同之处，最后用一句话给出稳妥的结论。",
        "写给刚买了{}的读者看，九十字以内，不许提到{}，也不许提到{}，开头先讲{}。",
        "先列出三条跟{}有关的事实，按花费排好次序，最后才断定{}、{}、{}当中谁更划算。",
    ],
}
LABELS = {"en": ("positive", "negative"), "zh": ("正面", "负面")}
BAD = {"en": ["Go.", "Draw a picture of the {0}."], "zh": ["去。", "请画一张{0}的图片。"]}
SAID = {
    "en": "A fair reply names the {}, then the {}, and ends with one old {}.",
    "zh": "可以先说说{}，再谈谈{}，最后提到那个旧{}。",
}
REFUSED = {"en": "I'm sorry, but I cannot help with that.", "zh": "抱歉，我无法提供帮助。"}


@dataclass
class Scripted(StubEngine):
    """Answers each request by a rule that depends on the request alone; keeps what it was asked."""

    model: str = "scripted"
    batch_size: int = 6
    groups_in_flight: int = 2
    can_score: bool = True
    has_chat: bool = True
    bad: float = 0.0  # share of poor answers
    failing: float = 0.0  # share of requests that fail
    slow: bool = False  # later groups overtake earlier ones
    asked: list[list[str]] = field(default_factory=list)

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        if self.slow:
            await asyncio.sleep(int(requests[0].digest, 16) % 5 / 1000)
        return [self.answer(request) for request in requests]

    def answer(self, request: Request) -> Response:
        rng = random.Random(request.digest)
        if request.choices and not request.prompt:
            stage, language = request.choices[0][0].split("|")[:2]
            values = [request.choices[0][1].strip()]
        else:
            stage, language, *values = request.prompt.split("|")
        self.asked.append([stage, language, *values])
        if rng.random() < self.failing:
            return Response("", "error", 1, 0, error="the server fell over")
        bad = rng.random() < self.bad
        if request.choices:
            return Response("", "score", 1, 0, self.scores(stage, language, values, bad))
        text = self.text(stage, language, values, rng, bad)
        if bad and rng.random() < 0.5 and stage not in ("labels", "judge"):
            return Response(text[:-8], "length", 1, 1)
        return Response(text, "stop", 1, 1)

    @staticmethod
    def scores(stage: str, language: str, values: list[str], bad: bool) -> tuple[float, ...]:
        if stage == "judge":
            return (-1.0,) * 5 if bad else (-9.0, -9.0, -9.0, -1.0, -1.0)  # 3 and about 4.5
        likely = (-400.0, -400.0) if bad else (-5.0, -20.0)
        return likely if LABELS[language][0] in values[0] else likely[::-1]

    @staticmethod
    def text(stage: str, language: str, values: list[str], rng: random.Random, bad: bool) -> str:
        nouns = rng.sample(NOUNS[language], 4)
        if stage.startswith("propose"):
            forms = [CLOSED[language]] if stage == "propose_classification" else OPEN[language]
            items = [rng.choice(BAD[language] if bad else forms).format(*nouns)]
            items += [
                rng.choice(forms).format(*rng.sample(NOUNS[language], 4))
            ] * 2  # the second is a repetition
            return "".join(f" {item}\n{number}." for number, item in enumerate(items, 10))
        if stage == "evolve":
            parent = values[0]
            harder = parent + rng.choice(MORE[language]).format(*nouns)
            rarer = rng.choice(OPEN[language]).format(*nouns)
            return parent if bad else harder if values[2] == "True" else rarer
        if bad:
            return {"labels": "", "judge": "good", "input": "none", "labelled_input": "none"}.get(
                stage, REFUSED[language]
            )
        if stage == "classify":
            yes = LABELS[language][0] in values[0]
            return {"en": ("No", "Yes"), "zh": ("否", "是")}[language][yes]
        if stage == "labels":
            return (", " if language == "en" else "、").join(LABELS[language])
        return "4" if stage == "judge" else SAID[language].format(*nouns)


@dataclass
class Made:
    """A finished run."""

    job: SelfInstruct
    engine: Scripted
    tally: Tally
    kept: list[Example]
    dropped: list[dict[str, Any]]

    @property
    def lines(self) -> tuple[list[str], list[str]]:
        """What kept.jsonl and dropped.jsonl would hold."""
        return [to_json(e) for e in self.kept], [to_json(d) for d in self.dropped]

    @property
    def reasons(self) -> Counter[str]:
        return Counter(d["reason"] for d in self.dropped)


@functools.cache
def one_line_prompts() -> Prompts:
    """PROMPTS as a user's prompts directory, above the shipped word lists."""
    for language in TARGETS:
        (FOLDER / language).mkdir()
        for stage, text in PROMPTS.items():
            (FOLDER / language / f"{stage}.jinja").write_text(f"{stage}|{language}|{text}", encoding="utf-8")
    return Prompts(str(FOLDER))


@functools.cache
def mixed() -> tuple[Made, Path]:
    """A run in which much goes wrong, and its journal."""
    return drive(Scripted(bad=0.3, failing=0.1), FOLDER / "journal.jsonl"), FOLDER / "journal.jsonl"


def drive(engine: Scripted | None = None, journal: Path | None = None, **options: Any) -> Made:
    """A whole run, by default in both languages with prompts that the engine can read."""
    engine = engine or Scripted()
    job, kept, dropped = begin(engine, **options)
    tally = asyncio.run(Scheduler(job, engine, Journal(journal)).run())
    job.finish()
    return Made(job, engine, tally, kept, dropped)


def begin(engine: Scripted, **options: Any) -> tuple[SelfInstruct, list[Example], list[dict[str, Any]]]:
    """A job at its beginning, and where its examples and drops go."""
    held_out, encoder = options.pop("held_out", None), options.pop("encoder", None)
    earlier = options.pop("earlier", None)
    wanted = options.pop("wanted", TARGETS)
    defaults = {"prime": False, "num_proposals": 3, "classification_frac": 0.5, "prompt_reuse": 2}
    off = {"embedding_threshold": 1, "min_relevance": 0, "answer_style": "completion"}
    languages = tuple(f"{la}:{n}" for la, n in wanted.items())
    chosen = Options(languages=languages, **{**off, **defaults, **options})
    plan = setup.plan(chosen, model=engine.model, can_score=engine.can_score, has_chat=engine.has_chat)
    if encoder:
        plan = replace(plan, encoder=encoder)
    kept: list[Example] = []
    dropped: list[dict[str, Any]] = []
    pools = setup.pools({la: SEEDS[la] for la in wanted}, one_line_prompts(), plan, wanted, earlier)
    return SelfInstruct(plan, pools, kept.append, dropped.append, held_out), kept, dropped


def candidate_of(key: str) -> str:
    return key.rsplit("-", 1)[0]


def assert_books_balance(made: Made) -> None:
    """Everything opened was closed exactly once, and the two lists are the whole of it."""
    job, by_unit = made.job, defaultdict(list)
    for row in made.dropped:
        by_unit[row["unit"]].append(row["id"])
    assert len(made.kept) == job.instances.kept
    kept_candidates = {candidate_of(e.id) for e in made.kept}
    assert len(kept_candidates) == job.candidates.kept
    for ledger, kept in ((job.candidates, kept_candidates), (job.instances, {e.id for e in made.kept})):
        dropped = by_unit[ledger.unit]
        assert not ledger.pending and len(set(dropped)) == len(dropped) == ledger.dropped.total()
        assert not kept & set(dropped) and ledger.opened == len(kept) + len(dropped)
    assert {candidate_of(key) for key in by_unit["instance"]} <= kept_candidates | set(by_unit["candidate"])
    assert sum(p.open_candidates + p.proposals_in_flight + len(p.queue) for p in job.pools) == 0
    assert sum(p.closed_candidates for p in job.pools) == job.candidates.opened
