"""Checks of an answer that need no model: what to check (`Verifier`), and what was found (`Verified`).

    verifier = parse({"kind": "math", "answer": "42"}, where)
    verify(verifier, "6 * 7 = 42").all_passed

Three kinds: {"kind": "constraints", "checks": [{"id": ..., its arguments}, ...]} (the table in checks.py),
{"kind": "math", "answer": ...}, and {"kind": "code", "tests": ...} with "setup" (run before the answer) and
"timeout" (seconds) if wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records import text_field
from pipeline.verify.checks import Constraint, constraint, unknown
from pipeline.verify.counting import Found

KINDS = {"constraints": ("checks",), "math": ("answer",), "code": ("tests", "setup", "timeout")}
TIMEOUT, MAX_TIMEOUT = 5.0, 600.0  # seconds


@dataclass(frozen=True)
class Verifier:
    """What an answer is checked for; `kind` says which of the other fields count. `timeout` is in seconds."""

    kind: str
    checks: tuple[Constraint, ...] = ()
    answer: str = ""
    tests: str = ""
    setup: str = ""
    timeout: float = TIMEOUT

    def as_json(self) -> dict[str, Any]:
        """The verifier as a row's `verifier` field; `parse` reads it back to an equal one."""
        if self.kind == "constraints":
            return {"kind": self.kind, "checks": [check.as_json() for check in self.checks]}
        if self.kind == "math":
            return {"kind": self.kind, "answer": self.answer}
        setup = {"setup": self.setup} if self.setup else {}
        return {"kind": self.kind, "tests": self.tests, **setup, "timeout": self.timeout}


@dataclass(frozen=True)
class Check:
    """One check of an answer: `evidence` says what was found and what was wanted."""

    id: str
    passed: bool
    evidence: str


@dataclass(frozen=True)
class Verified:
    """What the checks say: `score`, in [0, 1], is the share of them that passed (one for maths or code)."""

    score: float
    checks: tuple[Check, ...]

    @property
    def all_passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def parse(value: Mapping[str, Any], where: str) -> Verifier:
    """Read a `verifier` field. Raises PipelineError, with the nearest known name for an unknown one."""
    if not isinstance(value, Mapping):
        problem = f"the verifier is {type(value).__name__}, expected an object"
        raise PipelineError(where, problem, f"Write one with a kind: {', '.join(KINDS)}.")
    kind = value.get("kind")
    if kind not in KINDS:
        raise unknown(where, "verifier kind", kind, KINDS)
    for name, given in value.items():
        # tables pad rows of different kinds with None
        if name not in ("kind", *KINDS[kind]) and given is not None:
            raise unknown(where, f"field of a {kind} verifier,", name, KINDS[kind])
    if kind == "constraints":
        return Verifier(kind, checks=_checks(value, where))
    if kind == "math":
        return Verifier(kind, answer=_result(value, where))
    setup = text_field(value, "setup", where, empty=True) if value.get("setup") else ""
    return Verifier(
        kind, tests=text_field(value, "tests", where), setup=setup, timeout=_timeout(value, where)
    )


def verify(verifier: Verifier, answer: str) -> Verified:
    """Check an answer. A bad answer is data: nothing that it holds raises."""
    if verifier.kind == "constraints":
        checks = tuple(Check(c.id, *c.found_in(answer)) for c in verifier.checks)
    else:
        checks = (Check(verifier.kind, *_result_of(verifier, answer)),)
    return Verified(sum(check.passed for check in checks) / len(checks), checks)


def from_row(row: Mapping[str, Any], where: str) -> Verifier | None:
    """The verifier of a dataset's row, None if it has none. Raises PipelineError.

    Read are our field `verifier`, IFEval's rows (instruction_id_list, kwargs), MBPP's (test_list),
    HumanEval's (test, entry_point) and GSM8K's (an answer that ends in #### 42).
    """
    if row.get("verifier") is not None:
        return parse(row["verifier"], where)
    if "instruction_id_list" in row:
        return _from_ifeval(row, where)
    if row.get("test_list"):
        setup = row.get("test_imports") or row.get("test_setup_code") or ""
        lines = setup if isinstance(setup, str) else "\n".join(setup)
        return parse({"kind": "code", "tests": "\n".join(row["test_list"]), "setup": lines}, where)
    if "test" in row and "entry_point" in row:
        imports = [
            line for line in str(row.get("prompt", "")).split("\n") if line.startswith(("import ", "from "))
        ]
        tests = f"{text_field(row, 'test', where)}\ncheck({text_field(row, 'entry_point', where)})"
        return parse({"kind": "code", "tests": tests, "setup": "\n".join(imports)}, where)
    answer = row.get("answer")
    if isinstance(answer, str) and "####" in answer:
        return parse({"kind": "math", "answer": answer.rpartition("####")[2]}, where)
    return None


def _from_ifeval(row: Mapping[str, Any], where: str) -> Verifier:
    names, arguments = row["instruction_id_list"], row.get("kwargs")
    if not isinstance(names, list) or not isinstance(arguments, list) or len(names) != len(arguments):
        problem = "'instruction_id_list' and 'kwargs' are no lists of the same length"
        raise PipelineError(where, problem, "Give each instruction its arguments.")
    pairs = zip(names, arguments, strict=True)
    return parse(
        {"kind": "constraints", "checks": [{**(given or {}), "id": name} for name, given in pairs]}, where
    )


def _checks(value: Mapping[str, Any], where: str) -> tuple[Constraint, ...]:
    checks = value.get("checks")
    if not isinstance(checks, list | tuple) or not checks:
        raise PipelineError(
            where, f"'checks' is {checks!r}, expected a list of checks", "Write at least one."
        )
    read = []
    for number, check in enumerate(checks, 1):
        place = f"{where}: check {number}"
        if not isinstance(check, Mapping) or "id" not in check:
            raise PipelineError(place, f"got {check!r}, expected an object with an id", "Mend the check.")
        read.append(constraint(check["id"], {k: v for k, v in check.items() if k != "id"}, place))
    return tuple(read)


def _result(value: Mapping[str, Any], where: str) -> str:
    answer = value.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    return text_field(value, "answer", where)


def _timeout(value: Mapping[str, Any], where: str) -> float:
    seconds = TIMEOUT if value.get("timeout") is None else value["timeout"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= MAX_TIMEOUT:
        problem = f"'timeout' is {seconds!r}, expected seconds, more than 0 and at most {MAX_TIMEOUT:g}"
        raise PipelineError(where, problem, "Correct the value.")
    return float(seconds)


def _result_of(verifier: Verifier, answer: str) -> Found:
    if verifier.kind == "math":
        from pipeline.verify.maths import same_result

        return same_result(answer, verifier.answer)
    from pipeline.verify.code import passes_tests

    return passes_tests(answer, verifier.tests, verifier.setup, verifier.timeout)
