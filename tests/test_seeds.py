"""Seed tasks: the shapes that load, the rows that are refused, the warnings, and our own seeds."""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.records import Instance, SeedTask
from pipeline.stages.seeds import TAGS, lint, load_seeds, seed_files, summary, summary_lines
from pipeline.stages.text import length

OURS = Path(__file__).parent.parent / "seeds"
GOOD = {"id": "a", "instruction": "Name a colour.", "instances": [{"input": "", "output": "Red"}]}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def refusal(*paths: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        load_seeds([str(path) for path in paths])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def seed(
    name: str,
    instruction: str,
    *pairs: tuple[str, str],
    label: bool = False,
    tags: tuple[str, ...] = ("math",),
) -> SeedTask:
    language = "zh" if name.startswith("zh") else "en"
    instances = tuple(Instance(*pair) for pair in pairs or [("", "An answer.")])
    return SeedTask(name, instruction, instances, label, language, tags)


def test_self_instruct_rows_load_as_they_are_and_extra_keys_are_ignored(tmp_path: Path) -> None:
    row = {
        "id": "seed_task_0",
        "name": "relation",
        "instruction": "What is the relation\nbetween  the given pairs? ",
        "instances": [
            {"input": "Night : Day", "output": " Opposites.\nReally. "},
            {"input": "", "output": "B"},
        ],
        "is_classification": True,
    }
    instances = (Instance("Night : Day", "Opposites.\nReally."), Instance("", "B"))
    expected = SeedTask(
        "seed_task_0", "What is the relation between the given pairs?", instances, True, "en", ()
    )
    assert load_seeds([str(write(tmp_path / "s.jsonl", row))]) == [expected]


def test_our_own_keys_are_kept(tmp_path: Path) -> None:
    row = {**GOOD, "instruction": "Name 颜色.", "language": "zh", "tags": ["math", "coding"]}
    (loaded,) = load_seeds([str(write(tmp_path / "s.jsonl", row))])
    assert (loaded.language, loaded.tags) == ("zh", ("math", "coding"))


@pytest.mark.parametrize(
    ("instruction", "language"),
    [
        ("How do the French say the word 大家好?", "zh"),  # exactly 3 of 10 units
        ("把 Python code review 译成中文。", "zh"),  # 5 characters of 8 units
        ("Explain what the English speaker means by 你好.", "en"),  # 2 of 9 = 0.22
        ("用一句话介绍自己。", "zh"),
        ("¿Qué hora es?", "en"),
        ("1 + 1 = ?", "en"),
    ],
)
def test_a_missing_language_is_told_by_the_script(tmp_path: Path, instruction: str, language: str) -> None:
    (loaded,) = load_seeds([str(write(tmp_path / "s.jsonl", {**GOOD, "instruction": instruction}))])
    assert loaded.language == language


def test_alpaca_arrays_load_and_get_ids_from_file_and_row(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Add.", "input": "2 2", "output": "4"},
        {"instruction": "写一句问候。", "output": "你好！"},
    ]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    loaded = load_seeds([str(path)])
    assert [s.id for s in loaded] == ["mine-1", "mine-2", "mine-3"]
    assert [s.instances for s in loaded] == [
        (Instance("1 2", "3"),),
        (Instance("2 2", "4"),),
        (Instance("", "你好！"),),
    ]
    assert [s.language for s in loaded] == ["en", "en", "zh"]
    assert load_seeds([str(write(tmp_path / "mine.jsonl", *rows))]) == loaded


def test_a_folder_means_its_own_json_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.json", ".hidden.jsonl", "notes.txt", "heldout/c.jsonl", "dir.jsonl/d.jsonl"):
        write(tmp_path / name, {**GOOD, "id": name})
    assert [s.id for s in load_seeds([str(tmp_path)])] == ["a.json", "b.jsonl"]
    held_out = load_seeds([str(tmp_path), str(tmp_path / "heldout")])
    assert [s.id for s in held_out] == ["a.json", "b.jsonl", "heldout/c.jsonl"]
    assert seed_files([str(tmp_path / "notes.txt")]) == [tmp_path / "notes.txt"]


def test_paths_without_seeds_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none").startswith(
        f"{tmp_path / 'none'}: no such file or folder, expected seed tasks"
    )
    assert "the default is seeds/" in refusal(tmp_path / "none")
    assert refusal(tmp_path).startswith(f"{tmp_path}: the folder has no *.jsonl or *.json file")
    assert refusal().startswith("seeds: no path given")
    empty, no_rows = write(tmp_path / "empty.jsonl"), tmp_path / "no_rows.json"
    no_rows.write_text("[]")
    assert refusal(empty).startswith(f"{empty}: the file is empty")
    assert refusal(no_rows).startswith(f"{no_rows}: the array is empty")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"instruction": None}, ": 'instruction' is NoneType, expected text"),
        ({"instruction": " \n"}, ": 'instruction' is empty, expected text"),
        ({"instruction": 3}, ": 'instruction' is int, expected text"),
        ({"id": 3}, ": 'id' is int, expected text"),
        ({"id": ""}, ": 'id' is empty, expected text"),
        ({"instances": []}, ": 'instances' is empty, expected at least one input and output"),
        ({"instances": {"input": "", "output": "x"}}, ": 'instances' is dict, expected a list of objects"),
        ({"instances": ["x"]}, ": instances[0] is str, expected an object"),
        (
            {"instances": [*GOOD["instances"], {"input": "x"}]},
            " instances[1]: no field 'output' (has: input)",
        ),
        ({"instances": [{"input": "", "output": 5}]}, " instances[0]: 'output' is int, expected text"),
        (
            {"instances": [{"input": None, "output": "x"}]},
            " instances[0]: 'input' is NoneType, expected text",
        ),
        ({"is_classification": "yes"}, ": 'is_classification' is str, expected true or false"),
        ({"is_classification": 1}, ": 'is_classification' is int, expected true or false"),
        ({"language": "fr"}, ": language 'fr', expected one of en, zh"),
        ({"language": None}, ": 'language' is NoneType, expected text"),
        ({"tags": "math"}, ": 'tags' is 'math', expected a list of texts"),
        ({"tags": ["math", 1]}, ": 'tags' is ['math', 1], expected a list of texts"),
        ({"instruction": "Stop <|im_end|> now"}, ": 'instruction' holds the special token <|im_end|>"),
        (
            {"instances": [{"input": "甲<|endoftext|>", "output": ""}]},
            "[0]: 'input' holds the special token <|endof",
        ),
        (
            {"instances": [{"input": "", "output": "x</s>"}]},
            " instances[0]: 'output' holds the special token </s>",
        ),
        ({"instruction": "[INST] Hi [/INST]"}, ": 'instruction' holds the special token [INST]"),
        (
            {"instruction": "停<｜end▁of▁sentence｜>"},
            ": 'instruction' holds the special token <｜end▁of▁sentence｜>",
        ),
        ({"instruction": "<start_of_turn>user"}, ": 'instruction' holds the special token <start_of_turn>"),
    ],
)
def test_an_unusable_row_is_refused_with_file_and_line(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    path = write(tmp_path / "s.jsonl", {**GOOD, "id": "first"}, {**GOOD, **changes})
    message = refusal(path)
    assert message.startswith(f"{path}:2") and problem in message


def test_ordinary_angle_brackets_and_pipes_are_no_special_tokens(tmp_path: Path) -> None:
    code = "xs |> map (f <| g) |> <b>bold</b> <|> a<b|c>d <sub>"
    assert (
        load_seeds([str(write(tmp_path / "s.jsonl", {**GOOD, "instruction": code}))])[0].instruction == code
    )


HALF = "broken \ud83d emoji"


@pytest.mark.parametrize(
    "broken",
    [
        {"instruction": HALF},
        {"id": HALF},
        {"tags": [HALF]},
        {"instances": [{"input": "", "output": HALF}]},
        {HALF: 1},
    ],
)
def test_half_a_surrogate_pair_anywhere_in_a_row_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "id": "other", **broken}) + "\n")
    assert refusal(path).startswith(f"{path}:2: \\ud83d is half a surrogate pair, which is no character. ")


