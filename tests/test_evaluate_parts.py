"""The parts of an evaluation, and our held-out tasks: right, unlike every seed, never read as seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluated import rows, task, tasks, write
from scripted import REPO

from pipeline.dedup.contamination import Contamination, HeldOut
from pipeline.dedup.rouge import RougeIndex
from pipeline.evaluation.diversity import wording
from pipeline.evaluation.flow import Record
from pipeline.evaluation.labels import macro_f1, said_label
from pipeline.evaluation.lineage import asked, lineage, run_of, whole
from pipeline.evaluation.measures import measure, rouge_l
from pipeline.evaluation.options import Options
from pipeline.evaluation.references import References
from pipeline.evaluation.setup import languages
from pipeline.evaluation.tasks import Item, digest_of, read_items
from pipeline.format.sources import find_sources
from pipeline.records import Prompt
from pipeline.stages.seeds import lint, load_seeds, seed_files
from pipeline.verify.verifier import parse, verify

HELD, SEEDS = REPO / "seeds" / "heldout", REPO / "seeds"


# ---- seeds/heldout ----


def test_the_held_out_tasks_are_many_in_both_languages() -> None:
    items = read_items(find_sources([str(HELD)]))
    found = {la: {i.task for i in items if i.prompt.language == la} for la in ("en", "zh")}
    assert len(found["en"]) >= 90 and len(found["zh"]) >= 60
    assert len({item.task for item in items if item.labels}) >= 25
    assert sum(item.prompt.verifier is not None for item in items) >= 80


def test_selfinstruct_does_not_read_the_held_out_tasks_as_seeds() -> None:
    read = seed_files([str(SEEDS)])
    assert read and not any(HELD in file.parents for file in read)
    ids = {seed.id for seed in load_seeds([str(SEEDS)])}
    assert not ids & {item.task for item in read_items(find_sources([str(HELD)]))}


def test_no_held_out_task_is_like_a_seed() -> None:
    seeds, held = load_seeds([str(SEEDS)]), read_items(find_sources([str(HELD)]))
    # the instruction with its input, and the instruction alone: the rule of dedup is 0.7
    texts = [f"{s.instruction}\n{i.input}".strip() for s in seeds for i in s.instances]
    texts += [s.instruction for s in seeds]
    index = RougeIndex(0.6)
    index.insert([""] * len(texts), texts)
    for part in ([item.prompt.request for item in held], [item.instruction for item in held]):
        assert index.compare(part).kept.all()
    said = HeldOut(
        [""] * len(seeds),
        ["\n".join((s.instruction, *(f"{i.input}\n{i.output}" for i in s.instances))) for s in seeds],
    )
    assert not Contamination(said, ngram=8, rouge=1).find([item.text for item in held])


def test_no_held_out_task_is_like_another_one_and_the_lint_is_content() -> None:
    assert lint(load_seeds([str(HELD)])) == []


def test_no_prompt_file_holds_a_held_out_task() -> None:
    texts = [path.read_text("utf-8") for path in (REPO / "prompts").rglob("*") if path.is_file()]
    for item in read_items(find_sources([str(HELD)])):
        assert not any(item.instruction in text for text in texts), item.id


def test_every_reference_passes_its_own_checks_and_a_pointless_answer_few() -> None:
    pointless = 0
    checked = [item for item in read_items(find_sources([str(HELD)])) if item.prompt.verifier]
    for item in checked:
        verifier = parse(item.prompt.verifier or {}, item.where)
        found = verify(verifier, item.prompt.reference)
        assert found.all_passed, (item.id, found.checks)
        pointless += verify(verifier, "I would be glad to help you with that, of course.").all_passed
        if "keywords:existence" in {check.id for check in verifier.checks}:
            assert not verify(verifier, item.prompt.request).all_passed, f"{item.id}: an echo passes"
    assert pointless <= 0.1 * len(checked)  # those that only limit the length


def test_every_label_of_a_held_out_classification_is_told_from_the_others() -> None:
    for item in read_items(find_sources([str(HELD)])):
        if item.labels:
            reference = item.prompt.reference
            assert len(item.labels) > 1 and said_label(reference, item.labels) == reference, item.id
            assert said_label(f"{reference.capitalize()}.", item.labels) == reference


# ---- reading tasks ----


def test_rows_of_any_form_are_tasks(tmp_path: Path) -> None:
    forms = [
        {"id": "p", "prompt": "Why?", "reference": "So."},
        {"instruction": "Add.", "input": "1 + 1", "output": "2"},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                      {"role": "assistant", "content": "Hello"}]},
        {"question": "2 + 2?", "answer": "4 #### 4"},
        {"instruction": "说说", "input": ""},
    ]  # fmt: skip
    items = read_items(find_sources([write(forms, tmp_path / "t.jsonl")]))
    assert [item.id for item in items] == ["p", "t.jsonl:2", "t.jsonl:3", "t.jsonl:4", "t.jsonl:5"]
    assert [item.prompt.reference for item in items] == ["So.", "2", "Hello", "", ""]
    assert items[1].prompt.request == "Add.\n\n1 + 1" and items[2].prompt.system == "Be brief."
    assert items[3].prompt.verifier == {"kind": "math", "answer": "4"} and items[4].prompt.language == "zh"


def test_rows_with_one_instruction_are_one_task_with_all_its_labels(tmp_path: Path) -> None:
    same = {"instruction": "Sort it.", "is_classification": True}
    path = write(
        [{**same, "input": "a", "output": "x"}, {**same, "input": "b", "output": "y"}], tmp_path / "t.jsonl"
    )
    one, other = read_items(find_sources([path]))
    assert one.task == other.task and one.labels == other.labels == ("x", "y")


def test_tasks_are_drawn_whole_and_by_the_seed(tmp_path: Path) -> None:
    sources = find_sources([write(tasks(), tmp_path / "t.jsonl")])
    drawn = [read_items(sources, 3, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] and len({item.task for item in drawn[0]}) == 3
    assert {item.task for item in drawn[0]} != {item.task for item in drawn[2]}
    whole_set = read_items(sources)
    for item in drawn[0]:
        mates = [other.id for other in whole_set if other.task == item.task]
        assert set(mates) <= {other.id for other in drawn[0]}


def test_the_digest_sees_references_and_checks(tmp_path: Path) -> None:
    checked = task("a", "A?", "b", verifier={"kind": "math", "answer": "1"})
    forms = [task("a", "A?", "b"), task("a", "A?", "c"), checked, task("a", "B?", "b")]
    paths = [write([row], tmp_path / f"{number}.jsonl") for number, row in enumerate(forms)]
    assert len({digest_of(read_items(find_sources([path]))) for path in paths}) == 4


# ---- labels ----


@pytest.mark.parametrize(
    ("answer", "labels", "wanted"),
    [
        ("positive", ("positive", "negative"), "positive"),
        ("**Negative.**", ("positive", "negative"), "negative"),
        ("False. The statement is not true.", ("true", "false"), "false"),
        ("The tone is positive, I think.", ("positive", "negative"), "positive"),
        ("It is both positive and negative", ("positive", "negative"), ""),
        ("This is not spam at all", ("spam", "not spam"), "not spam"),
        ("incomplete", ("complete", "fragment"), ""),
        ("", ("a", "b"), ""),
        ("答案：对。", ("对", "错"), "对"),
        ("不对", ("对", "错"), ""),
        ("这绝对不行", ("对", "错"), ""),
        ("这种做法是错的。", ("对", "错"), "错"),
        ("这首诗写的是夏天，因为有荷花。", ("春", "夏", "秋", "冬"), "夏"),
        ("句子里的“冷”说的是态度。", ("温度", "态度"), "态度"),
    ],
)
def test_a_label_is_read_from_an_answer(answer: str, labels: tuple[str, ...], wanted: str) -> None:
    assert said_label(answer, labels) == wanted


def test_macro_f1_by_hand() -> None:
    # a: hit 1, asked 2, said 1 -> 2/3; b: hit 1, asked 1, said 2 -> 2/3
    assert macro_f1(("a", "b"), ["a", "a", "b"], ["a", "b", "b"]) == pytest.approx(2 / 3)
    # no label said: a miss of a, no false b; a: 2*1/(2+1) = 2/3, b: 1
    assert macro_f1(("a", "b"), ["a", "a", "b"], ["a", "", "b"]) == pytest.approx(5 / 6)


# ---- measures ----


def measured(text: str, reference: str, language: str = "en", **more: Any) -> Any:
    prompt = Prompt("i", ({"role": "user", "content": "Q"},), language, None, reference)
    record = Record(Item("i", "w", prompt, "Q", ()), text, more.pop("reason", "stop"), **more)
    return measure([record], References(), languages(Options()))[0]


def test_rouge_l_is_that_of_rouge_score_and_knows_chinese() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    pairs = [
        ("the cat sat on the mat", "a cat lay on the red mat"),
        ("one two three " * 60, "three two one " * 50),  # more tokens than one word of the bit vectors holds
        ("alike", "alike"),
        ("nothing", "in common"),
    ]
    for (one, other), found in zip(pairs, rouge_l(pairs), strict=True):
        assert found == pytest.approx(scorer.score(other, one)["rougeL"].fmeasure)
    assert rouge_l([("今天天气很好", "今天天气很好"), ("今天天气很好", "我们去吃面"), ("", "x")]) == [
        1.0,
        0.0,
        0.0,
    ]


def test_an_answer_in_another_language_than_the_reference_is_seen() -> None:
    chinese = "水在空气中冷却以后变成水滴落下来。"
    assert measured("The water in the air cools down and falls.", chinese, "zh").language == "zh"
    assert measured(chinese, "Water in the air cools down and falls.", "en").language == "en"
    assert not measured(chinese, chinese, "zh").language
    # a translation: the task is Chinese, the answer is to be English
    assert not measured(
        "It is pouring outside today, let us go home.", "Let us go hiking another day then.", "zh"
    ).language
    assert not measured("42", chinese, "zh").language  # too short to tell


def test_loops_cuts_and_refusals_are_seen() -> None:
    assert measured("and again " * 30, "x", reason="length").repetition
    assert measured("and so on", "x", reason="length").truncated
    assert measured("I'm sorry, but I cannot help with that.", "x").refused
    assert measured("抱歉，我无法提供帮助。", "x", "zh").refused
    fine = measured("The answer is yes.", "yes")
    assert not fine.repetition and not fine.refused and fine.stopped


def test_wording_by_hand() -> None:
    found = wording(["a b a b", "a b c d e"])
    # tokens: a b a b a b c d e: 5 of 9 different; bigrams ab ba ab | ab bc cd de: 5 of 7 different
    assert found["distinct_1"] == round(5 / 9, 4) and found["distinct_2"] == round(5 / 7, 4)
    assert found["opening_entropy"] == 0.0  # both begin with a
    assert wording(["a x", "b y", "c z", "d w"])["opening_entropy"] == 2.0  # four equally likely: two bits
    # 4-grams: "one two three four" is in both, "two three four five" in one of them
    assert wording(["one two three four five", "one two three four"])["shared_4grams"] == 0.75
    assert wording(["今天天气很好啊", "今天天气很坏啊"])["distinct_1"] < 1


# ---- lineage ----


def test_rows_say_what_they_ask_and_all_that_they_hold() -> None:
    preference = {
        "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "问"}],
        "chosen": [{"role": "assistant", "content": "好"}],
        "rejected": [{"role": "assistant", "content": "坏"}],
        "provenance": {"model": "m"},
    }
    assert asked(preference) == "问" and whole(preference) == "S\n问\n好\n坏"
    assert asked({"instruction": "A", "input": "B", "output": "C"}) == "A\nB"
    assert asked({"conversations": [{"from": "human", "value": "H"}, {"from": "gpt", "value": "G"}]}) == "H"
    assert whole({"id": "x", "prompt": "P", "completion": "C"}) == "P\nC"


def test_a_lineage_follows_models_and_adapters_and_names_what_it_cannot_follow(tmp_path: Path) -> None:
    import yaml

    def run(name: str, **config: str) -> str:
        folder = tmp_path / name
        (folder / "model").mkdir(parents=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "run.json").write_text(json.dumps({"inputs": {f"{name}.jsonl": "x"}}))
        return str(folder)

    first = run("sft-001", model="owner/base")
    second = run("sft-002", model="owner/base", adapter=first)
    third = run("dpo-001", model=second)
    found = lineage(f"{third}/model")
    assert found.runs == [third, second, first]
    assert "owner/base" in found.unknown and len(found.unknown) == 4  # and three files that are gone
    assert run_of("owner/base") is None and run_of("") is None
    assert lineage("").unknown == ["the embedded SmolLM2-135M-Instruct"]


def test_held_out_files_have_no_field_that_nobody_reads() -> None:
    known = {"id", "instruction", "instances", "is_classification", "language", "tags", "verifier"}
    assert all(set(row) <= known for path in sorted(HELD.glob("*.jsonl")) for row in rows(path))
