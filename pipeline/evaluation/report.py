"""The score sheet for people: a table in the terminal, report.md in the run directory, what to be wary of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from pipeline.evaluation.lm_eval import is_figure
from pipeline.intervals import Interval

_SHOWN = 3  # failures of each reason
_CUT = 240  # characters of a text that is shown
_ROWS = (
    ("held-out loss, nats a token", "loss"),
    ("ROUGE-L with the reference", "rouge_l"),
    ("success: checks and labels", "success"),
    ("single checks passed", "checks_passed"),
    ("ended by itself", "stopped"),
    ("cut off", "truncated"),
    ("empty", "empty"),
    ("repeats itself", "repetition"),
    ("wrong language", "wrong_language"),
    ("refused", "refused"),
    ("length, words or characters", "length"),
)


def figure(found: Mapping[str, Any] | None) -> str:
    """An interval of the sheet in words."""
    if not found:
        return "unknown"
    return str(Interval(**{name: found[name] for name in ("value", "low", "high", "count")}))


def lines(sheet: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was measured, and its value with the 95% interval and the number of tasks."""
    for what, name in _ROWS:
        if name != "loss" or sheet["loss"]:
            yield what, figure(sheet[name])
        if name == "loss" and sheet["loss"]:
            yield "perplexity", figure(sheet["loss"]["perplexity"])
    if found := sheet["classification"]:
        yield "classification: accuracy", f"{figure(found['accuracy'])}; by chance {found['chance']:.3f}"
        yield "classification: macro F1", figure(found["macro_f1"])
        yield "classification: no label given", figure(found["without_label"])
    if found := sheet["judge"]:
        if found["beats_reference"]["count"]:
            yield "judge: better than the reference", figure(found["beats_reference"])
            yield "judge: flipped with the order", figure(found["flipped"])
        if found["rating"]["count"]:
            yield "judge: rating, 0 to 1", figure(found["rating"])
    yield "failed for any reason (requests)", figure(sheet["failures"]["failed"])
    for task, figures in (sheet["lm_eval"] or {}).items():
        for name, value in figures.items():
            if is_figure(name, value):
                error = figures.get(name.replace(",", "_stderr,", 1))
                yield f"lm-eval {task}: {name}", f"{value:g}" + (f" ± {error:g} (stderr)" if error else "")


def table(sheet: Mapping[str, Any]) -> Table:
    """For the terminal."""
    held = sheet["heldout"]
    out = Table(title=f"{held['tasks']} tasks, {held['requests']} requests", title_justify="left")
    out.add_column("what")
    out.add_column("value, 95% interval, tasks", justify="right")
    for what, value in lines(sheet):
        out.add_row(what, value)
    return out


def notes(sheet: Mapping[str, Any]) -> Iterator[str]:
    """What a careful person would want to be told."""
    left = sheet["loss_left_out"]
    if isinstance(left, str) and left:
        yield f"note: no held-out loss: {left}"
    elif left:
        said = ", ".join(f"{count} {reason}" for reason, count in left.items())
        yield f"note: references that were not scored: {said}"
    if (cut := Interval(**sheet["truncated"])).value > 0.1:
        yield f"note: answers were cut off in {cut} tasks; --max-tokens {sheet['settings']['max_tokens']}"
    found = sheet["classification"]
    if found and found["accuracy"]["low"] <= found["chance"]:
        yield f"note: accuracy is not shown to be better than guessing ({found['chance']:.3f})"
    dirty = sheet["contamination"].get("share")
    if dirty and dirty["value"] and sheet["contamination"]["mode"] == "report":
        yield f"note: {figure(dirty)} of the requests are in the training data; --contamination exclude"
    for kind in sheet["failures"]["worst"][:3]:
        share = kind["failed"]
        failed = round(share["value"] * share["count"])
        yield f"worst: {failed} of {share['count']} '{kind['tag']}' ({kind['language']}): {kind['add']}"


def markdown(sheet: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]) -> str:
    """The whole sheet with the worst answers."""
    parts = [f"# Evaluation of {sheet['model'] or 'the embedded model'}", ""]
    held = sheet["heldout"]
    parts += [f"{held['tasks']} tasks, {held['requests']} requests of {', '.join(held['files'])}.", ""]
    parts += _table(("what", "value [95% interval] of tasks"), lines(sheet))
    for name, title in (("by_tag", "By kind"), ("by_language", "By language")):
        head = (title.removeprefix("By "), "requests", "success", "ROUGE-L", "loss", "repeats itself")
        parts += ["", f"## {title}", "", *_table(head, _groups(sheet[name]))]
    for name, title in (("diversity", "the answers"), ("training_diversity", "what the training data ask")):
        table = _table(("language", "measure", "value"), _diversity(sheet[name]))
        parts += ["", f"## Diversity of {title}", "", *table]
    parts += ["", "## Contamination", "", *_contamination(sheet["contamination"])]
    parts += ["", "## Failures", ""]
    parts += _table(("reason", "requests"), sheet["failures"]["by_reason"].items())
    parts += ["", "What to add:", ""]
    parts += [f"- {kind['add']} (failed: {figure(kind['failed'])})" for kind in sheet["failures"]["worst"]]
    parts += list(_examples(failures))
    return "\n".join([*parts, "", "## Notes", "", *(f"- {line}" for line in notes(sheet))]) + "\n"


def _table(head: Sequence[str], rows: Any) -> list[str]:
    body = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    if not body:
        return ["none"]
    made = ["| " + " | ".join(row) + " |" for row in [list(head), ["---"] * len(head), *body]]
    return made


def _groups(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for name, group in groups.items():
        scores = (figure(group[key]) for key in ("success", "rouge_l", "loss", "repetition"))
        yield (name, group["requests"], *scores)


def _diversity(languages: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for language, found in languages.items():
        for name, value in {**found, **found["meaning"]}.items():
            if name not in ("meaning", "answers"):
                yield language, name, value


def _contamination(found: Mapping[str, Any]) -> Iterator[str]:
    if found["mode"] == "off":
        yield "Not looked for (`--contamination off`)."
        return
    if found["share"] is None:
        yield f"What this was trained on is not known: {', '.join(found['not_known'])}."
        return
    yield f"{figure(found['share'])} of the requests are in {found['rows']} rows of the training data."
    yield f"Trained on: {', '.join(found['trained_on'])}."
    if found["not_known"]:
        yield f"Not known: {', '.join(found['not_known'])}."
    if found["excluded_tasks"]:
        yield f"Not scored: {', '.join(found['excluded_tasks'])}."
    for name, evidence in found["found"].items():
        yield f"- {name}: {evidence[0]['measure']} {evidence[0]['score']} with {evidence[0]['where']}"


def _examples(failures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    shown: dict[str, int] = {}
    for row in failures:
        shown[row["reason"]] = shown.get(row["reason"], 0) + 1
        if shown[row["reason"]] > _SHOWN:
            continue
        yield from ("", f"**{row['reason']}**, {row['id']}: {_short(row['evidence'])}", "")
        yield from (
            f"- asked: {_short(row['request'])}",
            f"- answered: {_short(row['answer']) or '(nothing)'}",
        )
        yield f"- reference: {_short(row['reference'])}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _CUT else f"{line[: _CUT - 1]}…"
