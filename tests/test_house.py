"""Repo-wide: the README's commands parse, options are read, modules are documented and small, seeds sound."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import commands
from pipeline.config import parse
from pipeline.dedup.options import Options as DedupOptions
from pipeline.judging.options import Options as PreferenceOptions
from pipeline.rounds.options import Options as LoopOptions
from pipeline.selfinstruct import Options
from pipeline.stages.plan import Plan
from pipeline.train.preference_options import DPOOptions, RewardOptions
from pipeline.train.rl_options import GRPOOptions, PPOOptions
from pipeline.train.sft_options import Options as TrainingOptions

REPO = Path(__file__).resolve().parent.parent
MODULES = sorted((REPO / "pipeline").rglob("*.py"))
CODE = [path for path in MODULES if path.read_text(encoding="utf-8").strip()]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in CODE}
EMBEDDING = REPO / "pipeline" / "dedup" / "embedding_options.py"  # shared by two commands
MAX_FILE, MAX_FUNCTION = 250, 60  # lines


def named(path: Path) -> str:
    return str(path.relative_to(REPO))


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=REPO, env=environment, capture_output=True, text=True, timeout=60
    )


# ---- the README ----


def readme_commands() -> list[str]:
    """Every `python -m pipeline...` of a code block or of code in a sentence, and what `make` passes on."""
    readme = REPO / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    blocks = "\n".join(re.findall(r"^ {4}(?:\S*/)?python3? .*$|`[^`\n]*python[^`\n]*`", text, re.MULTILINE))
    found = re.findall(r"python3? (-m pipeline[^`\n]*)", blocks)
    mentioned = set(re.findall(r"python3? -m pipeline\.(\w+)", text))
    assert mentioned <= set(commands())
    found += [
        f"-m pipeline.{name} {words}"
        for name, words in re.findall(r"make (\w+) ARGS=\"([^\"]*)\"", text)
        if name in commands()
    ]
    return sorted(set(found))


def test_every_command_in_the_readme_parses_with_its_own_parser(capsys: pytest.CaptureFixture[str]) -> None:
    if not (REPO / "README.md").exists():
        pytest.skip("there is no README.md yet")
    found = readme_commands()
    assert len(found) >= 5
    for line in found:
        _, module, *argv = shlex.split(line, comments=True)
        if module == "pipeline":
            assert not argv, line
            continue
        assert module.removeprefix("pipeline.") in commands(), line
        room = (REPO / module.replace(".", "/")).is_dir()
        command = importlib.import_module(f"{module}.__main__" if room else module)
        argv = command.trainer_words(argv) if hasattr(command, "trainer_words") else argv
        try:
            parse(command.Options, argv, prog=module, doc=command.__doc__ or "")
        except SystemExit as ended:
            assert (ended.code, "--help" in argv) == (0, True), line
    capsys.readouterr()


def test_every_file_that_the_readme_names_exists() -> None:
    if not (REPO / "README.md").exists():
        pytest.skip("there is no README.md yet")
    text = (REPO / "README.md").read_text(encoding="utf-8")
    found = set(re.findall(r"(?<![\w/.-])((?:pipeline|prompts|seeds|tests)/[\w./-]*\w(?:\.\w+|/))", text))
    assert found
    assert not sorted(name for name in found if not (REPO / name).exists())


def test_every_make_target_that_is_declared_has_a_rule() -> None:
    text = (REPO / "Makefile").read_text(encoding="utf-8")
    declared = set(" ".join(re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)).split())
    rules = set(re.findall(r"^([\w-]+):(?!=)", text, re.MULTILINE))
    assert declared == rules
    assert set(re.findall(r"^# make ([\w-]+)", text, re.MULTILINE)) <= rules


# ---- options ----


def attributes(tree: ast.AST, *owners: str) -> set[str]:
    """What is read of the variables `owners`: options.seed, o.seed, getattr(options, "seed")."""
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if owner in owners:
                read.add(node.attr)
    return read


def named_in(function: str, path: Path) -> set[str]:
    """Every text constant in a function: `setup.plan` copies options by name."""
    body = next(
        node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef) and node.name == function
    )
    return {
        node.value
        for node in ast.walk(body)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_option_is_read_by_something_other_than_its_declaration() -> None:
    entry = REPO / "pipeline" / "selfinstruct.py"
    read = set().union(*(attributes(tree, "options", "o") for p, tree in TREES.items() if p != entry))
    read |= named_in("plan", REPO / "pipeline" / "stages" / "setup.py")
    read |= attributes(TREES[EMBEDDING], "self")
    # These two choose what main does, so main is where they are read.
    read |= attributes(TREES[entry], "options") & {"check_seeds", "dry_run"}
    assert not sorted({field.name for field in fields(Options)} - read)


def test_every_option_of_dedup_is_read_too() -> None:
    room = REPO / "pipeline" / "dedup"
    read = set().union(*(attributes(tree, "options", "o") for p, tree in TREES.items() if p.parent == room))
    read |= attributes(TREES[EMBEDDING], "self")
    assert not sorted({field.name for field in fields(DedupOptions)} - read)


def test_every_option_of_preferences_is_read_too() -> None:
    rooms = [REPO / "pipeline" / name for name in ("judging", "engines")]
    read = set().union(*(attributes(tree, "options", "o") for p, tree in TREES.items() if p.parent in rooms))
    assert not sorted({field.name for field in fields(PreferenceOptions)} - read)


def test_every_option_of_the_loop_is_read_too() -> None:
    room = REPO / "pipeline" / "rounds"
    mine = [tree for path, tree in TREES.items() if path.parent == room or path.stem == "loop"]
    read = set().union(*(attributes(tree, "options") for tree in mine))
    assert not sorted({field.name for field in fields(LoopOptions)} - read)


@pytest.mark.parametrize("options", [TrainingOptions, RewardOptions, DPOOptions, GRPOOptions, PPOOptions])
def test_every_option_of_training_is_read_too(options: Any) -> None:
    room, pipeline = REPO / "pipeline" / "train", REPO / "pipeline"
    others = (pipeline / "sft.py", pipeline / "judging" / "prompt_rows.py")
    rooms = {path: tree for path, tree in TREES.items() if path.parent == room or path in others}
    read = set().union(*(attributes(tree, "options", "_options", "tuning") for tree in rooms.values()))
    assert not sorted({field.name for field in fields(options)} - read)


def test_every_setting_of_the_plan_is_read() -> None:
    setup = REPO / "pipeline" / "stages" / "setup.py"
    read = {
        node.attr
        for path, tree in TREES.items()
        if path != setup
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        if isinstance(node.value, ast.Name | ast.Attribute)
        and getattr(node.value, "attr", getattr(node.value, "id", "")) in ("plan", "settings")
    }
    assert not sorted({field.name for field in fields(Plan)} - read)


# ---- modules ----


@pytest.mark.parametrize("path", CODE, ids=named)
def test_a_module_has_a_docstring_and_a_reasonable_size(path: Path) -> None:
    tree = TREES[path]
    assert ast.get_docstring(tree)
    count = path.read_text(encoding="utf-8").count("\n")
    assert count <= MAX_FILE
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
    }
    assert not {name: count for name, count in long.items() if count > MAX_FUNCTION}


def test_every_public_function_and_class_has_a_docstring() -> None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    bare = [
        f"{named(path)}:{node.lineno}: {node.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)  # nested and overriding ones too
        if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not bare


def handlers(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))


def test_no_error_is_swallowed_without_a_word() -> None:
    for path, tree in TREES.items():
        for handler in handlers(tree):
            where = f"{named(path)}:{handler.lineno}"
            assert handler.type is not None, f"{where}: a bare except"
            silent = all(
                isinstance(step, ast.Pass)
                or (isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant))
                for step in handler.body
            )
            assert not silent, f"{where}: except ...: pass"


def test_a_broad_except_says_why_on_its_line() -> None:
    for path, tree in TREES.items():
        text = path.read_text(encoding="utf-8").splitlines()
        for handler in handlers(tree):
            if isinstance(handler.type, ast.Name) and handler.type.id in ("Exception", "BaseException"):
                raises_on = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
                assert raises_on or "#" in text[handler.lineno - 1], f"{named(path)}:{handler.lineno}"


def test_only_the_engine_imports_torch_where_a_module_is_imported() -> None:
    heavy = {
        "torch",
        "transformers",
        "datasets",
        "sentence_transformers",
        "lingua",
        "rjieba",
        "pyarrow",
        "numba",
    }
    guilty = set()
    for path, tree in TREES.items():
        for node in tree.body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if heavy & {name.split(".")[0] for name in names}:
                guilty.add(named(path))
    engine = {f"pipeline/engines/{name}.py" for name in ("decode", "draw", "embedded", "kvcache")}
    loops = {"pipeline/dedup/compiled.py"}
    tuners = "bottleneck_tuner float32_state layer_tuner lomo lowrank soft_prompts sparse_delta"
    trainers = "answer_head classify_trainer orpo_trainer pair_trainers tuned_trainer tuning_callbacks watch"
    learners = (
        "critic grpo_trainer ppo_math ppo_trainer rl_look rl_trainer rollouts row_order unpadded value_model"
    )
    training = [*tuners.split(), *trainers.split(), *learners.split()]
    assert guilty <= engine | loops | {f"pipeline/train/{name}.py" for name in training}


# ---- commands, prompts, seeds ----


def test_the_map_lists_every_command_and_nothing_else() -> None:
    entries = {
        path.stem
        for path in (REPO / "pipeline").glob("*.py")
        if path.stem != "__main__" and 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    entries |= {path.parent.name for path in (REPO / "pipeline").glob("*/__main__.py")}
    assert set(commands()) == entries
    done = python("-m", "pipeline")
    assert (done.returncode, done.stderr) == (0, "")
    for name, purpose in commands().items():
        assert re.search(rf"^python -m pipeline\.{name} +{re.escape(purpose)}$", done.stdout, re.MULTILINE)
        assert purpose


def test_both_languages_have_the_same_prompt_files() -> None:
    english, chinese = (
        {p.name for p in (REPO / "prompts" / la).iterdir() if p.suffix in (".jinja", ".yaml")}
        for la in ("en", "zh")
    )
    assert english == chinese and len(english) > 10


def test_our_seeds_pass_their_own_lint_and_are_counted() -> None:
    done = python("-m", "pipeline.selfinstruct", "--check-seeds", "--seeds", "seeds/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n0 problems\n")
    for language in ("en", "zh"):
        rows = (REPO / "seeds" / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
        assert f"{language}: {len(rows)} seeds, " in done.stdout
