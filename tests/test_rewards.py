"""Rewards: how they are named, what each measures in English and Chinese, and what becomes of no score."""

from __future__ import annotations

import math
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub import StubEngine

from pipeline.engines.base import Request, Response
from pipeline.engines.budget import Budget, BudgetedEngine
from pipeline.engines.options import EngineOptions
from pipeline.errors import EXIT_PAUSED, PipelineError, Stopped
from pipeline.train import judge_reward
from pipeline.train.judge_reward import ModelJudge
from pipeline.train.reward_terms import repetition, too_long, too_short
from pipeline.train.rewards import (
    EXCLUDE,
    KINDS,
    Rewards,
    Row,
    Scored,
    Term,
    applies,
    check_rewards,
    exclusions,
    parse_rewards,
)

SHORT = {"id": "length_constraints:number_words", "relation": "at most", "num_words": 3}
NO_COMMA = {"id": "punctuation:no_comma"}
BOTH = {"kind": "constraints", "checks": [SHORT, NO_COMMA]}
MATH = {"kind": "math", "answer": "42"}
CODE = {"kind": "code", "tests": "assert f(2) == 4"}
ENGLISH = "The river runs slowly past the old mill and then turns north towards the sea."
CHINESE = "河水缓缓流过老磨坊，然后转向北方，一直流到大海。"


def row(answer: str, asked: str = "Describe a river.", name: str = "p1", **more: Any) -> Row:
    return Row(name, [{"role": "user", "content": asked}], answer, **more)


def score(words: str | list[str], *rows: Row, **more: Any) -> list[Scored]:
    terms = parse_rewards([words] if isinstance(words, str) else words)
    with Rewards(terms, **more) as rewards:
        return rewards.score(rows)


def totals(words: str | list[str], *rows: Row, **more: Any) -> list[float | None]:
    return [one.total for one in score(words, *rows, **more)]


# ---- the words behind --reward ----


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("constraints", Term("constraints", "", 1.0, "constraints")),
        ("constraints:0.5", Term("constraints", "", 0.5, "constraints")),
        ("repetition:-2", Term("repetition", "", -2.0, "repetition")),
        ("length=080:1e-1", Term("length", "80", 0.1, "length")),
        ("reward_model=runs/reward-001:0.5", Term("reward_model", "runs/reward-001", 0.5, "reward_model")),
        ("reward_model=owner/name", Term("reward_model", "owner/name", 1.0, "reward_model")),
        (r"reward_model=C:\runs\r", Term("reward_model", r"C:\runs\r", 1.0, "reward_model")),
        (r"reward_model=C:\runs\r:.5", Term("reward_model", r"C:\runs\r", 0.5, "reward_model")),
        ("judge", Term("judge", "", 1.0, "judge")),
        ("judge:3", Term("judge", "", 3.0, "judge")),
        ("judge=owner/name:0.3", Term("judge", "owner/name", 0.3, "judge")),
        (r"format=\d+:\d+", Term("format", r"\d+:\d+", 1.0, "format")),
        ("format=(?s:a=b):2", Term("format", "(?s:a=b)", 2.0, "format")),
        ("my_module:my_function", Term("function", "my_module:my_function", 1.0, "my_module:my_function")),
        ("a.b:C.d:+.2", Term("function", "a.b:C.d", 0.2, "a.b:C.d")),
    ],
)
def test_a_word_is_a_name_an_argument_and_a_weight(word: str, expected: Term) -> None:
    assert parse_rewards([word]) == (expected,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--reward: got none"),
        (["constraint:1"], "--reward constraint:1: unknown reward 'constraint'. Did you mean 'constraints'"),
        (["reward-model=x"], "Did you mean 'reward_model'"),
        (["lenght=80"], "Did you mean 'length'"),
        (["completely/else"], "unknown reward 'completely/else'. See --help"),
        (["length"], "--reward length: no N, expected one. Write length=N."),
        (["length:80"], "no N, expected one"),
        (["length=:80"], "no N, expected one"),
        (["length=many"], "got 'many', expected a whole number of words, 1 or more"),
        (["length=0"], "got '0', expected"),
        (["length=-3"], "got '-3', expected"),
        (["length=８"], "got '８', expected"),
        (["min_length=2.5"], "got '2.5', expected"),
        (["reward_model"], "no MODEL, expected one. Write reward_model=MODEL."),
        (["reward_model=:1"], "no MODEL, expected one"),
        (["judge="], "no MODEL, expected one. Write judge=MODEL."),
        (["format=("], "'(' is no regular expression"),
        (["constraints=3"], "got '=3', expected no argument. Write constraints:WEIGHT."),
        (["constraints="], "got '=', expected no argument"),
        (["constraints:0"], "the weight is 0, expected a number other than 0"),
        (["constraints:nan"], "the weight is nan"),
        (["constraints:-inf"], "the weight is -inf"),
        (["constraints:1e999"], "the weight is 1e999"),
        (["constraints:much"], "got ':much' behind the name, expected a weight"),
        (["length:80=0.1"], "got ':80=0.1' behind the name, expected a weight"),
        (["math", "math:2"], "--reward math: it is there twice. Add up the weights."),
        (["length=80", "length=080:2"], "--reward length=80: it is there twice"),
        (["m:f", "m:f:2"], "--reward m:f: it is there twice"),
    ],
)
def test_a_word_that_will_not_do_is_refused_with_a_hint(words: list[str], message: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(message)):
        parse_rewards(words)


