"""Recipes, and the options of the stages' own commands that they and `--set` name."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import build, unknown
from pipeline.errors import PipelineError
from pipeline.records import read_text
from pipeline.rounds.options import GENERATE, LAST, POLICY, TRAINED, Options

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
_CLASSES = {
    GENERATE: "pipeline.stages.options:Options",
    "teacher": "pipeline.stages.options:Options",
    "sft": "pipeline.train.sft_options:Options",
    "preferences": "pipeline.judging.options:Options",
    "reward": "pipeline.train.preference_options:RewardOptions",
    "dpo": "pipeline.train.preference_options:DPOOptions",
    "grpo": "pipeline.train.rl_options:GRPOOptions",
    "ppo": "pipeline.train.rl_options:PPOOptions",
    LAST: "pipeline.evaluation.options:Options",
}
_OURS = frozenset("run seed resume overwrite model data target seeds heldout pool round".split())
Sections = dict[str, dict[str, Any]]


def read(name: str) -> dict[str, Any]:
    """A recipe as options of the loop: what its sections say stands in `set`. Raises PipelineError."""
    path = RECIPES / f"{name}.yaml" if (RECIPES / f"{name}.yaml").is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in RECIPES.glob("*.yaml")))
        raise PipelineError(f"--recipe {name}", f"no such file, and none of ours ({known})", "Correct it.")
    found = _yaml(read_text(path), path)
    if not isinstance(found, dict):
        raise PipelineError(path, "expected 'option: value' lines and sections", "Mend the file.")
    values: dict[str, Any] = {"set": []}
    for key, value in found.items():
        if key == "set":
            values["set"] += value if isinstance(value, list) else [value]
        elif key not in _CLASSES or not isinstance(value, dict):
            values[str(key).replace("-", "_")] = value
        else:
            values["set"] += [f"{key}.{name}={_written(one)}" for name, one in value.items()]
    return values


def completed(options: Options) -> Options:
    """The options with every stage's written once in `set`; the last one named wins. Raises PipelineError."""
    found = sections(options)
    lines = [
        f"{stage}.{name}={_written(value)}" for stage in _CLASSES for name, value in found[stage].items()
    ]
    return replace(options, set=tuple(lines))


def sections(options: Options) -> Sections:
    """What `set` says, by stage, checked against each command's own options. Raises PipelineError."""
    out: Sections = {stage: {} for stage in _CLASSES}
    for line in options.set:
        place, sign, value = line.partition("=")
        stage, dot, name = place.partition(".")
        if not sign or not dot:
            problem = "expected STAGE.OPTION=VALUE"
            raise PipelineError(f"--set {line}", problem, "Write it so: sft.num_epochs=2")
        if stage not in _CLASSES:
            raise unknown(f"--set {line}", f"stage '{stage}'", stage, _CLASSES)
        name = name.replace("-", "_")
        if name in _OURS:
            fix = (
                f"Leave it out; --{name} of the loop decides on it."
                if name in vars(options)
                else "Leave it out."
            )
            raise PipelineError(f"--set {line}", "the loop itself decides on this option", fix)
        out[stage][name] = _yaml(value, f"--set {line}")
    for stage in out:
        _built(stage, out)
    return out


def wanted(found: Sections) -> dict[str, int]:
    """The examples that a round wants of each language. Raises PipelineError."""
    from pipeline.stages.setup import targets

    return targets(_built(GENERATE, found))


def check(options: Options, found: Sections) -> None:
    """Refuse what does not fit together, before anything runs. Raises PipelineError."""
    stages = options.stages
    if GENERATE not in stages or not set(stages) & set(TRAINED):
        problem = f"got {' '.join(stages)}, expected {GENERATE} and a stage that trains"
        raise PipelineError("--stages", problem, "Name both.")
    if len(set(stages)) < len(stages):
        raise PipelineError("--stages", "a stage is named twice", "Name each once.")
    for stage in ("dpo", "reward"):
        if stage in stages and "preferences" not in stages[: stages.index(stage)]:
            problem = f"{stage} reads what preferences makes"
            raise PipelineError("--stages", problem, f"Name preferences before {stage}.")
    if options.generator != POLICY and not options.teacher:
        problem = f"got {options.generator} without a teacher"
        raise PipelineError("--generator", problem, "Name one with --teacher.")
    if _built(LAST, found).contamination == "exclude":
        problem = "each round would be scored on other tasks"
        raise PipelineError("evaluate.contamination", problem, "Use report; --max-contaminated is the guard.")


def _built(stage: str, found: Sections) -> Any:
    """A command's options with what its section says."""
    module, name = _CLASSES[stage].split(":")
    return build(getattr(importlib.import_module(module), name), found[stage], lambda key: f"{stage}.{key}")


def _written(value: Any) -> str:
    """A value on one line, as YAML reads it."""
    import yaml

    line = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return line.strip().removesuffix("...").strip()


def _yaml(text: str, where: object) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise PipelineError(where, f"not YAML ({error})", "Mend it.") from None
