"""What the state machine keeps, what it drops and why, and how each kind of example is made."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from rule_engine import (
    LABELS,
    SEEDS,
    TARGETS,
    Scripted,
    assert_books_balance,
    begin,
    candidate_of,
    drive,
    mixed,
    one_line_prompts,
)

from pipeline.dedup.encoder import NoEncoder
from pipeline.records import Example
from pipeline.selfinstruct import Options
from pipeline.stages import setup
from pipeline.stages.flow import SelfInstruct
from pipeline.stages.state import job_state, restore_job
from pipeline.stages.summary import drop_table, funnel


def test_both_languages_reach_their_targets_exactly_and_the_books_balance() -> None:
    made = mixed()[0]
    assert Counter(e.language for e in made.kept) == TARGETS
    assert {p.language: p.kept for p in made.job.pools} == TARGETS
    assert_books_balance(made)


def test_every_drop_has_a_stage_a_reason_and_evidence() -> None:
    made = drive(Scripted(bad=0.4, failing=0.1), wanted={"en": 40, "zh": 40})
    for row in made.dropped:
        assert row["stage"] and row["reason"] and row["evidence"].strip(), row
        assert row["unit"] == "request" or row["instruction"], row
    stages = {(row["stage"], row["reason"]) for row in made.dropped}
    assert stages >= {
        ("parse", "repeated_item"),
        ("parse", "cut_off"),
        ("screen", "too_short"),
        ("screen", "unsuited_keyword"),
        ("dedup", "near_duplicate"),
        ("classify", "implausible"),
        ("classify", "engine_error"),
        ("labels", "no_labels"),
        ("instantiate", "truncated_input"),
        ("instantiate", "empty_input"),
        ("answer", "engine_error"),
        ("validate", "truncated"),
        ("validate", "refusal"),
        ("validate", "missing_input"),
        ("validate", "no_instance_kept"),
    }


class Numbered(NoEncoder):
    """Reads every language; a text's vector is drawn by its digest, so that nearly all differ."""

    def __init__(self) -> None:
        self.calls = 0

    def covers(self, language: str) -> bool:
        return True

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        drawn = [np.random.default_rng(list(text.encode())).random(8) for text in texts]
        return np.stack([v / np.linalg.norm(v) for v in drawn]).astype(np.float32)


MEANING = {"embedding_threshold": 0.98, "min_relevance": 0.6}


def test_what_is_compared_by_meaning_is_encoded_together_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together, apart = Numbered(), Numbered()
    made = drive(Scripted(bad=0.2), encoder=together, **MEANING)
    monkeypatch.setattr(SelfInstruct, "prepare", lambda self, first, responses: None)
    again = drive(Scripted(bad=0.2), encoder=apart, **MEANING)
    assert made.lines == again.lines
    assert {"same_meaning", "off_topic"} <= set(made.reasons)
    assert together.calls < 0.75 * apart.calls


def test_a_job_that_was_saved_and_restored_has_admitted_the_same() -> None:
    made = drive(encoder=Numbered(), **MEANING)
    restored = begin(Scripted(), encoder=Numbered(), **MEANING)[0]
    restore_job(restored, *job_state(made.job))
    for mine, theirs in zip(restored.pools, made.job.pools, strict=True):
        assert (mine.rouge.keys, mine.rouge.texts) == (theirs.rouge.keys, theirs.rouge.texts)
        assert mine.embedding.keys == theirs.embedding.keys == mine.rouge.keys
        assert mine.embedding.texts == theirs.embedding.texts
        np.testing.assert_array_equal(mine.embedding.vectors, theirs.embedding.vectors)
        assert mine.machine.items == theirs.machine.items
        text = theirs.rouge.texts[-1]
        assert mine.rouge.most_similar(text, 3) == theirs.rouge.most_similar(text, 3)


def test_the_first_verb_outweighs_a_small_models_likelihoods() -> None:
    class Misled(Scripted):
        """Takes open tasks for classification and the other way round."""

        @staticmethod
        def scores(stage: str, language: str, values: list[str], bad: bool) -> tuple[float, ...]:
            return Scripted.scores(stage, language, values, bad)[::-1]

    made = drive(Misled(), wanted={"en": 20, "zh": 10})
    told = [e for e in made.kept if e.instruction.startswith(("Explain", "Compare", "请解释"))]
    assert {e.language for e in told} == {"en", "zh"}
    assert not any(e.is_classification for e in told)