def test_half_a_surrogate_pair_in_alpaca_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps([{"instruction": "Name a colour.", "input": "", "output": "Red \ud800"}]))
    assert refusal(path).startswith(f"{path}[0]: \\ud800 is half a surrogate pair")


def test_a_file_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    write(tmp_path / os.fsdecode(b"\xff.jsonl"), GOOD)
    assert "\\udcff is half a surrogate pair" in refusal(tmp_path)


def test_a_whole_surrogate_pair_is_the_character_it_means(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({**GOOD, "instruction": "Explain \U0001f600."}))  # escaped as a pair
    assert "\\ud83d\\ude00" in path.read_text()
    assert load_seeds([str(path)])[0].instruction == "Explain \U0001f600."


def test_rows_of_no_known_shape_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", {"id": "a", "instruction": "b", "response": "c"})
    assert (
        "neither 'instances' (Self-Instruct) nor 'output' (Alpaca) (has: id, instruction, response)"
        in refusal(path)
    )
    path = write(tmp_path / "t.jsonl", {"instr": "b", "output": "c"})
    assert refusal(path).startswith(f"{path}:1: no field 'instruction' (has: instr, output)")
    path = write(tmp_path / "u.jsonl", {key: GOOD[key] for key in ("instruction", "instances")})
    assert refusal(path).startswith(f"{path}:1: no field 'id'")


