"""Evolving an instruction: each way to fail in English and Chinese, the words shipped for it, whole runs."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rule_engine import NOUNS, OPEN, SEEDS, TARGETS, Made, Scripted, assert_books_balance, begin, drive
from scripted import ARGS, refused

from pipeline.dedup.encoder import NoEncoder
from pipeline.dedup.rouge import RougeIndex
from pipeline.engines.base import Sampling
from pipeline.errors import PipelineError
from pipeline.records import Instance, SeedTask
from pipeline.selfinstruct import Options
from pipeline.stages import setup
from pipeline.stages.evolve import (
    Operation,
    copied,
    evolution_leak,
    evolve_request,
    failed,
    load_evolution,
    lost_subject,
    not_deeper,
    opening,
    parse_evolved,
    subject,
    unevolved,
)
from pipeline.stages.parents import Parents
from pipeline.stages.prompts import SHIPPED, Prompts
from pipeline.stages.screen import ScreenLimits, screen
from pipeline.stages.summary import evolved_counts
from pipeline.stages.words import load_words

LANGUAGES = ("en", "zh")
EVOLUTION = {la: load_evolution(SHIPPED / la / "evolve.yaml") for la in LANGUAGES}
WORDS = {la: load_words(SHIPPED / la / "words.yaml") for la in LANGUAGES}
OPERATIONS = [(la, o) for la in LANGUAGES for o in EVOLUTION[la].operations]
PARENT = {"en": "Explain how music helps memory.", "zh": "请说明音乐怎样帮助记忆。"}
HARDER = {
    "en": "Explain how music helps memory, why it fades with age, and when silence helps more.",
    "zh": "请说明音乐怎样帮助记忆，为什么年纪大了效果会变弱，什么时候安静反而更好。",
}


def reason(language: str, text: str, name: str = "deepen", parent: str = "") -> str:
    evolution = EVOLUTION[language]
    drop = failed(text, parent or PARENT[language], evolution.named(name), evolution, WORDS[language])
    assert drop is None or drop.evidence
    return drop.reason if drop else ""


# ---- the screen ----


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_longer_and_about_the_same_is_harder(language: str) -> None:
    assert reason(language, HARDER[language]) == ""


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Explain how music helps memory."),
        ("en", "explain how music helps memory"),
        ("en", "Explain how music helps the memory, and describe how it helps memory."),
        ("en", "How do memories help? Please explain the reasons."),
        ("zh", "请说明音乐怎样帮助记忆。"),
        ("zh", "请说明音乐怎样帮助记忆！"),
        ("zh", "请说明音乐怎样帮助记忆，并解释为什么音乐帮助记忆。"),
    ],
)
def test_what_adds_nothing_to_its_parent_is_unevolved(language: str, text: str) -> None:
    for name in ("deepen", "rarer_task"):
        assert reason(language, text, name) == "unevolved"
    drop = unevolved(text, PARENT[language], EVOLUTION[language].frame, WORDS[language])
    assert drop and PARENT[language] in drop.evidence


@pytest.mark.parametrize(
    ("language", "text", "evidence"),
    [
        ("en", "Explain how jazz helps.", "4 units, its parent has 5"),
        ("en", "Explain how jazz helps memory.", "5 units, its parent has 5"),
        ("zh", "说明歌曲怎样帮助记忆", "10 units, its parent has 11"),
    ],
)
def test_what_is_no_longer_than_its_parent_is_not_deeper(language: str, text: str, evidence: str) -> None:
    assert reason(language, text) == "not_deeper"
    drop = not_deeper(text, PARENT[language])
    assert drop and drop.evidence == evidence
    assert reason(language, text, "rarer_task") == ""  # a rarer task may be short


@pytest.mark.parametrize(
    ("language", "text", "about"),
    [
        (
            "en",
            "Explain how a baker can win customers from a big supermarket next door.",
            "helps, memory, music",
        ),
        ("zh", "请说明小面包店怎样从隔壁的大超市那里争取更多的新顾客。", "帮助, 记忆, 音乐"),
    ],
)
def test_what_is_about_something_else_has_lost_its_subject(language: str, text: str, about: str) -> None:
    assert reason(language, text, "make_concrete") == "lost_subject"
    drop = lost_subject(text, PARENT[language], EVOLUTION[language].frame, WORDS[language])
    assert drop and drop.evidence == f"none of: {about}"
    assert reason(language, text, "rarer_task") == ""


@pytest.mark.parametrize(
    ("language", "parent", "text"),
    [
        (
            "en",
            "How does stress affect sleep?",
            "How do stressful weeks change what a nurse on night shifts eats?",
        ),
        (
            "en",
            "What are the benefits of comparing prices?",
            "When is a comparison of prices between shops a waste of time?",
        ),
        # jieba cuts 光合作用 out of one sentence and may cut it otherwise in another
        ("zh", "什么是光合作用？", "没有光合作用的植物靠什么活下来，它们为什么少见？"),
    ],
)
def test_a_subject_is_found_in_other_forms_of_its_words(language: str, parent: str, text: str) -> None:
    assert reason(language, text, parent=parent) == ""


def test_a_parent_without_a_subject_of_its_own_loses_none() -> None:
    assert reason("en", "Write three lines about a river at night.", parent="Write it.") == ""
    assert subject("Please give me some advice.", EVOLUTION["en"].frame, WORDS["en"]) == set()
    assert subject("请你给我一些建议。", EVOLUTION["zh"].frame, WORDS["zh"]) == set()


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Explain how music helps memory, in a way that makes the given task harder for students."),
        ("en", "A harder version: explain how music helps the memory of old people."),
        ("en", "Explain how music helps memory (rewritten for experts in the field)."),
        ("zh", "改写后的任务是说明音乐怎样帮助老年人的记忆，并举两个例子。"),
        ("zh", "请说明音乐怎样帮助记忆，比原任务多写两个例子和一条理由。"),
    ],
)
def test_talk_of_the_task_is_a_leak_of_the_evolution(language: str, text: str) -> None:
    for name in ("deepen", "rarer_task"):
        assert reason(language, text, name) == "evolution_leak"
    drop = evolution_leak(text, PARENT[language], EVOLUTION[language].leaks)
    assert drop and drop.evidence in text + "…"


def test_a_parent_may_speak_of_rewriting() -> None:
    parent, text = (
        "Why was this law rewritten?",
        "Why was this law rewritten in 1990, and who lost by the change?",
    )
    assert reason("en", text, parent=parent) == ""
    parent, text = (
        "给软件的新版本写一句介绍。",
        "给软件的新版本写一句介绍，语气活泼，点明两项改进，二十字以内。",
    )
    assert reason("zh", text, parent=parent) == ""


class Angles(NoEncoder):
    """Reads English; texts about the sea point one way, others another."""

    def covers(self, language: str) -> bool:
        return language == "en"

    def encode(self, texts: Any) -> np.ndarray:
        return np.array([[1.0, 0.0] if "sea" in text else [0.0, 1.0] for text in texts], np.float32)


def test_a_rarer_task_of_another_field_is_told_by_its_meaning() -> None:
    pools = begin(Scripted(), encoder=Angles(), embedding_threshold=0.9)[0].pools
    english, chinese = pools
    drop = english.lost_field("Why do shops close on Sunday?", "Why is the sea salty?")
    assert drop and (drop.reason, drop.evidence) == ("lost_field", "cosine 0.000 < 0.35 with its parent")
    assert english.lost_field("What lives below the sea ice?", "Why is the sea salty?") is None
    assert chinese.lost_field("商店为什么周日关门？", "海水为什么是咸的？") is None  # it is not read


def test_what_is_harder_may_mean_what_its_parent_means_but_not_what_another_means() -> None:
    options = {"encoder": Angles(), "embedding_threshold": 0.9, "wanted": {"en": 5}}
    pool = begin(Scripted(), earlier={"en": [("old:sea", "Why is the sea salty?")]}, **options)[0].pools[0]
    harder = "Why is the sea salty, how do rivers add to it, and which lakes have more salt?"
    assert (
        pool.compare("a", "Who named the sea between two of the driest lands on earth?")[0].reason
        == "same_meaning"
    )
    drop, nearest = pool.compare("b", harder, "old:sea")
    assert drop is None and nearest["rouge"]["id"] == "old:sea"
    assert nearest["embedding"]["score"] == 0  # of another than its parent
    again = "Why is the sea salty? Write four sentences for children who have never been to a beach."
    drop, _ = pool.compare("c", again, "old:sea")
    assert drop and drop.reason == "same_meaning" and "against b:" in drop.evidence
    drop, _ = pool.compare("d", "Why is the sea so salty?", "old:sea")
    assert drop and drop.reason == "near_duplicate" and "against old:sea:" in drop.evidence


# ---- what a model writes ----


def parsed(text: str, opener: str = "", language: str = "en", *, chat: bool = True, why: str = "stop") -> Any:
    operation = EVOLUTION[language].named("deepen")
    return parse_evolved(text, opener, operation, chat=chat, finish_reason=why)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_instruction_is_found_behind_labels_and_introductions(language: str) -> None:
    said = HARDER[language]
    intro, label = {
        "en": ("Here is a harder one:", "Harder task:"),
        "zh": ("好的，改好了：", "更难的任务："),
    }[language]
    for text in (
        said,
        f" {said}\n",
        f"{intro}\n\n{said}",
        f"{label} {said}",
        f"**{label}** {said}",
        f"“{said}”",
    ):
        assert parsed(text, language=language) == (said, None)


def test_a_completion_goes_on_from_its_opener() -> None:
    assert parsed(" it fades.", "Explain how music helps memory, and why", chat=False) == (
        "Explain how music helps memory, and why it fades.",
        None,
    )
    assert parsed("变弱。", "音乐怎样帮助记忆，什么时候", "zh", chat=False) == (
        "音乐怎样帮助记忆，什么时候变弱。",
        None,
    )


@pytest.mark.parametrize("text", ["", " \n", "\n\n"])
def test_no_text_is_no_candidate(text: str) -> None:
    assert parsed(text) is parsed(text, chat=False) is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_cut_answer_and_an_example_that_came_back_are_told(language: str) -> None:
    text, drop = parsed(HARDER[language][:-5], language=language, why="length")
    assert drop.reason == "cut_off" and drop.evidence.endswith(f"{text[-10:]}'")
    for pair in EVOLUTION[language].named("deepen").examples:
        for example in pair:
            assert parsed(example.upper(), language=language)[1].reason == "prompt_echo"


@pytest.mark.parametrize(
    ("language", "text", "name"),
    [
        (
            "en",
            "Why do bees dance in a small bakery whose ovens run from two in the morning until noon?",
            "make_concrete",
        ),
        ("zh", "蜜蜂为什么跳舞？地点是一家小面包房，烤箱从凌晨两点一直开到中午。", "make_concrete"),
    ],
)
def test_a_long_run_of_an_examples_words_is_an_echo(language: str, text: str, name: str) -> None:
    drop = copied(text, EVOLUTION[language].named(name), WORDS[language], language)
    assert drop and drop.reason == "prompt_echo" and drop.evidence
    assert copied(HARDER[language], EVOLUTION[language].named(name), WORDS[language], language) is None


# ---- what is shipped ----


@pytest.mark.parametrize(("language", "operation"), OPERATIONS, ids=lambda v: getattr(v, "name", v))
def test_every_example_passes_our_own_tests(language: str, operation: Operation) -> None:
    limits = ScreenLimits(4, 60)
    for old, new in operation.examples:
        assert failed(new, old, operation, EVOLUTION[language], WORDS[language]) is None
        assert screen(new, language, WORDS[language], limits) is None
        index = RougeIndex(0.7)
        index.insert(["old"], [old])
        assert index.most_similar(new)[0].score < 0.6


def test_both_languages_have_the_same_operations_of_both_kinds() -> None:
    kinds = {la: {o.name: o.in_depth for o in EVOLUTION[la].operations} for la in LANGUAGES}
    assert kinds["en"] == kinds["zh"] and set(kinds["en"].values()) == {True, False}


def test_a_lead_goes_on_with_the_sentence_or_begins_one() -> None:
    parent = "How do bees see?"
    assert opening(parent, ", and explain why", in_depth=True) == "How do bees see, and explain why"
    assert opening(parent, "for a", in_depth=True) == "How do bees see for a"
    assert opening(parent, "Compare two", in_depth=True) == "How do bees see? Compare two"
    assert opening("Name a bee", "Compare two", in_depth=True) == "Name a bee. Compare two"
    assert opening("蜜蜂怎么看东西？", "，又会带来哪些", in_depth=True) == "蜜蜂怎么看东西，又会带来哪些"
    assert opening("介绍蜜蜂", "先说明", in_depth=True) == "介绍蜜蜂。先说明"
    assert opening(parent, "Why do some", in_depth=False) == "Why do some"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_completion_ends_with_the_line_and_a_chat_by_itself(language: str) -> None:
    operation = EVOLUTION[language].named("deepen")
    for style, stop in (("completion", ("\n",)), ("chat", ())):
        prompt = Prompts().get(language, "evolve", style)
        asked = evolve_request(prompt, operation, PARENT[language], "", Sampling(0.7, max_tokens=9))
        assert asked.sampling == Sampling(0.7, max_tokens=9, stop=stop)
        assert PARENT[language] in asked.prompt and operation.how in asked.prompt


GOOD = "{kind: depth, how: a, leads: [a], examples: [[a, b]]}"
LISTS = "leaks: [a], frame: [a]}"
BAD_FILES = {
    "operations: [": "not YAML",
    "leaks: [a]": "expected 'operations', 'leaks' and 'frame'",
    "{operations: {}, " + LISTS: "'operations' holds none",
    "{operations: {x: {kind: depth}}, " + LISTS: "x: expected kind, how, leads, examples",
    "{operations: {x: " + GOOD.replace("depth", "up") + "}, " + LISTS: "kind is 'up'",
    "{operations: {x: " + GOOD.replace("[[a, b]]", "[a]") + "}, " + LISTS: "no list of pairs",
    "{operations: {x: " + GOOD.replace("[a]", "[]") + "}, " + LISTS: "leads: got []",
    "{operations: {x: " + GOOD + "}, " + LISTS.replace("a]}", "on]}"): "frame: True, expected text",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_broken_evolve_yaml_is_a_one_line_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "evolve.yaml").write_text(text)
    with pytest.raises(PipelineError) as caught:
        load_evolution(tmp_path / "evolve.yaml")
    assert BAD_FILES[text] in str(caught.value) and str(caught.value).startswith(str(tmp_path))


# ---- parents ----


def parents(style: str, **options: Any) -> Parents:
    chosen = Options(style=style, **{"evolve_frac": 1, **options})
    plan = setup.plan(chosen, model="m", can_score=True, has_chat=True)
    texts = [f"Name river number {i}." for i in range(30)]
    seeds = [SeedTask(f"s{i}", text, (Instance("", "x"),)) for i, text in enumerate(texts)]
    seeds.append(SeedTask("below", "Shorten the text below.", (Instance("a", "x"),)))
    seeds.append(SeedTask("long", "Name a river and a lake and a hill and a sea.", (Instance("", "x"),)))
    return Parents("en", seeds, WORDS["en"], plan, 20)


def drawn(found: Parents) -> Counter[str]:
    pairs = (found.draw(EVOLUTION["en"], number) for number in range(1000))
    return Counter(pair[2][0] for pair in pairs if pair)


def test_a_completion_evolves_kept_tasks_that_fit_and_more_of_them_the_more_there_are() -> None:
    found = parents("completion")
    assert not drawn(found)
    for text in ("Name " + "a lake and " * 20, "Shorten the text below.", "Name a lake."):
        found.written.add(text, text)
    # 3 of the 8 that are enough
    assert set(counts := drawn(found)) == {"Name a lake."} and 330 < counts.total() < 420
    for i in range(5):
        found.written.add(f"m{i}", f"Name made lake {i}.")
    assert drawn(found).total() == 1000


def test_to_a_chat_every_seed_and_kept_task_that_fits_is_as_likely() -> None:
    found = parents("chat")
    for i in range(60):
        found.written.add(f"m{i}", f"Name made lake {i}.")
    for i in range(10):
        found.written.add(f"huge{i}", "Name " + "a lake and " * 20)
    counts = drawn(found)
    # 70 of 102 draws are among the kept tasks, of which one that fits is found nearly always
    assert 630 < sum(n for key, n in counts.items() if key[0] == "m") < 750
    assert not any(key.startswith("huge") for key in counts) and len(counts) > 80


def test_to_a_chat_a_parent_may_be_longer_and_point_at_a_text() -> None:
    assert {"below", "long"} <= set(drawn(parents("chat")))


def test_the_share_that_is_evolved_is_the_one_asked_for() -> None:
    for share, low, high in ((1.0, 1000, 1000), (0.3, 250, 350), (0.0, 0, 0)):
        assert low <= drawn(parents("chat", evolve_frac=share)).total() <= high


# ---- whole runs ----


LONG = {"max_shown": 24}  # a completion evolves tasks of up to half as many words


def earlier(count: int = 20) -> dict[str, list[tuple[str, str]]]:
    """Short tasks that an earlier round kept."""
    rng = random.Random(0)
    return {
        la: [(f"old:{la}{i}", OPEN[la][0].format(*rng.sample(NOUNS[la], 4))) for i in range(count)]
        for la in OPEN
    }


def evolved(made: Made) -> list[Any]:
    return [e for e in made.kept if "evolved" in e.provenance]


def test_a_run_evolves_its_share_and_says_from_what_and_how() -> None:
    made = drive(Scripted(bad=0.2), evolve_frac=0.6, earlier=earlier(10), wanted={"en": 30, "zh": 30}, **LONG)
    known = {key for pool in made.job.pools for key, _ in pool.parents.written.items}
    found = evolved(made)
    assert {e.language for e in found} == set(TARGETS)
    texts = {
        key: text
        for pool in made.job.pools
        for key, text in zip(pool.rouge.keys, pool.rouge.texts, strict=True)
    }
    operations = EVOLUTION["en"].operations
    for example in found:
        origin = example.provenance["evolved"]
        assert set(origin) == {"from", "operation"} and origin["from"] in known
        assert example.provenance["shown"] == [origin["from"]]
        assert "/evolve.jinja@" in example.provenance["prompts"]["propose"]
        operation = EVOLUTION[example.language].named(origin["operation"])
        assert example.instruction.startswith(texts[origin["from"]]) == operation.in_depth
    asked = {d["evolved"]["operation"] for d in made.dropped if "evolved" in d}
    assert asked | {e.provenance["evolved"]["operation"] for e in found} == {o.name for o in operations}
    origins = {e.provenance["evolved"]["from"].split(":")[0] for e in found}
    assert "old" in origins and len(origins) > 1  # of an earlier round, and of this one
    assert any("evolved" not in e.provenance for e in made.kept)
    dropped = {(d["stage"], d["reason"]) for d in made.dropped}
    assert {("parse", "unevolved"), ("parse", "cut_off")} <= dropped
    assert_books_balance(made)


def test_evolved_tasks_are_counted_as_they_are_proposed_and_kept() -> None:
    made = drive(Scripted(bad=0.2), evolve_frac=0.4, earlier=earlier(), **LONG)
    counts = evolved_counts(made.job)
    assert counts["kept"] == len({e.id.rsplit("-", 1)[0] for e in evolved(made)}) > 0
    asked = sum(a[0] == "evolve" for a in made.engine.asked)
    assert counts["kept"] < counts["proposed"] <= asked
    share = asked / sum(pool.proposals for pool in made.job.pools)
    assert 0.2 < share < 0.6
    assert evolved_counts(drive().job) == {"proposed": 0, "kept": 0}


def test_a_run_that_only_evolves_asks_for_nothing_new() -> None:
    made = drive(evolve_frac=1, earlier=earlier(), **LONG)
    assert len(evolved(made)) == len(made.kept) == sum(TARGETS.values())
    assert not any(a[0].startswith("propose") for a in made.engine.asked)


def test_a_chat_evolves_seeds_from_the_first_proposal_on() -> None:
    made = drive(Scripted(can_score=False), evolve_frac=1, style="chat", wanted={"en": 8})
    seeds = {s.id for s in SEEDS["en"]}
    assert len(evolved(made)) == len(made.kept) == 8
    assert any(e.provenance["evolved"]["from"] in seeds for e in made.kept)


def test_what_is_evolved_derives_from_the_proposals_number_alone() -> None:
    """Slow answers change nothing, and the other proposals are those of a run that evolves nothing."""
    options = {"evolve_frac": 0.5, "earlier": earlier(), **LONG}
    made = drive(Scripted(bad=0.2), **options)
    assert drive(Scripted(bad=0.2, slow=True), **options).lines == made.lines
    jobs = [
        begin(Scripted(), evolve_frac=share, earlier=earlier(), wanted={"en": 5}, **LONG)[0]
        for share in (0.0, 0.5)
    ]
    plain, mixed = ([job.next_request(i) for i in range(12)] for job in jobs)
    same = [a and b and a.prompt == b.prompt for a, b in zip(plain, mixed, strict=True)]
    assert True in same and False in same
    assert all("evolve|" in b.prompt for b, alike in zip(mixed, same, strict=True) if b and not alike)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_run_that_evolves_is_cut_and_resumed_to_the_same_lists(tmp_path: Path, share: float) -> None:
    journal, copy = tmp_path / "whole.jsonl", tmp_path / "journal.jsonl"
    whole = drive(Scripted(bad=0.2), journal, evolve_frac=0.5, round=2, earlier=earlier(4), **LONG)
    data = journal.read_bytes()
    copy.write_bytes(data[: int(share * len(data))])
    resumed = drive(Scripted(bad=0.2), copy, evolve_frac=0.5, round=2, earlier=earlier(4), **LONG)
    assert resumed.lines == whole.lines and copy.read_bytes() == data
    assert {e.provenance["round"] for e in whole.kept} == {2}


def test_a_primed_proposal_begins_with_its_parent() -> None:
    job = begin(Scripted(), evolve_frac=1, prime=True, earlier=earlier(), **LONG)[0]
    job.plan = replace(job.plan, prime=True)
    for number in range(20):
        assert job.next_request(number)
        ask = job.asks[number]
        assert ask.shown and ask.pool.evolution
        operation = ask.pool.evolution.named(ask.operation)
        begins = ask.opener.startswith(ask.shown.texts[0].rstrip(".?!。？！ "))
        assert begins == operation.in_depth and ask.opener


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_words_that_ask_for_it_are_a_leak_in_an_instruction_only(language: str) -> None:
    how = {
        "en": "Explain tides. Ask further about the same subject, about causes, consequences and limits.",
        "zh": "请解释潮汐，就同一个对象往深处问，问原因、后果、限度、例外，或者常被忽略的一面。",
    }[language]
    job = begin(Scripted(), evolve_frac=0.5)[0]
    pool = next(pool for pool in job.pools if pool.language == language)
    prompt = Prompts().get(language, "evolve", "chat")
    asked = prompt.render(how=EVOLUTION[language].named("deepen").how, in_depth=True, instruction="")
    drop = screen(how, language, pool.words, prompt_texts=(*pool.proposing_texts, asked))
    assert drop and drop.reason == "prompt_leak"
    assert len(pool.proposing_texts) == len(pool.prompt_texts) + len(EVOLUTION[language].operations)


# ---- the command ----


def test_alpacas_variant_does_not_evolve(call: Any, tmp_path: Path) -> None:
    said = refused(
        call(*ARGS, "--variant", "alpaca", "--evolve-frac", "0.5", "--max-shown", 24, "--run", "r")
    )
    assert said.startswith("--evolve-frac: Alpaca's variant proposes whole examples") and not list(
        tmp_path.iterdir()
    )


def test_the_end_of_a_run_says_how_many_were_evolved(call: Any, tmp_path: Path) -> None:
    ended = call(
        *ARGS,
        "--num-examples",
        40,
        "--batch-size",
        8,
        "--evolve-frac",
        "0.5",
        "--max-shown",
        24,
        "--run",
        "r",
    )
    assert ended.code == 0
    counts = json.loads((tmp_path / "r" / "run.json").read_text())["evolved"]
    assert counts["proposed"] >= counts["kept"] > 0
    assert "of the evolved tasks were kept, of the others" in ended.err
    card = (tmp_path / "r" / "dataset" / "README.md").read_text(encoding="utf-8")
    assert f"{counts['kept']} of {counts['proposed']} tasks evolved from others were kept." in card


def test_dry_run_shows_how_it_evolves(call: Any, tmp_path: Path) -> None:
    rows = [{"instruction": text, "output": ""} for _, text in earlier()["en"]]
    (tmp_path / "old.json").write_text(json.dumps(rows))
    out = call(*ARGS, "--dry-run", "--evolve-frac", "0.5", "--max-shown", 24, "--pool", "old.json").out
    assert "----- first prompt: en/evolve\n" in out and "\nHarder task: " in out