def test_terms_of_one_name_are_told_apart_by_their_arguments() -> None:
    terms = parse_rewards(["judge", "judge=a/b", "reward_model=x", "length=5", "length=9:2"])
    assert [t.label for t in terms] == ["judge", "judge=a/b", "reward_model", "length=5", "length=9"]


@given(
    st.sampled_from(sorted(KINDS)),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1),
    st.floats(allow_nan=False, allow_infinity=False).filter(bool),
)
def test_what_is_written_is_read_back_whatever_the_argument_holds(
    name: str, text: str, weight: float
) -> None:
    wanted = KINDS[name][0]
    argument = {"": "", "N": "7", "REGEX": re.escape(text)}.get(wanted, text)
    (term,) = parse_rewards([f"{name}{'=' * bool(wanted)}{argument}:{weight!r}"])
    assert (term.name, term.argument, term.weight) == (name, argument, weight)


@given(st.text())
def test_any_word_is_read_or_refused_by_our_own_error(word: str) -> None:
    try:
        (term,) = parse_rewards([word])
    except PipelineError:
        return
    assert math.isfinite(term.weight) and term.weight and term.label


# ---- terms ----


@pytest.mark.parametrize(
    ("word", "verifier", "answers", "expected"),
    [
        ("constraints", BOTH, ["one two", "one, two", "a, b, c, d"], [1.0, 0.5, 0.0]),
        ("constraints", BOTH, ["河水慢", "河，慢", "河水，缓缓流"], [1.0, 0.5, 0.0]),
        ("checks", BOTH, ["one, two"], [0.5]),
        ("all_checks", BOTH, ["one two", "one, two"], [1.0, 0.0]),
        ("math", MATH, ["6 * 7 = 42", "It is 41.", "答案是42。"], [1.0, 0.0, 1.0]),
        ("checks", MATH, ["It is 42."], [1.0]),
        ("code", CODE, ["def f(x):\n    return x * x", "def f(x):\n    return x"], [1.0, 0.0]),
        ("code", CODE, ["好的：\n```python\ndef f(x):\n    return x * x\n```"], [1.0]),
    ],
)
def test_checks_score_what_an_answer_passes(
    word: str, verifier: dict[str, Any], answers: list[str], expected: list[float]
) -> None:
    assert totals(word, *(row(answer, verifier=verifier) for answer in answers)) == expected


def test_the_same_answer_to_the_same_checks_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.train import reward_terms
    from pipeline.verify.verifier import Verified, Verifier, verify

    seen: list[str] = []

    def watched(verifier: Verifier, answer: str) -> Verified:
        seen.append(answer)
        return verify(verifier, answer)

    monkeypatch.setattr(reward_terms, "verify", watched)
    same = [row("one", verifier=BOTH), row("one", verifier=BOTH), row("two", verifier=BOTH)]
    with Rewards(parse_rewards(["constraints", "all_checks"])) as rewards:
        rewards.score(same)
        assert sorted(seen) == ["one", "two"]
        rewards.score(same[:1])
        assert sorted(seen) == ["one", "one", "two"]  # nothing is kept from step to step


def test_a_term_that_does_not_apply_to_a_prompt_adds_nothing_to_its_answers() -> None:
    found = score(["math:2", "length=2"], row("It is 42", verifier=MATH), row("It is 42", verifier=BOTH))
    assert [one.parts for one in found] == [{"math": 1.0, "length": -0.5}, {"length": -0.5}]
    assert [one.total for one in found] == [1.5, -0.5]


