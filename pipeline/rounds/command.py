"""What `python -m pipeline.loop` does, once its options are parsed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from pipeline.config import as_dict
from pipeline.errors import EXIT_INTERRUPTED, EXIT_PAUSED, Stopped
from pipeline.format.sources import find_sources
from pipeline.progress import Display
from pipeline.records import to_json
from pipeline.rounds import table
from pipeline.rounds.flow import Loop
from pipeline.rounds.options import Options
from pipeline.rounds.recipe import check, completed, sections
from pipeline.rundir import RunDir, file_digest, next_name
from pipeline.stages.seeds import load_seeds, seed_files

_NOT_CONFIG = ("run", "resume", "overwrite")
_MANNER = ("recipe",)  # what it says is in `set`


def run(options: Options, root: Path) -> int:
    """Play the rounds in a run directory and print the last good policy; returns the exit code.

    Raises PipelineError, Stopped.
    """
    options = completed(options)
    stages = sections(options)
    check(options, stages)
    config = {name: value for name, value in as_dict(options).items() if name not in (*_NOT_CONFIG, *_MANNER)}
    files = {str(path): file_digest(path) for path in seed_files(options.seeds)}
    inputs = files | {source.name: source.digest() for source in find_sources(options.heldout)}
    seeds = load_seeds(options.seeds)
    target = RunDir(Path(options.run) if options.run else next_name(root, "loop"))
    if options.resume and target.done:
        target.check_same(config, inputs)
        return _end(target.path)
    manner = {name: getattr(options, name) for name in _MANNER}
    target.claim(config, inputs, resume=options.resume, overwrite=options.overwrite, manner=manner)
    try:
        display = Display(target.path / "log.txt")  # its bars stay off: the stages show theirs
        display.say(f"run directory: {target.path}; {options.rounds} rounds of {', '.join(options.stages)}")
        loop = Loop(options, stages, seeds, target.path, display)
        rows = []
        for row in loop.play():
            rows.append(row)
            shown = table.with_wins(rows, loop.scored)
            target.write("rounds.jsonl", "".join(to_json(one) + "\n" for one in shown))
            target.write("rounds.md", table.markdown(shown))
        table.draw(shown, target.path)
        display.table(table.terminal(shown))
        good = [row for row in rows if row.get("verdict") == "accepted"]
        target.update({"policy": good[-1]["policy"] if good else options.model, "rounds": len(rows)})
        target.finish(config, inputs)
    except Stopped as stop:
        code = EXIT_PAUSED if stop.code == EXIT_PAUSED else EXIT_INTERRUPTED
        raise Stopped(_how_to_go_on(target.path), code) from None
    except KeyboardInterrupt:
        raise Stopped(_how_to_go_on(target.path)) from None
    finally:
        target.release()
    return _end(target.path)


def _end(path: Path) -> int:
    """Print the last good policy."""
    print(json.loads((path / "run.json").read_text(encoding="utf-8"))["policy"] or "the embedded model")
    return 0


def _how_to_go_on(path: Path) -> str:
    return (
        "\nStopped; every finished stage is kept, and what the one under way has done. Go on with:\n"
        f"  python -m pipeline.loop --resume --run {shlex.quote(str(path))}"
    )