@pytest.mark.parametrize(
    ("options", "limit"), [({}, 30), ({"model": "x"}, math.inf), ({"model": "x", "max_surprisal": 9.5}, 9.5)]
)
def test_only_the_embedded_model_has_a_limit_of_its_own_on_surprisal(
    options: dict[str, Any], limit: float
) -> None:
    found = setup.plan(Options(**options), model="m", can_score=True, has_chat=True)
    assert found.max_surprisal == limit


def test_instructions_over_the_limit_on_surprisal_are_dropped() -> None:
    made = drive(Scripted(), wanted={"en": 10}, max_surprisal=4.9, max_proposals=20)  # the likelier list: 5
    assert not made.kept
    assert {d["evidence"] for d in made.dropped if d["reason"] == "implausible"} == {
        "surprisal 5.0 nats > 4.9"
    }


def test_a_near_duplicate_names_its_neighbour_which_was_admitted_before() -> None:
    made = mixed()[0]
    rows = [d for d in made.dropped if d["reason"] == "near_duplicate"]
    admitted = {s.id for seeds in SEEDS.values() for s in seeds} | {
        i for p in made.job.pools for i, _ in p.machine.items
    }
    assert rows and all(d["evidence"].split(" against ")[1].split(":")[0] in admitted for d in rows)


def test_every_kept_example_says_where_it_came_from() -> None:
    made = mixed()[0]
    seeds = {s.id for mine in SEEDS.values() for s in mine}
    machine = {i for p in made.job.pools for i, _ in p.machine.items}
    for example in made.kept:
        origin, language = example.provenance, example.language
        given = ["input"] if example.input else []
        steps = ["labels", "labelled_input"] if example.is_classification else [*given, "answer"]
        assert set(origin) == {"model", "requests", "prompts", "shown", "round", "nearest"}
        assert origin["model"] == "scripted"
        assert list(origin["requests"]) == ["propose", "classify", *steps]
        numbers = list(origin["requests"].values())
        assert numbers == sorted(set(numbers)) and numbers[-1] < made.tally.requests
        assert example.id.startswith(f"{language}-{numbers[0]:06d}-")
        kind = (
            "propose_classification" if f"{language}/propose_c" in origin["prompts"]["propose"] else "propose"
        )
        files = {"propose": kind, "classify": "classify_list"}
        for stage, stamp in origin["prompts"].items():
            style = made.job.plan.answer_style if stage == "answer" else made.job.plan.style
            prompt = one_line_prompts().get(language, files.get(stage, stage), style)
            assert stamp == f"{prompt.name}@{prompt.digest}"
        assert list(origin["prompts"]) == ["propose", "classify", *steps]
        assert len(origin["shown"]) == 8 and set(origin["shown"]) <= seeds | machine
        assert 0 <= origin["nearest"]["rouge"]["score"] <= 0.7
        assert origin["nearest"]["rouge"]["id"] in seeds | machine
        assert example.instruction and example.output


def test_six_seeds_and_two_machine_written_instructions_are_shown_once_there_are_some() -> None:
    made = drive(Scripted(batch_size=1, groups_in_flight=1), classification_frac=0, prompt_reuse=1)
    shown = [e.provenance["shown"] for e in made.kept]
    machine = {i for p in made.job.pools for i, _ in p.machine.items}
    counts = [sum(i in machine for i in ids) for ids in shown]
    assert counts[0] == 0 and 2 in counts and set(counts) <= {0, 1, 2}