def test_files_that_are_not_json_rows_or_not_utf_8_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(GOOD) + "\nnonsense\n")
    assert refusal(path).startswith(f"{path}:2: not JSON")
    path.write_text(json.dumps(GOOD) + "\n[1]\n")
    assert refusal(path).startswith(f"{path}:2: got list, expected an object")
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + "中".encode("gb18030"))
    assert refusal(path).startswith(f"{path}:2: byte 0xd6 is not UTF-8")


def test_an_id_that_is_used_in_two_files_is_refused_with_both_places(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "b.jsonl", {**GOOD, "id": "b"}, GOOD)
    assert refusal(first, second).startswith(f"{second}:2: id 'a' was used before at {first}:1")


@pytest.mark.parametrize(
    ("seeds", "complaint"),
    [
        (
            [seed("a", "Is it spam?", ("x", "yes"), ("y", "yes"), label=True)],
            "a: classification with fewer than 2 different outputs",
        ),
        (
            [seed("zh-a", "是垃圾邮件吗？", ("", "是"), ("乙", "否"), label=True)],
            "zh-a: classification with an empty input",
        ),
        ([seed("a", "Copy.", ("same", "same"))], "a: instances[0] has the input as its output"),
        ([seed("a", "Answer.", ("x", "y"), ("z", ""))], "a: instances[1] has an empty output"),
        ([seed("a", "Answer.", tags=("math", "maths"))], "a: unknown tag 'maths'"),
        # 4 common words of 5 and 5: F = 0.8
        (
            [seed("a", "Name three kinds of fruit."), seed("b", "Name four kinds of fruit.")],
            "b: near duplicate of a",
        ),
        # jieba: 写 一首 关于 秋天 的 诗 / 写 一首 关于 春天 的 诗: 5 common words of 6 and 6, F = 0.83
        (
            [seed("zh-a", "写一首关于秋天的诗。"), seed("zh-b", "写一首关于春天的诗。")],
            "zh-b: near duplicate of zh-a",
        ),
    ],
)
def test_each_weakness_gets_its_own_complaint(seeds: list[SeedTask], complaint: str) -> None:
    (line,) = lint(seeds)
    assert line.startswith(complaint)


def test_good_seeds_give_no_complaint() -> None:
    label = seed("c", "Is it spam?", ("x", "yes"), ("y", "no"), label=True)
    assert lint([seed("a", "Count to ten."), seed("zh-b", "写一首诗。"), label]) == []


def different(number: int, labels: int, tags: tuple[str, ...] = TAGS) -> list[SeedTask]:
    """`number` seeds without common words, the first `labels` of them classification."""
    pairs = (("x", "yes"), ("y", "no"))
    return [seed(f"n{i}", f"w{i} v{i}", *pairs, label=i < labels, tags=tags) for i in range(number)]


@pytest.mark.parametrize(("labels", "share"), [(7, "14.0%"), (18, "36.0%")])
def test_too_few_and_too_many_classification_seeds_are_told(labels: int, share: str) -> None:
    assert lint(different(50, labels)) == [f"en: {share} of 50 seeds are classification, expected 15% to 35%"]
    assert lint(different(49, labels)) == []  # too few seeds to say


@pytest.mark.parametrize(("number", "labels"), [(50, 8), (50, 17), (100, 15), (100, 35)])
def test_a_share_of_classification_from_15_to_35_percent_is_fine(number: int, labels: int) -> None:
    assert lint(different(number, labels)) == []


def test_tags_that_no_seed_has_are_named_from_fifty_seeds_on() -> None:
    assert lint(different(50, 10, TAGS[2:])) == ["en: no seed is tagged open_generation, rewriting"]
    assert lint(different(50, 10, ())) == ["en: no seed has tags"]
    assert lint(different(49, 10, ())) == []


