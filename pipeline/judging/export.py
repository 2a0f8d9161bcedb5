"""What the run leaves for others: pairs in TRL's types and other shapes, best answers, prompts to verify."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.judging.answers import Answer
from pipeline.judging.flow import Case
from pipeline.judging.pairs import Pair
from pipeline.judging.scores import deciding
from pipeline.records import to_json
from pipeline.rundir import RunDir

_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}


def write(
    target: RunDir, cases: Sequence[Case], pairs: Sequence[Pair], judges: Sequence[str], least: float
) -> None:
    """Write answers.jsonl, preferences.jsonl, best_of_n.jsonl and prompts.jsonl.

    `least` is the score that the best answer must have. Raises PipelineError if the disk refuses.
    """
    target.write("answers.jsonl", _lines(map(_case, cases)))
    target.write("preferences.jsonl", _lines(map(_preference, pairs)))
    best = [(case, *found) for case in cases if (found := _best(case, judges, least))]
    target.write("best_of_n.jsonl", _lines(_example(*row) for row in best))
    rows = ({**_prompt(case), **_apart(case, judges)} for case in cases)
    target.write("prompts.jsonl", _lines(rows))


def export(target: RunDir, pairs: Sequence[Pair], shapes: Sequence[str]) -> None:
    """Write the pairs in further shapes: export/kto.jsonl, ultrafeedback.jsonl, sharegpt.json."""
    folder = RunDir(target.path / "export")
    if shapes:
        folder.path.mkdir(exist_ok=True)
    if "kto" in shapes:  # TRL's unpaired preferences
        rows = [(pair.case, pair.chosen, True) for pair in pairs]
        rows += [(pair.case, pair.rejected, False) for pair in pairs]
        folder.write("kto.jsonl", _lines(map(_unpaired, rows)))
    if "ultrafeedback" in shapes:
        folder.write("ultrafeedback.jsonl", _lines(map(_ultrafeedback, pairs)))
    if "sharegpt" in shapes:
        text = json.dumps([_sharegpt(pair) for pair in pairs], ensure_ascii=False, indent=1)
        folder.write("sharegpt.json", text + "\n")


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(to_json(row) + "\n" for row in rows)


def _messages(case: Case) -> list[dict[str, str]]:
    return [dict(message) for message in case.prompt.messages]


def _said(answer: Answer) -> dict[str, str]:
    return {"role": "assistant", "content": answer.text}


def _preference(pair: Pair) -> dict[str, Any]:
    """TRL's preference type with an explicit prompt, conversational; scores and provenance beside it."""
    case, chosen, rejected = pair.case, pair.chosen, pair.rejected
    return {
        "id": f"{chosen.id}>{rejected.id.rsplit('/', 1)[-1]}",
        "prompt": _messages(case),
        "chosen": [_said(chosen)],
        "rejected": [_said(rejected)],
        "score_chosen": chosen.scores[pair.judge],
        "score_rejected": rejected.scores[pair.judge],
        "language": case.prompt.language,
        "provenance": {
            "judge": pair.judge,
            "models": [chosen.model, rejected.model],
            "requests": [chosen.request, rejected.request],
            "scores": [chosen.scores, rejected.scores],
            "lengths": list(pair.lengths),
        },
    }


def _case(case: Case) -> dict[str, Any]:
    """All that is known of a prompt; a person may add a `rank` to each answer and give the file back."""
    rows = [
        {
            "text": a.text,
            "model": a.model,
            "temperature": a.temperature,
            "request": a.request,
            "refused": a.refused,
            "scores": a.scores,
            "checks": a.checks,
        }
        for a in case.answers
    ]
    said = [
        {
            "answers": list(pair),
            "verdicts": [c.straight, c.exchanged],
            "winner": c.winner,
            "flipped": c.flipped,
        }
        for pair, c in sorted(case.comparisons.items())
    ]
    return {**_prompt(case), "answers": rows, "comparisons": said}


def _prompt(case: Case) -> dict[str, Any]:
    """TRL's prompt-only type, with the verifier."""
    prompt = case.prompt
    found: dict[str, Any] = {"id": prompt.id, "prompt": _messages(case), "language": prompt.language}
    return {**found, "verifier": prompt.verifier} if prompt.verifier else found


def _apart(case: Case, judges: Sequence[str]) -> dict[str, float]:
    """How far the scores of the judge who decides on this prompt lie apart; nothing where none scored two."""
    judge = _judge(case, judges, fewest=2)
    scores = [answer.scores[judge] for answer in case.answers if judge in answer.scores]
    return {"score_std": round(statistics.pstdev(scores), 4)} if scores else {}


def _judge(case: Case, judges: Sequence[str], fewest: int) -> str:
    """The judge who decides, else the first one who scored at least so many answers, else ""."""
    able = (judge for judge in judges if sum(judge in a.scores for a in case.answers) >= fewest)
    return deciding(case, judges) or next(able, "")


def _best(case: Case, judges: Sequence[str], least: float) -> tuple[Answer, str] | None:
    """The best answer that is no refusal by the first judge who scores any, and that judge."""
    judge = _judge(case, judges, fewest=1)
    scored = [a for a in case.answers if judge in a.scores and not a.refused]
    best = max(scored, key=lambda answer: answer.scores[judge], default=None)
    return (best, judge) if best and best.scores[judge] >= least else None


def _example(case: Case, answer: Answer, judge: str) -> dict[str, Any]:
    talk = [*_messages(case), _said(answer)]
    facts = {"judge": judge, "model": answer.model, "request": answer.request, "answers": len(case.answers)}
    return {"id": answer.id, "messages": talk, "score": answer.scores[judge], "provenance": facts}


def _unpaired(row: tuple[Case, Answer, bool]) -> dict[str, Any]:
    case, answer, good = row
    return {"prompt": _messages(case), "completion": [_said(answer)], "label": good}


def _ultrafeedback(pair: Pair) -> dict[str, Any]:
    """The shape of the binarised UltraFeedback: whole conversations on both sides."""
    asked = _messages(pair.case)
    return {
        "prompt": pair.case.prompt.request,
        "prompt_id": pair.case.prompt.id,
        "chosen": [*asked, _said(pair.chosen)],
        "rejected": [*asked, _said(pair.rejected)],
        "score_chosen": pair.chosen.scores[pair.judge],
        "score_rejected": pair.rejected.scores[pair.judge],
    }


def _sharegpt(pair: Pair) -> dict[str, Any]:
    """The shape of LLaMA-Factory's preference data."""
    turns = [{"from": _ROLES[m["role"]], "value": m["content"]} for m in pair.case.prompt.messages]
    chosen, rejected = pair.chosen.text, pair.rejected.text
    return {
        "conversations": turns,
        "chosen": {"from": "gpt", "value": chosen},
        "rejected": {"from": "gpt", "value": rejected},
    }
