"""Whether the code in an answer (its last fenced block, or all of it) passes tests in the sandbox."""

from __future__ import annotations

import re
import textwrap

from pipeline.stages.code_checks import FENCED
from pipeline.verify.counting import Found
from pipeline.verify.sandbox import Limits, run_tests

_OPEN_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(?P<body>.*)\Z", re.DOTALL | re.MULTILINE)


def code_of(answer: str) -> str:
    """The code in an answer: its last fenced block, one that was never closed too; without any, all of it."""
    blocks = [found["body"] for found in FENCED.finditer(answer)]
    if not blocks and (unclosed := _OPEN_FENCE.search(answer)):
        blocks = [unclosed["body"]]
    return textwrap.dedent(blocks[-1] if blocks else answer)


def passes_tests(answer: str, tests: str, setup: str, timeout: float) -> Found:
    """Run the answer's code with the tests."""
    code = code_of(answer)
    if not code.strip():
        return Found(False, "the answer is empty")
    ran = run_tests(code, tests, Limits(seconds=timeout), setup=setup)
    return Found(ran.passed, ran.evidence)
