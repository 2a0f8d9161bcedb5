"""lm-evaluation-harness on the checkpoint: `--lm-eval TASKS`, an extra (`pip install .[lm-eval]`).

https://github.com/EleutherAI/lm-evaluation-harness. Its numbers go into the score sheet under its own names.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from pipeline.engines.models import language_model, quiet
from pipeline.errors import PipelineError
from pipeline.evaluation.options import Options

_INSTALL = "Install it: pip install .[lm-eval] -c constraints.txt"


def check(options: Options) -> None:
    """Refuse what cannot be run, before anything is asked. Raises PipelineError."""
    if not options.lm_eval:
        for name, value in (("path", options.lm_eval_path), ("limit", options.lm_eval_limit)):
            if value:
                problem = "it goes with --lm-eval and with nothing else"
                raise PipelineError(f"--lm-eval-{name}", problem, "Name tasks, or leave it out.")
        return
    where = f"--lm-eval {' '.join(options.lm_eval)}"
    if options.engine == "openai":
        problem = "it runs on a checkpoint, and --engine openai has none here"
        raise PipelineError(where, problem, "Use --engine embedded with the model's directory.")
    if importlib.util.find_spec("lm_eval") is None:
        raise PipelineError(where, "lm-evaluation-harness is not installed", _INSTALL)
    if options.lm_eval_path and not Path(options.lm_eval_path).is_dir():
        problem = "no such directory"
        raise PipelineError(f"--lm-eval-path {options.lm_eval_path}", problem, "Name that of its YAML files.")


def run(options: Options) -> dict[str, dict[str, Any]]:
    """By task its figures, rounded. Raises PipelineError for a task that is not there or does not run."""
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    quiet()
    where = f"--lm-eval {' '.join(options.lm_eval)}"
    known = TaskManager(include_path=options.lm_eval_path or None)
    for name in options.lm_eval:
        if name not in known.all_tasks:
            fix = "Give the directory of its YAML file with --lm-eval-path, or correct the name."
            raise PipelineError(where, f"no task '{name}' among {len(known.all_tasks)}", fix)
    try:
        found = simple_evaluate(
            model="hf",
            model_args={"pretrained": language_model(options.model), "dtype": "float32"},
            tasks=list(options.lm_eval),
            task_manager=known,
            limit=options.lm_eval_limit or None,
            batch_size=8,
            device="cuda" if torch.cuda.is_available() else "cpu",
            random_seed=options.seed,
            numpy_random_seed=options.seed,
            torch_random_seed=options.seed,
            fewshot_random_seed=options.seed,
            bootstrap_iters=1000,
        )
    except Exception as error:  # the harness raises whatever a task's code or data set raises
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise PipelineError(where, f"it failed ({said})", "Mend the task, or leave it out.") from error
    return {name: _plain(figures) for name, figures in sorted(found["results"].items())}


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in sorted(figures.items())
        if isinstance(value, str | int | float)
    }


def is_figure(name: str, value: Any) -> bool:
    """Whether an entry is a score, not a standard error or a setting."""
    return isinstance(value, float) and "," in name and "_stderr" not in name
