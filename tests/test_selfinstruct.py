"""The command as a user meets it: what it prints and where, every refusal on one line.

Whole runs use the scripted engine of tests/scripted.py, or a random Llama of a few thousand weights.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import scripted
import yaml
from scripted import Ended, process, refused, refused_after_start, result, tree

from pipeline.engines.open import open_engine
from pipeline.rundir import RunDir
from pipeline.selfinstruct import Options
from pipeline.stages import dry_run, generate

HEAVY = ("torch", "transformers", "datasets", "sentence_transformers", "lingua", "rjieba", "pyarrow", "numba")
GOOD = {"id": "a", "instruction": "Name a colour.", "instances": [{"input": "", "output": "Red"}]}
OTHER = {"id": "b", "instruction": "写一首关于春天的短诗。", "instances": [{"input": "", "output": "春来了"}]}


# ---- bad input: one line, exit code 2, nothing created ----


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


BAD_SEEDS = {
    "an empty file": (b"", ("x.jsonl: the file is empty",)),
    "blank lines": (b"\n \n", ("x.jsonl: the file is empty",)),
    "a line that is not JSON": (lines(GOOD) + b"{'id': 1}\n", ("x.jsonl:2: not JSON", "column 2")),
    "a line that is no object": (lines(GOOD, [1]), ("x.jsonl:2: got list, expected an object",)),
    "a seed without instances": (
        lines({"id": "a", "instruction": "Name a colour."}),
        ("x.jsonl:1: neither 'instances'", "(has: id, instruction)"),
    ),
    "a seed without instruction": (lines({"id": "a", "instr": "x"}), ("x.jsonl:1: no field 'instruction'",)),
    "a duplicate id": (lines(GOOD, OTHER, GOOD), ("x.jsonl:3: id 'a' was used before at x.jsonl:1",)),
    "GB18030 bytes": (
        lines(GOOD) + lines(OTHER).decode().encode("gb18030"),
        ("x.jsonl:2: byte 0x", "is not UTF-8", "iconv"),
    ),
    "half a surrogate pair": (
        lines(GOOD) + json.dumps({**GOOD, "id": "b \ud800"}).encode(),
        ("x.jsonl:2: \\ud800 is half a surrogate pair",),
    ),
    "too few seeds of a language": (lines(GOOD, OTHER), ("--seeds: 1 seeds in language 'en'",)),
}


@pytest.mark.parametrize("name", BAD_SEEDS)
def test_bad_seeds_are_refused_with_file_and_line(name: str, call: Any, tmp_path: Path) -> None:
    data, words = BAD_SEEDS[name]
    (tmp_path / "x.jsonl").write_bytes(data)
    before = tree(tmp_path)
    said = refused(call("--seeds", "x.jsonl"))
    assert all(word in said for word in words), said
    assert tree(tmp_path) == before


BAD_OPTIONS = {
    "--rouge-threshold 1.5": ("--rouge-threshold: got 1.5, expected 0 to 1",),
    "--embedding-threshold -0.1": ("--embedding-threshold: got -0.1, expected 0 to 1",),
    "--rouge-threshold nan": ("--rouge-threshold: got 'nan', expected a number",),
    "--num-examples 0": ("--num-examples: got 0, expected at least 1 (examples)",),
    "--num-examples 1.5": ("--num-examples: got '1.5', expected a whole number",),
    "--num-exmaples 5": ("unknown option '--num-exmaples'. Did you mean '--num-examples'?",),
    "--min-words 61": ("--min-words: got 61, expected at most --max-words (60)",),
    "--min-output 9 --max-output 8": ("--min-output: got 9, expected at most --max-output (8)",),
    "--languages fr": ("--languages: got 'fr', expected one of en, zh",),
    "--languages en:0": ("--languages: got 'en:0'",),
    "--languages zh:²": ("--languages: got 'zh:²'",),
    "--engine opnai": ("--engine: got 'opnai'", "Did you mean 'openai'?"),
    "--engine openai": ("--model: got none, expected the server's name of one",),
    "--batch-api": ("--batch-api: got --engine embedded, expected openai",),
    "--engine openai --model m --window 8": ("--window: got 8, expected at least --concurrency (64)",),
    "--max-cost 5": ("--max-cost 5: the model's price is not known",),
    "--prices nowhere.yaml": ("nowhere.yaml: No such file or directory",),
    "--judge-model m --engine openai --model w": ("--judge-model: got m, but --min-judge-score 0 asks",),
    "--style chatt": ("--style: got 'chatt'", "Did you mean 'chat'?"),
    "--seeds nowhere/": ("nowhere: no such file or folder", "the default is seeds/"),
    "--prompts nowhere": ("--prompts nowhere: no such directory",),
    "--config nowhere.yaml": ("nowhere.yaml: No such file or directory",),
    "--config unknown.yaml": ("unknown.yaml: unknown option 'num_exampels'. Did you mean 'num_examples'?",),
    "--config range.yaml": ("range.yaml: max_words: got 0, expected at least 1",),
    "--config range.yaml --max-words 60": ("range.yaml: max_words: got 0, expected at least 1",),
    "--config half.yaml": ("half.yaml: model: \\ud800 is half a surrogate pair",),
    "--config list.yaml": ("list.yaml: got list, expected 'option: value' lines",),
    "--model /nowhere/model": ("model /nowhere/model: no such directory",),
    "--model empty": ("model empty: it has no config.json",),
    "--judge-model empty": ("model empty: it has no config.json",),
    "--embedding-model ./nowhere": ("model ./nowhere: no such directory",),
    "--resume": ("--resume: no unfinished run under runs/",),
    "--resume --run nowhere": ("--resume nowhere: there is no run to resume",),
    "--run empty/x.txt": ("x.txt: this is a file, expected a directory",),
    "--run foreign": ("foreign: the directory holds 'thesis.tex'", "nothing was touched"),
    "--run foreign --overwrite": ("foreign: the directory holds 'thesis.tex'", "nothing was touched"),
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options_are_refused_and_nothing_is_created(options: str, call: Any, tmp_path: Path) -> None:
    (tmp_path / "unknown.yaml").write_text("num_exampels: 3\n")
    (tmp_path / "range.yaml").write_text("max-words: 0\n")
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "half.yaml").write_text('model: "\\ud800"\n')
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.txt").write_text("x")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    args = scripted.ARGS if "--seeds" not in options else ()
    said = refused(call(*args, *options.split()))
    assert all(word in said for word in BAD_OPTIONS[options]), said
    assert tree(tmp_path) == before


def test_an_unsuitable_model_leaves_the_run_that_was_to_be_overwritten(call: Any, tmp_path: Path) -> None:
    assert call(*scripted.ARGS, "--run", "r", "--num-examples", 2).code == 0
    before = tree(tmp_path)
    refused(call(*scripted.ARGS, "--run", "r", "--overwrite", "--model", "/nowhere/model"))
    assert tree(tmp_path) == before


# ---- whole runs ----


def test_stdout_is_exactly_the_dataset_path_and_the_log_goes_to_stderr(call: Any, tmp_path: Path) -> None:
    ended = call(*scripted.ARGS, "--num-examples", 6)
    assert (ended.code, ended.out) == (0, "runs/selfinstruct-001/dataset\n")
    run = tmp_path / "runs" / "selfinstruct-001"
    assert len((run / "kept.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    assert "What became of the proposals" in ended.err and "load_dataset(" in ended.err
    logged = (run / "log.txt").read_text(encoding="utf-8")
    assert "6/6 kept" in logged and "6/6 kept" in ended.err
    assert sorted(tree(run)) == sorted(
        "DONE config.yaml dataset dataset/README.md dataset/alpaca.json dataset/data"
        " dataset/data/train.jsonl dataset/data/train.parquet diversity.json dropped.jsonl journal.jsonl"
        " kept.jsonl log.txt metrics.jsonl report.html run.json".split()
    )


def test_the_ledger_adds_up_and_every_drop_has_a_reason_and_its_evidence(call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 20, "--batch-size", 8)
    kept = [json.loads(line) for line in (tmp_path / "r" / "kept.jsonl").read_text().splitlines()]
    dropped = [json.loads(line) for line in (tmp_path / "r" / "dropped.jsonl").read_text().splitlines()]
    ledgers = json.loads((tmp_path / "r" / "run.json").read_text())["ledger"]
    assert [ledger["unit"] for ledger in ledgers] == ["request", "candidate", "instance"]
    for ledger in ledgers:
        counted = {(d["stage"], d["reason"]): d["count"] for d in ledger["dropped"]}
        assert ledger["opened"] == ledger["kept"] + sum(counted.values())
        mine = [(d["stage"], d["reason"]) for d in dropped if d["unit"] == ledger["unit"]]
        assert {key: mine.count(key) for key in set(mine)} == counted
    assert ledgers[2]["kept"] == len(kept) == 20
    assert all(d["reason"] and d["evidence"] for d in dropped)
    # One proposal in six is a statement and dedup meets the same words again: both reasons must occur.
    assert {"not_a_request", "near_duplicate"} <= {d["reason"] for d in dropped}
    assert len({row["id"] for row in kept}) == 20
    assert {row["is_classification"] for row in kept} == {True, False}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(call: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert call(*scripted.ARGS, "--run", name, "--num-examples", 5, "--seed", seed).code == 0
    assert result(tmp_path / "a") == result(tmp_path / "b")
    assert result(tmp_path / "a")["kept.jsonl"] != result(tmp_path / "c")["kept.jsonl"]


def test_config_yaml_repeats_the_run(call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "a", "--num-examples", 3, "--seed", 5)
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())["seed"] == 5
    assert call("--config", "a/config.yaml", "--run", "b").code == 0
    assert result(tmp_path / "a") == result(tmp_path / "b")


def test_giving_up_names_the_language_and_the_option(call: Any, tmp_path: Path) -> None:
    ended = call(*scripted.ARGS, "--run", "r", "--num-examples", 50, "--max-proposals", 8)
    assert ended.code == 0
    assert re.search(
        r"en: only \d+ of 50 examples after 8 proposals \(--max-proposals raises the limit\)", ended.err
    )


NOTHING_KEPT = (
    "r: nothing was kept, so the dataset is empty. "
    "dropped.jsonl there says why of every proposal, journal.jsonl holds the answers.\n"
)


def test_a_run_that_keeps_nothing_is_whole_but_ends_with_exit_code_1(call: Any, tmp_path: Path) -> None:
    ended = call(*scripted.ARGS, "--run", "r", "--num-examples", 2, "--max-proposals", 8, "--min-output", 300)
    assert (ended.code, ended.out) == (1, "r/dataset\n")
    assert ended.err.endswith(NOTHING_KEPT)
    before = tree(tmp_path)
    assert "r/DONE" in before and before["r/kept.jsonl"] == b""
    assert b'"too_short"' in before["r/dropped.jsonl"]
    # so does asking for the finished run again
    assert call("--resume", "--run", "r") == Ended(1, "r/dataset\n", NOTHING_KEPT)
    assert tree(tmp_path) == before


def test_a_used_run_directory_is_refused_and_not_changed(call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 2)
    before = tree(tmp_path)
    said = refused(call(*scripted.ARGS, "--run", "r", "--num-examples", 2))
    assert "r: the directory is in use by a finished run" in said and "--overwrite" in said
    assert tree(tmp_path) == before
    (tmp_path / "r" / "DONE").unlink()
    before = tree(tmp_path)
    said = refused(call(*scripted.ARGS, "--run", "r", "--num-examples", 2))
    assert "in use by an unfinished run" in said and "--resume" in said
    assert tree(tmp_path) == before


def test_overwrite_begins_anew(call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 2)
    ended = call(*scripted.ARGS, "--run", "r", "--num-examples", 3, "--overwrite")
    assert (ended.code, ended.out) == (0, "r/dataset\n")
    assert len((tmp_path / "r" / "kept.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("finished", [True, False])
def test_resuming_with_other_options_lists_them(finished: bool, call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 2)
    if not finished:
        (tmp_path / "r" / "DONE").unlink()
    before = tree(tmp_path)
    said = refused(call("--resume", "--run", "r", "--seed", 4, "--languages", "en:3"))
    assert "seed (0 -> 4)" in said and "languages (['en'] -> ['en:3'])" in said
    assert tree(tmp_path) == before


def test_resuming_a_finished_run_prints_its_dataset_and_changes_nothing(call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 2)
    before = tree(tmp_path)
    assert call("--resume", "--run", "r") == Ended(0, "r/dataset\n", "")
    assert tree(tmp_path) == before


def test_resuming_with_changed_seeds_names_the_file(call: Any, tmp_path: Path) -> None:
    seeds = tmp_path / "mine.jsonl"
    seeds.write_bytes(scripted.SEEDS.read_bytes())
    call(*scripted.ARGS, "--seeds", "mine.jsonl", "--run", "r", "--num-examples", 2)
    (tmp_path / "r" / "DONE").unlink()
    seeds.write_bytes(seeds.read_bytes() + lines(GOOD))
    assert "the contents of mine.jsonl" in refused(call("--resume", "--run", "r"))


def test_finished_means_that_the_digest_is_there(call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 2)
    assert RunDir(tmp_path / "r").done
    assert re.fullmatch(r"[0-9a-f]{64}\n", (tmp_path / "r" / "DONE").read_text())


def test_a_broken_value_in_the_config_of_a_resumed_run_names_that_file(call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 2)
    config = tmp_path / "r" / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: -1"))
    assert "r/config.yaml: seed: got -1" in refused(call("--resume", "--run", "r"))


def test_a_run_of_another_process_is_left_alone(call: Any, tmp_path: Path) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 2)
    (tmp_path / "r" / "DONE").unlink()
    hold = (
        "import time, filelock; lock = filelock.FileLock('r/.lock'); lock.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], cwd=tmp_path, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline()
        before = tree(tmp_path)
        for way in ("--resume", "--overwrite"):
            assert "another process is running" in refused(call(*scripted.ARGS[:2], way, "--run", "r"))
        assert tree(tmp_path) == before
        holder.kill()


# ---- looking without running ----


def test_dry_run_shows_prompts_and_an_estimate_and_leaves_nothing(call: Any, tmp_path: Path) -> None:
    ended = call(*scripted.ARGS, "--dry-run", "--num-examples", 30)
    assert ended.code == 0
    assert "en/propose\nCome up with a series of" in ended.out
    assert "wanted: 30 en examples; writer: scripted" in ended.out
    assert re.search(r"estimate: about \d+ requests", ended.out)
    assert tree(tmp_path) == {}


def test_check_seeds_counts_them_and_finds_what_hurts(call: Any, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(lines(GOOD, {**GOOD, "id": "b"}, OTHER | {"id": "c"}))
    ended = call("--check-seeds", "--seeds", "x.jsonl")
    assert ended.code == 2
    assert "en: 2 seeds" in ended.out and "zh: 1 seeds" in ended.out
    assert "b: near duplicate of a" in ended.out and ended.out.endswith("\n1 problems\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "x.jsonl"]


HELP_COMMANDS = (
    "import runpy, sys; sys.argv = ['x', '--help']; "
    "runpy.run_module('pipeline.selfinstruct', run_name='__main__')",
    "import runpy; runpy.run_module('pipeline', run_name='__main__')",
)


@pytest.mark.parametrize("code", HELP_COMMANDS)
def test_help_and_the_map_of_commands_import_nothing_heavy(code: str, tmp_path: Path) -> None:
    look = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
    ended = process(sys.executable, "-c", look, cwd=tmp_path)
    assert ended.code == 0 and "selfinstruct" in ended.out
    loaded = ended.err.split()
    assert "pipeline" in loaded and not set(HEAVY) & set(loaded)


def test_help_names_the_paper_a_line_to_copy_and_the_default_of_every_option(call: Any) -> None:
    text = call("--help").out
    assert "arXiv:2212.10560" in text
    assert "\n  python -m pipeline.selfinstruct --seeds seeds/ --num-examples 100\n" in text
    entries = re.split(r"\n  (?=--)", text)[1:]
    shown = {entry.split()[0].rstrip(","): " ".join(entry.split()) for entry in entries}
    options = {"--" + name.replace("_", "-") for name in Options.__dataclass_fields__}
    assert options <= set(shown)
    assert not [name for name in sorted(options) if "default: " not in shown[name]]


# ---- a real model, of random weights ----


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights, two layers and one token a byte."""
    import tiny_llama

    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_llama.save(folder, chat=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8192}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


