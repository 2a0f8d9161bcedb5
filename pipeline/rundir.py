"""Run directories: everything a run read, decided and made, in one place that is never left half-written.

runs/<name>/config.yaml    every option, resolved
            run.json       versions, host, inputs with hashes, times, token totals
            journal.jsonl  one line per admitted request; all state is rebuilt from it
            kept.jsonl dropped.jsonl metrics.jsonl log.txt dataset/
            DONE           written last: the digest of configuration and inputs
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, disk_errors
from pipeline.records import read_text

# DONE first: a directory that is being cleared must not pass for a finished run.
_OURS = tuple(
    "DONE config.yaml run.json journal.jsonl kept.jsonl dropped.jsonl metrics.jsonl log.txt dataset"
    " report.html diversity.json batches snapshot.npz model merged checkpoints tensorboard before.json"
    " preferences.jsonl best_of_n.jsonl prompts.jsonl findings.json export"
    " answers.jsonl mask_audit.json masks.html loss.svg loss.png rewards.svg rewards.png calibration.svg"
    " calibration.png predictions.jsonl reference.json rollouts.jsonl value_model"
    " scores.json failures.jsonl report.md journal-suggest.jsonl"
    " rounds.jsonl rounds.md rounds.svg rounds.png start".split()
)
_ROUND = re.compile(r"round-\d\d+")
_VERSIONS = ("torch", "transformers", "sentence-transformers", "numba", "rjieba", "numpy", "trl", "peft")


class RunDir:
    """One run's directory, locked while this object is open; `option` is the flag that names it."""

    def __init__(self, path: Path, *, option: str = "--run", resumes: bool = True) -> None:
        self.path, self._option, self._resumes = path, option, resumes
        self._lock: Any = None

    @property
    def done(self) -> bool:
        """Whether the run was finished."""
        return (self.path / "DONE").exists()

    def claim(
        self,
        config: Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        manner: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the directory ours, or refuse it. Raises PipelineError.

        `config` holds the options that decide the result and `inputs` the digests of what is read; a
        resumed run must have the same of both. `manner`, options that only say how the result is had, is
        written down too, and may change.
        """
        used = self._used_by()
        if used and not (resume or overwrite):
            go_on = "--resume to go on with it, " if self._resumes else ""
            way = f"Use {go_on}--overwrite to start it anew, or another {self._option}."
            raise PipelineError(self.path, f"the directory is in use by {used}", way)
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._acquire()
        try:
            if resume:
                self.check_same(config, inputs)
            else:
                self._begin({**config, **(manner or {})}, inputs, clear=overwrite)
        except BaseException:
            self.release()
            raise

    def _begin(self, config: Mapping[str, Any], inputs: Mapping[str, Any], *, clear: bool) -> None:
        """Write what a resumed run is compared with; it is a run once config.yaml is there."""
        import yaml

        if clear:
            with disk_errors(self.path):
                self._clear()
        self._write_json("run.json", {"inputs": dict(inputs), "versions": versions()})
        self.write("config.yaml", yaml.safe_dump(dict(config), allow_unicode=True, sort_keys=False))

    def _write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def write(self, name: str, text: str) -> None:
        """Put a whole file in place at once."""
        target, half = self.path / name, self.path / f".{name}.{os.getpid()}"
        with disk_errors(target):
            try:
                with half.open("w", encoding="utf-8", newline="\n") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                half.replace(target)
            finally:
                half.unlink(missing_ok=True)

    def update(self, facts: Mapping[str, Any]) -> None:
        """Add facts to run.json."""
        self._write_json("run.json", {**self._record(), **facts})

    def finish(self, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Write DONE."""
        self.write("DONE", digest({"config": dict(config), "inputs": dict(inputs)}) + "\n")

    def release(self) -> None:
        """Give the directory free."""
        if self._lock:
            self._lock.release()

    def _used_by(self) -> str:
        if not self.path.exists():
            return ""
        if not self.path.is_dir():
            way = f"Choose another {self._option}."
            raise PipelineError(self.path, "this is a file, expected a directory", way)
        names = sorted(p.name for p in self.path.iterdir() if p.name != ".lock")
        foreign = [n for n in names if not _ours(n) and not n.startswith(".")]
        if foreign:
            problem = f"the directory holds '{foreign[0]}', which no run of ours wrote"
            raise PipelineError(self.path, problem, f"Choose another {self._option}; nothing was touched.")
        if names in ([], ["run.json"]):  # the latter: stopped before config.yaml, so nothing was done
            return ""
        return "a finished run" if self.done else "an unfinished run"

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout

        self._lock = FileLock(self.path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise PipelineError(
                self.path,
                "another process is running in this directory",
                f"Wait for it, stop it, or choose another {self._option}.",
            ) from None

    def _clear(self) -> None:
        inside = [*_OURS, *sorted(p.name for p in self.path.iterdir() if _ROUND.fullmatch(p.name))]
        for victim in (self.path / name for name in inside):
            if victim.is_dir():
                shutil.rmtree(victim)
            else:
                victim.unlink(missing_ok=True)

    def _record(self) -> dict[str, Any]:
        path = self.path / "run.json"
        try:
            return dict(json.loads(read_text(path)))
        except (ValueError, TypeError) as error:
            raise PipelineError(path, f"not JSON ({error})", "Restore it, or use --overwrite.") from None

    def check_same(self, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Raise PipelineError if options or files differ from those that the run began with."""
        import yaml

        before = yaml.safe_load(read_text(self.path / "config.yaml"))
        changed = [
            f"{k} ({before.get(k)} -> {config.get(k)})" for k in config if before.get(k) != config.get(k)
        ]
        read = self._record().get("inputs", {})
        changed += [f"the contents of {k}" for k in {**read, **inputs} if read.get(k) != inputs.get(k)]
        if changed:
            raise PipelineError(
                f"--resume {self.path}",
                f"these differ from when the run began: {', '.join(changed)}",
                "Set them back, or start a new run.",
            )


def _ours(name: str) -> bool:
    return name in _OURS or bool(_ROUND.fullmatch(name))


def resumable(path: Path | None, root: Path, command: str) -> Path:
    """The run to resume: `path`, else the newest unfinished one of `command`. Raises PipelineError."""
    if path is None:
        unfinished = [
            p for p in root.glob(f"{command}-*") if (p / "config.yaml").exists() and not RunDir(p).done
        ]
        if not unfinished:
            raise PipelineError("--resume", f"no unfinished run under {root}/", "Name one with --run.")
        return max(unfinished, key=lambda p: p.stat().st_mtime)
    if not (path / "config.yaml").exists():
        raise PipelineError(
            f"--resume {path}", "there is no run to resume", "Leave --resume out to start one."
        )
    return path


def next_name(root: Path, command: str) -> Path:
    """The first free runs/<command>-NNN."""
    taken = [
        int(p.name.rsplit("-", 1)[1]) for p in root.glob(f"{command}-*") if p.name.rsplit("-", 1)[1].isdigit()
    ]
    return root / f"{command}-{max(taken, default=0) + 1:03d}"


def digest(value: Any) -> str:
    """A SHA-256 over the canonical JSON of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def shown(path: Path) -> Path:
    """The path relative to the working directory where it lies inside it: the same on every machine."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with disk_errors(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages whose numbers a result depends on."""
    found = {"python": sys.version.split()[0], "platform": platform.platform(), "cores": str(os.cpu_count())}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