def test_the_summary_counts_by_language() -> None:
    seeds = [
        seed("zh-a", "甲"),
        seed("b", "B", ("", "y"), ("x", "n"), label=True, tags=("coding", "math")),
        seed("c", "C"),
    ]
    assert summary(seeds) == {
        "en": {"seeds": 2, "classification": 1, "with_input": 1, "tags": {"math": 2, "coding": 1}},
        "zh": {"seeds": 1, "classification": 0, "with_input": 0, "tags": {"math": 1}},
    }
    assert summary_lines(seeds)[:2] == [
        "en: 2 seeds, 1 classification (50%), 1 with input (50%)",
        "    tags: math 2, coding 1",
    ]
    assert summary([]) == {}


@pytest.mark.parametrize(
    ("language", "at_least", "short", "long"), [("en", 175, 10, 31), ("zh", 100, 15, 46)]
)
def test_our_seeds_are_many_and_varied(language: str, at_least: int, short: int, long: int) -> None:
    seeds = load_seeds([str(OURS / f"{language}.jsonl")])
    assert len(seeds) >= at_least
    assert {s.language for s in seeds} == {language}
    assert all(s.id.startswith(f"{language}-") and s.tags for s in seeds)
    assert 0.20 <= sum(s.is_classification for s in seeds) / len(seeds) <= 0.32
    assert {tag for s in seeds for tag in s.tags} == set(TAGS)
    with_input = sum(any(i.input for i in s.instances) for s in seeds) / len(seeds)
    assert 0.3 <= with_input <= 0.8
    lengths = [length(s.instruction) for s in seeds]
    assert sum(n <= short for n in lengths) >= len(seeds) / 10
    assert sum(n >= long for n in lengths) >= len(seeds) / 10


def test_our_seed_files_hold_exactly_the_documented_keys_in_order() -> None:
    for path in (OURS / "en.jsonl", OURS / "zh.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        keys = ["id", "instruction", "instances", "is_classification", "language", "tags"]
        assert all(list(row) == keys for row in rows)
        assert all(list(i) == ["input", "output"] for row in rows for i in row["instances"])
        assert all(row["instruction"] == " ".join(row["instruction"].split()) for row in rows)


def test_our_seeds_give_no_complaint() -> None:
    assert lint(load_seeds([str(OURS)])) == []


def test_no_two_of_our_seeds_are_near_duplicates_by_the_definition() -> None:
    from rapidfuzz.distance import LCSseq

    from pipeline.dedup.tokens import tokenize

    tokens = {s.id: tokenize(s.instruction) for s in load_seeds([str(OURS)])}
    scores = {
        # ROUGE-L F = 2PR / (P + R) with P = lcs/m and R = lcs/n, which is 2 lcs / (m + n)
        (a, b): 2 * LCSseq.similarity(tokens[a], tokens[b]) / (len(tokens[a]) + len(tokens[b]))
        for a, b in combinations(tokens, 2)
    }
    assert {pair: score for pair, score in scores.items() if score > 0.7} == {}


def test_the_default_folder_means_our_two_files() -> None:
    assert [path.name for path in seed_files([str(OURS)])] == ["en.jsonl", "zh.jsonl"]


def real(name: str) -> str:
    folder = os.environ.get("PIPELINE_DATA", "")
    path = Path(folder, name)
    if not folder or not path.is_file():
        pytest.skip(f"PIPELINE_DATA names no folder with {name} (real data to load, not part of the project)")
    return str(path)


def test_the_175_seed_tasks_of_self_instruct_load_as_they_are() -> None:
    seeds = load_seeds([real("self_instruct_seed_tasks.jsonl")])
    # 150 + 25 tasks in the paper; the published file marks one more as classification.
    assert (len(seeds), sum(s.is_classification for s in seeds)) == (175, 26)
    assert {s.language for s in seeds} == {"en"}
    assert all("\n" not in s.instruction and s.instances[0].output for s in seeds)


@pytest.mark.parametrize(
    ("name", "rows", "language"), [("alpaca_en_demo", 999, "en"), ("alpaca_zh_300", 300, "zh")]
)
def test_real_alpaca_files_load(name: str, rows: int, language: str) -> None:
    seeds = load_seeds([real(f"{name}.json")])
    assert (len(seeds), seeds[-1].id) == (rows, f"{name}-{rows}")
    assert sum(s.language == language for s in seeds) >= 0.98 * rows