def test_an_answer_to_which_no_term_applies_is_excluded() -> None:
    (one,) = score("math", row("It is 42"))
    assert (one.total, one.parts, one.excluded) == (None, {}, "no_reward")


def test_format_wants_the_whole_answer_line_ends_included() -> None:
    answers = ["<think>a\nb</think>\n7", " <think></think>7\n", "so <think>a</think>7", "<think>甲</think>是"]
    rows = [row(answer) for answer in answers]
    assert totals("format=<think>.*</think>.+", *rows) == [1.0, 1.0, 0.0, 1.0]


def test_repetition_is_minus_the_share_of_runs_said_before() -> None:
    # ten words: 8 runs of three, "a b c d e" again: of the runs abc bcd cde dea eab | abc bcd cde 3 are old
    assert repetition("a b c d e a b c d e") == -3 / 8
    assert totals("repetition", row("no no no no no no")) == [-3 / 4]  # 4 runs, one of them new
    assert repetition(ENGLISH) == repetition(CHINESE) == repetition("") == repetition("one two") == 0.0
    assert repetition("我们去公园，" * 10) < -0.8
    assert repetition("река течёт быстро " * 10) < -0.8  # other scripts have words, too


@given(st.text(), st.integers(1, 8))
def test_repetition_lies_between_minus_one_and_nought_and_grows_with_copies(text: str, times: int) -> None:
    assert -1 <= repetition(f"{text} " * (times + 1)) <= repetition(f"{text} " * times) <= 0


@pytest.mark.parametrize("unit", ["word ", "字"])
def test_length_counts_words_in_english_and_characters_in_chinese(unit: str) -> None:
    rows = [row(unit * count) for count in (0, 4, 5, 6, 8, 12)]
    assert totals("length=4", *rows) == [0.0, 0.0, -0.25, -0.5, -1.0, -1.0]
    assert totals("min_length=4", *rows) == [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert totals("min_length=8", *rows) == [-1.0, -0.5, -0.375, -0.25, 0.0, 0.0]


@given(st.integers(0, 60), st.integers(1, 30))
def test_length_penalties_stay_within_bounds_and_never_both_hold(count: int, limit: int) -> None:
    long, short = too_long("x " * count, limit), too_short("x " * count, limit)
    assert -1 <= long <= 0 and -1 <= short <= 0 and (long == 0 or short == 0)
    assert math.copysign(1, long) == (1 if long == 0 else -1)  # no -0.0 in the metrics


def test_the_answer_is_to_be_in_the_language_of_its_prompt_or_the_one_asked_for() -> None:
    zh = {"asked": "描述一条河。", "language": "zh"}
    rows = [row(ENGLISH), row(CHINESE), row(CHINESE, **zh), row(ENGLISH, **zh)]
    assert totals("language", *rows) == [0.0, -1.0, 0.0, -1.0]
    asked = "Translate this sentence into Chinese: the river runs slowly past the mill."
    assert totals("language", row(CHINESE, asked), row(ENGLISH, asked)) == [0.0, -1.0]
    (unclear,) = score("language", row("je suis", "Conjugate a French verb."))
    assert unclear.excluded == "no_reward"  # it may be quoted, or answered in


@given(st.sampled_from(sorted(KINDS)), st.sampled_from([None, BOTH, MATH, CODE]), st.text(), st.text())
def test_whether_a_term_applies_is_the_same_for_all_answers(
    name: str, verifier: dict[str, Any] | None, one: str, other: str
) -> None:
    term = Term(name, "3", label=name)
    assert applies(term, row(one, verifier=verifier)) == applies(term, row(other, verifier=verifier))


# ---- functions ----


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the module `mine`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> None:
        monkeypatch.delitem(__import__("sys").modules, "mine", raising=False)
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        __import__("importlib").invalidate_caches()

    return write


Module = Callable[[str], None]


def test_a_function_gets_prompts_answers_and_columns(module: Module) -> None:
    module(
        "def f(prompts, answers, **columns):\n"
        "    assert prompts[0] == [{'role': 'user', 'content': 'Describe a river.'}]\n"
        "    assert columns['id'] == ['p1', 'p2'] and columns['language'] == ['en', 'zh']\n"
        "    assert columns['cut'] == [False, True] and columns['verifier'][1]['kind'] == 'math'\n"
        "    assert columns['source'] == ['wiki', None]\n"
        "    return [len(answer) for answer in answers]\n"
        "def g(prompts, answers, cut):\n"
        "    return [not c for c in cut]\n"
        "class C:\n"
        "    @staticmethod\n"
        "    def h(prompts, answers):\n"
        "        return [0.5] * len(answers)\n"
    )
    rows = [row("abc", columns={"source": "wiki"})]
    rows.append(row("河", name="p2", language="zh", cut=True, verifier=MATH))
    found = score(["mine:f", "mine:g:10", "mine:C.h:-1"], *rows)
    assert [one.total for one in found] == [12.5, 0.5]
    assert found[1].parts == {"mine:f": 1.0, "mine:g": 0.0, "mine:C.h": 0.5}


def test_tensors_and_arrays_are_numbers_too(module: Module) -> None:
    module("import numpy\ndef f(prompts, answers):\n    return numpy.arange(len(answers), dtype='float32')\n")
    assert totals("mine:f", row("a"), row("b")) == [0.0, 1.0]


@pytest.mark.parametrize("value", ["None", "float('nan')", "float('inf')"])
def test_an_answer_that_a_function_cannot_score_is_excluded_and_never_zero(
    module: Module, value: str
) -> None:
    module(f"def f(prompts, answers):\n    return [{value} if a == '坏' else 1 for a in answers]\n")
    good, bad = score(["mine:f", "length=1"], row("ok"), row("坏"))
    assert (good.total, bad.total, bad.excluded) == (1.0, None, "mine:f: no_score")
    assert bad.parts == {"mine:f": None, "length": 0.0} and "it gave" in bad.evidence


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1]", "reward mine:f: it gave 1 numbers for 2 answers, expected|it gave 1 numbers for 2"),
        ("return None", "it gave NoneType, expected a list of numbers"),
        ("return 'ab'", "it gave str, expected a list"),
        ("return {'a': 1, 'b': 2}", "it gave dict, expected a list"),
        ("return ['1', '2']", "it gave '1' for the answer to p1, expected a number or None"),
    ],
)
@pytest.mark.parametrize("on_error", ["stop", EXCLUDE])
def test_what_is_no_list_of_numbers_is_refused_whatever_becomes_of_errors(
    module: Module, body: str, message: str, on_error: str
) -> None:
    module(f"def f(prompts, answers):\n    {body}\n")
    with pytest.raises(PipelineError, match=message):
        score("mine:f", row("a"), row("b"), on_error=on_error)