def test_classification_tasks_are_made_output_first_with_one_example_per_label() -> None:
    made = drive(classification_frac=1)
    tasks: dict[str, list[Example]] = defaultdict(list)
    for example in made.kept:
        if example.is_classification:
            tasks[candidate_of(example.id)].append(example)
    unfinished = {candidate_of(d["id"]) for d in made.dropped if d["unit"] == "instance"}
    assert {e.language for found in tasks.values() for e in found} == {"en", "zh"}
    for key, found in tasks.items():
        labels = LABELS[found[0].language]
        assert [e.output for e in found] == list(labels if key not in unfinished else labels[: len(found)])
        assert len({e.input for e in found}) == len(found) and all(e.input for e in found)
    asked = [a for a in made.engine.asked if a[0] in ("labels", "labelled_input", "answer", "input")]
    for found in tasks.values():
        about = [a for a in asked if a[2] == found[0].instruction]
        # the label is in the request for the input, and no answer is ever asked for
        assert [a[0] for a in about[:2]] == ["labels", "labelled_input"]
        assert {a[0] for a in about} == {"labels", "labelled_input"}
        assert {a[3] for a in about[1:]} <= set(LABELS[about[0][1]])


def test_the_number_of_labels_that_get_an_input_is_limited() -> None:
    made = drive(classification_frac=1, max_labels=1)
    outputs = {e.output for e in made.kept if e.is_classification}
    assert outputs == {LABELS["en"][0], LABELS["zh"][0]}


def test_open_tasks_get_an_input_only_where_they_point_at_one() -> None:
    made = drive(classification_frac=0)
    assert not any(e.is_classification for e in made.kept)
    for example in made.kept:
        points = "following" in example.instruction or "下面" in example.instruction
        assert bool(example.input) == points
        # request numbers: an input is asked for before the answer
        assert ("input" in example.provenance["requests"]) == points
    assert {bool(e.input) for e in made.kept} == {True, False}


def test_with_the_model_deciding_an_input_is_asked_for_every_open_task() -> None:
    made = drive(classification_frac=0, input_decision="model")
    assert all({"input", "answer"} <= set(e.provenance["requests"]) for e in made.kept)


def test_several_instances_of_a_task_have_different_inputs() -> None:
    made = drive(num_instances=3, classification_frac=0)
    tasks: dict[str, list[Example]] = defaultdict(list)
    for example in made.kept:
        tasks[candidate_of(example.id)].append(example)
    assert max(len(found) for found in tasks.values()) == 3
    for found in tasks.values():
        assert len({e.instruction for e in found}) == 1 and len({e.input for e in found}) == len(found)
        assert len(found) == 1 or all(e.input for e in found)
    # without an input there is but one instance: the others answer the same question again
    again = [d for d in made.dropped if d["reason"] in ("conflicting_output", "duplicate_instance")]
    assert again and all(d["input"] == "" and d["stage"] == "validate" for d in again)
    assert_books_balance(made)


@pytest.mark.parametrize("can_score", [True, False])
def test_the_judge_keeps_what_scores_enough(can_score: bool) -> None:
    made = drive(Scripted(can_score=can_score, bad=0.3), min_judge_score=3.5)
    assert Counter(e.language for e in made.kept) == TARGETS
    for example in made.kept:
        # weights 1 : 1 : 1 : e^8 : e^8 give (6 + 9 e^8) / (3 + 2 e^8) = 4.499
        assert example.scores == {"judge": 4.499 if can_score else 4.0}
    judged = [d for d in made.dropped if d["stage"] == "judge" and d["reason"] != "not_needed"]
    evidence = ("low_judge_score", "score 3.0 < 3.5") if can_score else ("no_judge_score", "good")
    assert judged and {(d["reason"], d["evidence"]) for d in judged} == {evidence}
    assert_books_balance(made)


def test_without_a_judge_nothing_is_scored() -> None:
    assert all(e.scores == {} for e in mixed()[0].kept)
    assert not any(a[0] == "judge" for a in mixed()[0].engine.asked)


def test_the_tables_of_the_report_add_up() -> None:
    job = mixed()[0].job
    counts, table = funnel(job), drop_table(job)
    assert counts["proposed"] == job.candidates.opened == next(iter(table.values()))["seen"]
    assert counts["proposed"] >= counts["screened"] >= counts["unique"] == table["dedup"]["kept"]
    assert counts["kept"] == len(mixed()[0].kept) == list(table.values())[-1]["kept"]
    for row in table.values():
        assert row["seen"] == row["kept"] + sum(row["dropped"].values()) and row["kept"] >= 0