def tiny_args(model: Path) -> Sequence[object]:
    words = (
        "--answer-max-tokens 16 --input-max-tokens 16 --propose-max-tokens 16 --max-proposals 8"
        " --num-examples 2"
    )
    return (*scripted.ARGS, "--min-plausibility", "0", "--model", model, *words.split(), "--batch-size", 4)


@pytest.fixture
def model_call(call: Any, monkeypatch: Any) -> Any:
    """The command with its real engine."""
    for module in (generate, dry_run):
        monkeypatch.setattr(module, "open_engine", open_engine)
    return call


def test_a_real_model_of_random_weights_runs_to_a_clean_end(
    tiny: Path, model_call: Any, tmp_path: Path
) -> None:
    from pyarrow import parquet

    ended = model_call(*tiny_args(tiny), "--run", "r")
    assert (ended.code, ended.out) == (1, "r/dataset\n"), ended.err
    assert "en: only 0 of 2 examples after 8 proposals" in ended.err
    card = (tmp_path / "r" / "dataset" / "README.md").read_text(encoding="utf-8")
    assert "0 examples" in card and "mit" in card
    table = parquet.read_table(tmp_path / "r" / "dataset" / "data" / "train.parquet")
    assert table.num_rows == 0 and "messages" in table.column_names
    assert ended.err.endswith(NOTHING_KEPT) and "load_dataset(" not in ended.err
    _, candidates, _ = json.loads((tmp_path / "r" / "run.json").read_text())["ledger"]
    assert candidates["opened"] == sum(d["count"] for d in candidates["dropped"]) > 0


def test_a_dry_run_with_a_real_model_writes_nothing(tiny: Path, model_call: Any, tmp_path: Path) -> None:
    ended = model_call(*tiny_args(tiny), "--dry-run")
    assert ended.code == 0 and "estimate: none, the pilot kept no example" in ended.out
    assert tree(tmp_path) == {}


def test_a_model_without_chat_template_says_what_to_use(tiny: Path, model_call: Any) -> None:
    said = refused_after_start(model_call(*tiny_args(tiny), "--style", "chat", "--run", "r"))
    assert "it has no chat template" in said and "--style completion" in said


@pytest.mark.parametrize("missing", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_model_directory_with_a_damaged_file_is_a_one_line_error(
    missing: str, tiny: Path, model_call: Any, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "damaged")
    (tmp_path / "damaged" / missing).write_text("{")
    said = refused_after_start(model_call(*tiny_args(tmp_path / "damaged"), "--run", "r"))
    assert "damaged: cannot be loaded (" in said


def test_an_embedding_model_that_cannot_be_loaded_is_a_one_line_error(call: Any, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    args = (*scripted.ARGS, "--embedding-threshold", 0.9, "--embedding-model", "nothing", "--run", "r")
    assert "model nothing" in refused_after_start(call(*args))
