"""How a training command begins and ends: options completed, run directory claimed and released."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import as_dict
from pipeline.errors import Stopped
from pipeline.progress import Display
from pipeline.rundir import RunDir, next_name
from pipeline.train import hardware, processes
from pipeline.train.job import Job
from pipeline.train.options import BaseOptions
from pipeline.train.policy import base_model
from pipeline.train.processes import Follower
from pipeline.train.trainer_fields import passed_through

_NOT_CONFIG = ("run", "resume", "overwrite", "show_mask")


def run(kind: type[Job], options: BaseOptions, root: Path) -> int:
    """Train in a run directory and print where the model is; returns the exit code.

    Raises PipelineError, Stopped.
    """
    options = kind.completed(options, root)
    given = kind.find(options)
    processes.check(kind.command, kind.by_several, options.run)
    config = {name: value for name, value in as_dict(options).items() if name not in _NOT_CONFIG}
    leads = processes.leads()
    folder = Path(options.run) if options.run else next_name(root, kind.command)
    target = RunDir(folder) if leads else Follower(folder)
    inputs = given.digests
    if options.resume and target.done:
        target.check_same(config, inputs)
        return _end(target, leads)
    base = base_model(options)
    passed_through(options, kind.config_class(options))
    options = kind.fitted(options, base)
    machine = hardware.choose(options)
    if machine.device == "cpu":
        hardware.keep_memory()
    kind.check(options)
    target.claim(config, inputs, resume=options.resume, overwrite=options.overwrite)
    try:
        processes.meet(machine.device)
        with Display(target.path / "log.txt" if leads else None, quiet=not leads) as display:
            kind(options, given, base, machine, target, display).run()
        target.finish(config, inputs)
    except KeyboardInterrupt:
        raise Stopped(f"\nStopped. --run {folder} --resume goes on.") from None
    finally:
        target.release()
    return _end(target, leads)


def _end(target: RunDir, leads: bool) -> int:
    if leads:
        print(target.path / "model")
    return 0
