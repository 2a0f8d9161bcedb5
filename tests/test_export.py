"""The dataset folder: what others read from it, the same bytes twice, all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import PipelineError
from pipeline.records import Example
from pipeline.stages import export as module
from pipeline.stages.export import COLUMNS, card, export

FILES = ["README.md", "alpaca.json", "data/train.jsonl", "data/train.parquet"]
NASTY = 'line one\nline "two"\ttab \\ back\u2028sep\r\n𝕏😀 | 中文 \x00 end'
EXAMPLES = [
    Example(
        "1",
        "Name three fruits.",
        "",
        "Apple, pear, fig.",
        "en",
        False,
        {"b": [1], "a": {"模型": "x"}},
        {"rouge": 0.25},
    ),
    Example("2", "判断情感。", "服务很好", "正面", "zh", True),
    Example("3", "Repeat this.", NASTY, NASTY, "en", False),
]
FACTS: dict[str, Any] = {
    "name": "first run",
    "generator": {
        "engine": "embedded",
        "model": "SmolLM2",
        "license": "Apache-2.0",
        "precision": "bfloat16 on cpu",
    },
    "seeds": [{"path": "seeds/en.jsonl", "sha256": "ab" * 32, "count": 194}],
    "options": {"num_examples": 3, "languages": ["en", "zh"], "stop": "a|b\nc"},
    "stages": [
        {"stage": "screen", "seen": 1200, "kept": 3, "dropped": {"too_short": 190, "near_duplicate": 1007}},
        {"stage": "validate", "seen": 3, "kept": 3, "dropped": {}},
    ],
    "tokens": {"prompt": 12345, "completion": 678},
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def front_matter(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def loaded(folder: Path, cache: Path) -> Any:  # noqa: ANN401 - a datasets.Dataset, which is imported late
    from datasets import load_dataset

    return load_dataset(str(folder), split="train", cache_dir=str(cache))


def test_load_dataset_reads_the_rows_back(tmp_path: Path) -> None:
    export(EXAMPLES, tmp_path / "dataset", FACTS)
    rows = loaded(tmp_path / "dataset", tmp_path / "cache")
    assert rows.column_names == list(COLUMNS)
    assert [row["output"] for row in rows] == ["Apple, pear, fig.", "正面", NASTY]
    assert [row["is_classification"] for row in rows] == [False, True, False]
    assert rows[1]["messages"] == [
        {"role": "user", "content": "判断情感。\n\n服务很好"},
        {"role": "assistant", "content": "正面"},
    ]
    assert json.loads(rows[0]["provenance"]) == {"b": [1], "a": {"模型": "x"}}
    assert json.loads(rows[0]["scores"]) == {"rouge": 0.25}


def test_jsonl_holds_the_same_rows_and_is_readable(tmp_path: Path) -> None:
    export(EXAMPLES, tmp_path / "dataset", FACTS)
    text = (tmp_path / "dataset/data/train.jsonl").read_text(encoding="utf-8")
    assert "判断情感。" in text and "模型" in text and "\\u4e2d" not in text
    rows = [json.loads(line) for line in text.split("\n")[:-1]]
    assert rows == loaded(tmp_path / "dataset", tmp_path / "cache").to_list()


def test_alpaca_json_holds_three_fields_only(tmp_path: Path) -> None:
    export(EXAMPLES, tmp_path / "dataset", FACTS)
    rows = json.loads((tmp_path / "dataset/alpaca.json").read_text(encoding="utf-8"))
    assert rows == [{"instruction": e.instruction, "input": e.input, "output": e.output} for e in EXAMPLES]


def test_many_rows_keep_their_order_over_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(module, "ROWS_PER_GROUP", 4)
    export([Example(str(i), "Do.", "", "Done.", "en", False) for i in range(10)], tmp_path / "dataset", {})
    file = parquet.ParquetFile(tmp_path / "dataset/data/train.parquet")
    assert file.num_row_groups == 3  # 4 + 4 + 2
    assert file.read(["id"]).column("id").to_pylist() == [str(i) for i in range(10)]


def test_the_same_examples_give_the_same_bytes(tmp_path: Path) -> None:
    export(EXAMPLES, tmp_path / "one", FACTS)
    export(EXAMPLES, tmp_path / "two", FACTS)
    assert list(contents(tmp_path / "one")) == FILES
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_order_of_provenance_keys_does_not_change_the_bytes(tmp_path: Path) -> None:
    for name, provenance in (("one", {"a": 1, "b": 2}), ("two", {"b": 2, "a": 1})):
        export([Example("1", "Do.", "", "Done.", "en", False, provenance)], tmp_path / name, {})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_no_examples_and_no_facts_make_a_valid_dataset(tmp_path: Path) -> None:
    from datasets import load_dataset

    export([], tmp_path / "dataset", {})
    # Without streaming, `datasets` raises "corresponds to no data" for any split of no rows.
    rows = load_dataset(str(tmp_path / "dataset"), split="train", streaming=True)
    assert (list(rows), rows.column_names) == ([], list(COLUMNS))
    assert json.loads((tmp_path / "dataset/alpaca.json").read_text()) == []
    assert (tmp_path / "dataset/data/train.jsonl").read_text() == ""
    assert "| all | 0 | - | - | - | - | - |" in (tmp_path / "dataset/README.md").read_text()


def test_an_older_dataset_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    export(EXAMPLES, folder, FACTS)
    (folder / "stale.txt").write_text("old")
    export(EXAMPLES[:1], folder, FACTS)
    assert list(contents(folder)) == FILES
    assert len(loaded(folder, tmp_path / "cache")) == 1
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["dataset"]


def test_what_a_killed_run_left_behind_does_not_hinder(tmp_path: Path) -> None:
    for name in (".dataset.new/data", ".dataset.old/data"):
        (tmp_path / name).mkdir(parents=True)
    export(EXAMPLES, tmp_path / "dataset", FACTS)
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]


@pytest.mark.parametrize("broken", ["_write_parquet", "card"])
def test_a_failing_write_leaves_the_older_dataset_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    folder = tmp_path / "dataset"
    export(EXAMPLES, folder, FACTS)
    before = contents(folder)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, broken, full)
    with pytest.raises(PipelineError, match="the disk is full"):
        export(EXAMPLES[:1], folder, FACTS)
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]


def test_a_failing_exchange_puts_the_older_dataset_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replace = tmp_path / "dataset", module.os.replace
    export(EXAMPLES, folder, FACTS)
    before = contents(folder)

    def fail_for_the_new(source: Path, target: Path) -> None:
        if source.name == ".dataset.new":
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", fail_for_the_new)
    with pytest.raises(PipelineError, match="Permission denied"):
        export(EXAMPLES[:1], folder, FACTS)
    assert contents(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["dataset"]


def test_a_folder_that_is_no_dataset_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(PipelineError, match="it holds something other than a dataset"):
            export(EXAMPLES, tmp_path / name, FACTS)
    assert (tmp_path / "thesis/chapter.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    export(EXAMPLES, tmp_path / "empty", FACTS)
    assert list(contents(tmp_path / "empty")) == FILES


def test_half_a_surrogate_pair_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="half a surrogate pair"):
        export([Example("1", "Do.", "", "broken \ud83d", "en", False)], tmp_path / "dataset", FACTS)
    assert list(tmp_path.iterdir()) == []


def test_the_card_begins_with_what_the_hub_reads() -> None:
    assert front_matter(card(EXAMPLES, FACTS)) == {
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}]}
        ],
        "language": ["en", "zh"],
        "license": "apache-2.0",
        "tags": ["synthetic", "self-instruct", "instruction-tuning"],
        "size_categories": ["n<1K"],
        "task_categories": ["text-generation"],
    }


@pytest.mark.parametrize(
    ("facts", "identifier"),
    [
        ({"license": "CC-BY-4.0", **FACTS}, "cc-by-4.0"),
        ({"generator": {"license": "see the model's page"}}, "other"),
        ({}, "unknown"),
    ],
)
def test_the_licence_becomes_an_identifier_of_the_hub(facts: dict[str, Any], identifier: str) -> None:
    assert front_matter(card([], facts))["license"] == identifier


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (10_000, "10K<n<100K"),
        (1_000_000, "1M<n<10M"),
        (10**7, "n>10M"),
    ],
)
def test_the_size_category_follows_the_row_count(rows: int, name: str) -> None:
    class Many(list[Example]):
        def __len__(self) -> int:
            return rows

    assert front_matter(card(Many(), {}))["size_categories"] == [name]


@pytest.mark.parametrize(
    "part",
    [
        # classification: 1 of 3; input: 2 of 3; instruction lengths 3, 4 and 2 units: mean 9 / 3
        "| all | 3 | 33.3% | 66.7% | 3.0 | ",
        "| zh | 1 | 100.0% | 100.0% | 4.0 | 4.0 | 2.0 |",
        "| engine | embedded |",
        "| precision | bfloat16 on cpu |",
        f"| seeds/en.jsonl | 194 | `{'ab' * 32}` |",
        "Tokens: 12,345 prompt, 678 completion.",
        '| `languages` | `["en", "zh"]` |',
        '| `stop` | `"a\\|b\\nc"` |',
        "| screen | 1,200 | 3 | 1,197 | near_duplicate 1,007, too_short 190 |",
        "| validate | 3 | 3 | 0 | - |",
        "The generator's licence: Apache-2.0.",
        "The seed tasks keep the licence of their files",
        "nobody has checked the facts",
        'load_dataset("path/to/this/folder", split="train")',
    ],
)
def test_the_card_tells(part: str) -> None:
    assert part in " ".join(card(EXAMPLES, FACTS).split())


def test_the_card_describes_every_column() -> None:
    assert all(f"| {name} | " in card([], {}) for name in module.COLUMNS)
