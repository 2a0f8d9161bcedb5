"""What a model was trained on, as far as our runs tell: its run's data, its base's, its adapter's, ..."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engines.models import is_run
from pipeline.errors import PipelineError
from pipeline.format.sources import Source, find_sources
from pipeline.records import read_text

_BASES = ("model", "adapter", "reward_model")  # options that name what a run started from or learnt from
_INSIDE = ("merged", "model")  # directories of a run that hold its model
_ASIDE = frozenset(
    "id provenance score scores score_chosen score_rejected tags language is_classification model "
    "verifier label margin where".split()
)


@dataclass
class Lineage:
    """The runs that made a model, newest first, what they read, and what is not known of it."""

    runs: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def digests(self) -> dict[str, str]:
        """What changes when the training data change."""
        return {f"trained on {source.name}": source.digest() for source in self.sources}


def lineage(model: str, *adapters: str) -> Lineage:
    """Follow a model's runs back to what is no run of ours. Raises PipelineError for a damaged run."""
    out, todo = Lineage(), [model, *filter(None, adapters)]
    while todo:
        name = todo.pop(0)
        run = run_of(name)
        if run is None:
            known = name or "the embedded SmolLM2-135M-Instruct"
            out.unknown += [known] if known not in out.unknown else []
            continue
        if str(run) in out.runs:
            continue
        out.runs.append(str(run))
        config, facts = _config(run), _facts(run)
        _read(run, facts.get("inputs", {}), out)
        todo += [str(config[key]) for key in _BASES if config.get(key)]
        if not config.get("model"):
            todo.append("")
    return out


def run_of(name: str) -> Path | None:
    """The run that a model's name means, its merged model or adapter included; None for any other model."""
    path = Path(name)
    if not name or not path.is_dir():
        return None
    if is_run(path):
        return path
    return path.parent if path.name in _INSIDE and is_run(path.parent) else None


def _read(run: Path, inputs: Mapping[str, str], out: Lineage) -> None:
    known = {source.identity for source in out.sources}
    for name, wanted in inputs.items():
        place = _place(run, name)
        try:
            found = find_sources([place])[0]
            if found.identity in known:
                continue
            if found.digest() != wanted:
                out.unknown.append(f"{name} of {run}: it has changed since the training")
            out.sources.append(found)
        except PipelineError as error:
            out.unknown.append(f"{name} of {run}: {error.problem}")


def _place(run: Path, name: str) -> str:
    """Where an input of a run lies: as it was given, else from the directory above runs/."""
    beside = run.resolve().parent.parent / name
    return str(beside) if not Path(name).exists() and beside.exists() else name


def _config(run: Path) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(read_text(run / "config.yaml")) or {})


def _facts(run: Path) -> dict[str, Any]:
    path = run / "run.json"
    try:
        return dict(json.loads(read_text(path)))
    except (ValueError, TypeError) as error:
        raise PipelineError(path, f"not JSON ({error})", "Restore it, or use --contamination off.") from None


def asked(fields: Mapping[str, Any]) -> str:
    """What a training row asks: instruction and input, else the user's turns, else the prompt."""
    if isinstance(fields.get("instruction"), str):
        given = fields.get("input")
        return "\n".join([fields["instruction"], *([given] if isinstance(given, str) and given else [])])
    for name in ("prompt", "messages", "conversations", "question", "text"):
        value = fields.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            turns = (t for t in value if isinstance(t, dict))
            said = [_said(t) for t in turns if t.get("role", t.get("from")) in ("user", "human")]
            return "\n".join(said)
    return ""


def whole(fields: Mapping[str, Any]) -> str:
    """All texts of a training row, on any side: outputs, chosen, rejected."""
    return "\n".join(_texts(fields))


def _said(turn: Mapping[str, Any]) -> str:
    return "\n".join(_texts(turn.get("content", turn.get("value", ""))))


def _texts(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if name not in ("role", "from"):
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _ASIDE:
                yield from _texts(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, name)