@pytest.mark.parametrize(
    ("text", "word", "message"),
    [
        ("", "no_such_module:f", r"module 'no_such_module' cannot be imported \(ModuleNotFoundError"),
        ("1 / 0", "mine:f", r"module 'mine' cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("def (", "mine:f", r"cannot be imported \(SyntaxError"),
        ("def g(p, a):\n    return []", "mine:f", r"module 'mine' has no 'f' \(has: g\)"),
        ("f = 3", "mine:f", "it is int, expected a function"),
    ],
)
def test_a_function_that_is_not_there_is_refused_at_once(
    module: Module, text: str, word: str, message: str
) -> None:
    module(text)
    terms = parse_rewards([word])
    with pytest.raises(PipelineError, match=message):
        Rewards(terms)
    with pytest.raises(PipelineError, match=message):
        check_rewards(terms, [])


FRAGILE = """
calls = []
def f(prompts, answers):
    calls.append(len(answers))
    if '坏' in answers:
        raise ValueError('I do not like it')
    return [1] * len(answers)
"""


def test_an_exception_names_the_term_and_the_sample(module: Module) -> None:
    module(FRAGILE.replace("'坏' in answers", "any(a.startswith('坏') for a in answers)"))
    rows = [row("a"), row("坏 " + "x" * 200, name="p2"), row("b")]
    with pytest.raises(PipelineError) as caught:
        score("mine:f", *rows)
    said = str(caught.value)
    assert said.startswith("reward mine:f: ValueError: I do not like it; the answer to p2 was: 坏 xxx")
    assert "x" * 77 + "…" in said and "x" * 78 not in said  # 80 characters of it


def test_an_exception_may_exclude_the_answers_that_raise_it(module: Module) -> None:
    module(FRAGILE)
    found = score(["mine:f", "length=1"], row("a"), row("坏"), row("b"), row("坏"), on_error=EXCLUDE)
    assert [one.total for one in found] == [1.0, None, 1.0, None]
    assert found[1].excluded == "mine:f: error" and found[1].evidence == "ValueError: I do not like it"
    assert exclusions(found) == {"mine:f: error": 2}
    import mine

    assert mine.calls == [4, 1, 1, 1, 1, 2]  # those that are left are asked for together


def test_an_exception_that_no_answer_alone_raises_is_laid_to_all(module: Module) -> None:
    module("def f(prompts, answers):\n    assert len(answers) < 2\n    return [1]\n")
    found = score("mine:f", row("a"), row("b"), on_error=EXCLUDE)
    assert [one.excluded for one in found] == ["mine:f: error"] * 2
    with pytest.raises(PipelineError, match="the answer to p1 was: a"):
        score("mine:f", row("a"), row("b"))


def test_a_verifier_that_cannot_be_read_is_an_error_of_its_prompt() -> None:
    bad = {"kind": "constraints", "checks": [{"id": "no:such"}]}
    rows = [row("one", verifier=BOTH), row("two", name="p7", verifier=bad)]
    with pytest.raises(PipelineError, match="reward checks: p7: check 1.*the answer to p7 was: two"):
        score("checks", *rows)
    assert totals("checks", *rows, on_error=EXCLUDE) == [1.0, None]


def test_a_stop_passes_through(module: Module) -> None:
    module("from pipeline.errors import Stopped\ndef f(prompts, answers):\n    raise Stopped('enough')\n")
    with pytest.raises(Stopped, match="enough"):
        score("mine:f", row("a"), on_error=EXCLUDE)


# ---- reward models ----


class Lengths:
    """A reward model that likes long answers and refuses special tokens, as ours do."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def score(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[float]:
        for number, talk in enumerate(conversations):
            assert [message["role"] for message in talk] == ["user", "assistant"]
            if "<|" in talk[-1]["content"] or not talk[-1]["content"].strip():
                raise PipelineError(f"conversation {number}", "a special token", "Leave it out.")
        self.sizes.append(len(conversations))
        return [float(len(talk[-1]["content"])) for talk in conversations]


def test_a_reward_model_scores_raw_and_what_it_refuses_is_excluded() -> None:
    model, opened = Lengths(), []

    def load(name: str) -> Lengths:
        opened.append(name)
        return model

    rows = [row(text) for text in ("four", "<|im_end|>", "河水", " ", "five5", "six666")]
    found = score("reward_model=runs/reward-001:0.5", *rows, reward_model=load)
    assert [one.total for one in found] == [2.0, None, 1.0, None, 2.5, 3.0]
    assert opened == ["runs/reward-001"] and sum(model.sizes) == 4
    assert exclusions(found) == {"reward_model: no_score": 2}
    assert totals("reward_model=x", *rows[4:], reward_model=load) == [5.0, 6.0]
    assert model.sizes[-1] == 2  # one call where nothing is refused


def test_a_reward_model_that_is_not_there_is_refused_before_the_first_answer(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(PipelineError, match="no finished run of pipeline.reward"):
        Rewards(parse_rewards([f"reward_model={tmp_path}"]))


# ---- the judge ----


class Rater(StubEngine):
    """Rates by a rule; `choices` are answered by likelihoods."""

    def __init__(self, rule: Callable[[str], str], batch_size: int = 1, groups: int = 4) -> None:
        self.rule, self.batch_size, self.groups_in_flight = rule, batch_size, groups
        self.asked: list[Request] = []
        self.groups: list[int] = []
        self.closed = False

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        self.asked += requests
        self.groups.append(len(requests))
        return [self._respond(request) for request in requests]

    async def close(self) -> None:
        self.closed = True

    def _respond(self, request: Request) -> Response:
        said = self.rule(request.prompt)
        if said == "fails":
            raise ConnectionError("the line is dead")
        if not request.choices:
            return Response(said, "stop", 10, 1)
        return Response("", "score", 10, 0, tuple(0.0 if str(d) == said else -900.0 for d in range(1, 6)))


def rated(prompt: str) -> str:
    """5 for a good answer, 3 for others, nothing readable for silent ones."""
    if "silent" in prompt or "沉默" in prompt:
        return "hm"
    return "5" if "good" in prompt or "很好" in prompt else "3"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Rater]:
    """Puts an engine in place of the one that the options ask for."""

    def put(engine: Rater, limits: Budget | None = None) -> Rater:
        @asynccontextmanager
        async def opened(options: EngineOptions, folder: Path) -> AsyncIterator[BudgetedEngine]:
            engine.model = options.model or "own"
            yield BudgetedEngine(engine, limits or Budget())
            await engine.close()

        monkeypatch.setattr(judge_reward, "open_engine", opened)
        monkeypatch.setattr(judge_reward, "check_engine", lambda options: None)
        return engine

    return put


Served = Callable[..., Rater]
SAID = ["a good one", "so so", "silent", "很好的回答", "沉默"]


@pytest.mark.parametrize("likelihoods", [False, True])
def test_a_judge_rates_from_nought_to_one_and_what_cannot_be_read_is_excluded(
    served: Served, likelihoods: bool
) -> None:
    engine = served(Rater(rated))
    engine.can_score = likelihoods
    rows = [row(said) for said in SAID[:3]]
    rows += [row(said, "描述一条河。", language="zh") for said in SAID[3:]]
    found = score("judge", *rows)
    expected = [1.0, 0.5, None, 1.0, None]
    if likelihoods:  # "hm" is none of the five digits: all are as unlikely, and the middle is their mean
        expected = [1.0, 0.5, 0.5, 1.0, 0.5]
    assert [one.total for one in found] == expected
    assert engine.closed and {request.role for request in engine.asked} == {"judge"}
    assert sum("Request: Describe a river." in request.prompt for request in engine.asked) == 3
    assert (
        sum("描述一条河。" in request.prompt and "Rating" not in request.prompt for request in engine.asked)
        == 2
    )
    if not likelihoods:
        assert found[2].excluded == "judge: no_score"


def test_the_judge_stays_open_from_step_to_step_and_is_asked_in_groups(served: Served) -> None:
    engine = served(Rater(rated, batch_size=4))
    with Rewards(parse_rewards(["judge=owner/name"])) as rewards:
        for step in range(2):
            rows = [row(f"good {step} {number % 6}") for number in range(9)]
            assert {one.total for one in rewards.score(rows)} == {1.0}
            assert not engine.closed
    assert engine.closed and engine.model == "owner/name"
    assert engine.groups == [4, 2, 4, 2]  # six different answers at each step
    rewards.close()


def test_requests_that_fail_exclude_their_answers_until_too_many_do(served: Served) -> None:
    engine = served(Rater(lambda prompt: "fails" if "bad" in prompt else "4"))
    judge = ModelJudge()
    assert judge.score([row("bad"), row("fine")]) == [None, 0.75]
    with pytest.raises(PipelineError, match="judge own: 21 of 22 requests failed.*ConnectionError: the line"):
        judge.score([row(f"bad {number}") for number in range(20)])
    judge.close()
    judge.close()
    assert engine.closed


def test_a_used_up_budget_stops_the_run(served: Served) -> None:
    served(Rater(rated, groups=1), Budget(max_requests=3))
    with Rewards(parse_rewards(["judge"]), on_error=EXCLUDE) as rewards:
        assert [one.total for one in rewards.score([row("good"), row("other")])] == [1.0, 0.5]
        with pytest.raises(Stopped, match="Raise --max-requests and go on with --resume") as caught:
            rewards.score([row("good 1"), row("good 2")])
    assert caught.value.code == EXIT_PAUSED


def test_what_the_engine_cannot_get_past_stops_the_run_even_if_errors_exclude(served: Served) -> None:
    class Dead(Rater):
        async def generate(self, requests: Sequence[Request]) -> list[Response]:
            raise PipelineError("server", "it refuses the key", "Set another.")

    served(Dead(rated))
    with pytest.raises(PipelineError, match="server: it refuses the key"):
        score("judge", row("a"), on_error=EXCLUDE)


def test_a_judge_reads_prompts_of_one_turn_with_a_system_message_at_most(served: Served) -> None:
    engine = served(Rater(rated))
    talk = [{"role": role, "content": f"{role} says"} for role in ("system", "user", "assistant", "user")]
    judge = ModelJudge()
    assert judge.score([Row("p1", talk[:2], "good")]) == [1.0]
    assert "system says" in engine.asked[0].prompt and "user says" in engine.asked[0].prompt
    with pytest.raises(PipelineError, match="p2: the prompt has turns of system, user, assistant, user"):
        judge.score([Row("p2", talk, "good")])
    judge.close()


def test_a_judge_that_cannot_answer_in_time_or_is_not_there_is_refused() -> None:
    with pytest.raises(PipelineError, match="--batch-api: a batch file answers in hours"):
        ModelJudge(options=EngineOptions(engine="openai", model="m", batch_api=True))
    with pytest.raises(PipelineError, match="model ./nowhere: no such directory"):
        Rewards(parse_rewards(["judge=./nowhere"]))


def test_models_that_are_open_are_closed_where_another_is_not_there(served: Served) -> None:
    engine = served(Rater(rated))
    with pytest.raises(PipelineError, match="no_such"):
        Rewards(parse_rewards(["judge", "no_such:f"]))
    assert engine.closed


@pytest.mark.slow  # the embedded model loads and reads a few prompts: half a minute
def test_the_embedded_model_judges_by_likelihood() -> None:
    good = row("A river is a large stream of fresh water that flows to the sea.")
    rows = [good, row("xx xx", name="p2"), row(CHINESE, "描述一条河。", language="zh"), good]
    with Rewards(parse_rewards(["judge"])) as rewards:
        first = rewards.score(rows)
        again = rewards.score(rows)
    assert all(one.total is not None and 0 < one.total < 1 for one in first)
    assert first == again and first[0] == first[3] != first[1]


@pytest.mark.slow  # trains a small model first
def test_a_trained_reward_model_is_a_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny_llama
    import torch
    from preference_data import KIND, RUDE, pairs, write

    from pipeline.reward import main

    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    tiny_llama.save(tmp_path / "tiny")
    words = "--max-steps 24 --batch-size 2 --gradient-accumulation 1 --validation-frac 0.3 --precision fp32"
    more = "--tuning full --learning-rate 0.003 --model tiny --run out"
    assert main([*words.split(), *more.split(), write(pairs(32))]) == 0
    asked = "Say something, please (99) 说"
    rows = [row(answer, asked) for answer in (KIND[0], RUDE[0], KIND[1], "x<|im_end|>", "")]
    found = score("reward_model=out", *rows)
    kind, rude, chinese, *refused = [one.total for one in found]
    assert kind is not None and rude is not None and kind > rude and chinese is not None
    assert refused == [None, None]
    assert totals("reward_model=out", *rows[:3]) == pytest.approx([kind, rude, chinese], abs=1e-4)


# ---- all together ----


def test_the_total_is_the_weighted_sum_of_the_parts() -> None:
    words = ["constraints:2", "length=2:0.5", "repetition:-1"]
    (one,) = score(words, row("so, so so so so", verifier=BOTH))
    # no check passed; five words where two were wanted: -1; of 3 runs 2 were said before
    assert one.parts == {"constraints": 0.0, "length": -1.0, "repetition": -2 / 3}
    assert one.total == pytest.approx(-0.5 + 2 / 3) and not one.excluded


def test_the_statistics_are_over_answers_that_a_term_scored(module: Module) -> None:
    module("def f(prompts, answers):\n    return [None if a == 'a' else 4 for a in answers]\n")
    with Rewards(parse_rewards(["math", "mine:f", "code"])) as rewards:
        rows = [row("42", verifier=MATH), row("41", verifier=MATH), row("a"), row("b")]
        found = rewards.stats(rewards.score(rows))
        assert rewards.stats([]) == {"rewards/excluded": 0.0}
    # 1 and 0: mean 1/2, sample deviation sqrt(2 * 1/4 / 1)
    assert found == {
        "rewards/math/mean": 0.5,
        "rewards/math/std": pytest.approx(math.sqrt(0.5)),
        "rewards/mine:f/mean": 4.0,
        "rewards/mine:f/std": 0.0,
        "rewards/excluded": 0.25,
    }


def test_nothing_to_score_is_no_error() -> None:
    assert score(["math", "length=3"]) == []


def test_checks_that_no_prompt_has_are_refused_before_anything_is_loaded() -> None:
    check_rewards(parse_rewards(["math", "checks", "length=3"]), [None, MATH])
    with pytest.raises(PipelineError, match="--reward code: no prompt has a code verifier, expected one"):
        check_rewards(parse_rewards(["math", "code"]), [None, MATH])
    with pytest.raises(PipelineError, match="--reward all_checks: no prompt has a verifier"):
        check_rewards(parse_rewards(["all_checks"]), [None])
