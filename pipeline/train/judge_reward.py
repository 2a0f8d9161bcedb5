"""A model as reward: it rates answers against the rubric of prompts/LANGUAGE/rate.jinja, through any engine.

The engine stays open from step to step on an event loop of its own, which runs while `score` waits. Cache,
budget and retries are those of every command that asks a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import fields, replace
from pathlib import Path

from pipeline.config import build
from pipeline.engines.base import Engine, NotSent, Request, Response
from pipeline.engines.open import check_engine, open_engine
from pipeline.engines.options import EngineOptions
from pipeline.errors import EXIT_PAUSED, PipelineError, Stopped
from pipeline.judging.model_judge import Ask, parse_rating, rate_request
from pipeline.records import LANGUAGES, Prompt
from pipeline.stages.prompts import Prompts
from pipeline.train.reward_spec import Term
from pipeline.train.reward_terms import Row

_FEW = 20  # failures that no share is taken of


class ModelJudge:
    """Rates answers from 0 to 1.

    `model` is a name for the engine that `options` ask for, "" their own; `folder` is for files that the
    engine writes, `prompts` a directory whose rate.jinja replaces ours. Raises PipelineError.
    """

    def __init__(
        self,
        model: str = "",
        options: EngineOptions | None = None,
        folder: Path | None = None,
        *,
        prompts: str = "",
    ) -> None:
        options = options or EngineOptions()
        options = replace(options, model=model or options.model)
        if options.batch_api:
            problem = "a batch file answers in hours, expected ratings at every step"
            raise PipelineError("--batch-api", problem, "Leave it out.")
        check_engine(options)
        self._max_failed, self._asked, self._failed = options.max_failed_frac, 0, 0
        self._runner, self._open, self._closed = asyncio.Runner(), AsyncExitStack(), False
        try:
            entered = self._open.enter_async_context(open_engine(options, folder or Path()))
            self._engine: Engine = self._runner.run(entered)
            style, found = "chat" if self._engine.has_chat else "completion", Prompts(prompts)
            self._prompts = {language: found.get(language, "rate", style) for language in LANGUAGES}
        except BaseException:
            self.close()
            raise
        scores = self._engine.can_score and options.engine != "openai"
        self._ask_by = Ask(scores, self._engine.can_structure)

    @property
    def model(self) -> str:
        """What the provenance names."""
        return self._engine.model

    def close(self) -> None:
        """Close the engine; a second time nothing happens."""
        if not self._closed:
            self._closed = True
            try:
                self._runner.run(self._open.aclose())
            finally:
                self._runner.close()

    def score(self, rows: Sequence[Row]) -> list[float | None]:
        """The ratings in [0, 1]; None where a request failed or no rating could be read in its answer.

        Equal answers to a prompt are asked once. Raises Stopped if the budget is used up, PipelineError if
        too many requests fail.
        """
        requests = [self._request(row) for row in rows]
        once = list({request.digest: request for request in requests}.values())
        try:
            responses = self._runner.run(self._responses(once))
        except NotSent as refusal:
            raise Stopped(str(refusal), EXIT_PAUSED) from None
        self._count(responses)
        ratings = {q.digest: parse_rating(a) for q, a in zip(once, responses, strict=True)}
        return [ratings[request.digest] for request in requests]

    def _request(self, row: Row) -> Request:
        roles = [message["role"] for message in row.prompt]
        if roles not in (["user"], ["system", "user"]):
            problem = f"the prompt has turns of {', '.join(roles)}, expected one of the user"
            raise PipelineError(f"reward judge: {row.id}", problem, "Leave such prompts out.")
        asked = Prompt(row.id, tuple(row.prompt), row.language)
        return rate_request(self._prompts[row.language], asked, row.answer, self._ask_by)

    async def _responses(self, requests: Sequence[Request]) -> list[Response]:
        """Ask in groups as the engine takes them; those under way are waited for if one raises."""
        size, places = self._engine.batch_size, asyncio.Semaphore(self._engine.groups_in_flight)
        groups = [requests[begin : begin + size] for begin in range(0, len(requests), size)]

        async def answer(group: Sequence[Request]) -> list[Response]:
            """One group."""
            async with places:
                try:
                    return await self._engine.generate(group)
                except (PipelineError, NotSent):
                    raise
                except Exception as error:  # one failed call excludes its answers, as in other commands
                    message = f"{type(error).__name__}: {error}"
                    return [Response("", "error", 0, 0, error=message) for _ in group]

        found = await asyncio.gather(*map(answer, groups), return_exceptions=True)
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [response for group in found if isinstance(group, list) for response in group]

    def _count(self, responses: Sequence[Response]) -> None:
        """Stop where more fail than the options allow."""
        errors = [response.error for response in responses if response.error]
        self._asked += len(responses)
        self._failed += len(errors)
        if errors and self._failed > max(_FEW, self._max_failed * self._asked):
            problem = f"{self._failed} of {self._asked} requests failed, the last with: {errors[-1]}"
            raise PipelineError(f"judge {self.model}", problem, "Mend the cause, then go on with --resume.")


def check_judges(terms: Sequence[Term], words: Sequence[str]) -> None:
    """Refuse judges that cannot be asked, and options of none, before anything runs. Raises PipelineError."""
    options, judges = judge_engine(words), [term for term in terms if term.name == "judge"]
    if words and not judges:
        problem = "no judge is among the rewards"
        raise PipelineError("--judge", problem, "Name it (--reward judge), or leave --judge out.")
    for term in judges:
        check_engine(replace(options, model=term.argument or options.model))


def judge_engine(words: Sequence[str]) -> EngineOptions:
    """The options that NAME=VALUE words give to the judge's engine. Raises PipelineError."""
    values: dict[str, object] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise PipelineError(f"--judge {word}", "expected NAME=VALUE", "Write it so: engine=openai")
        kind = next((f.type for f in fields(EngineOptions) if f.name == name.replace("-", "_")), "")
        values[name.replace("-", "_")] = value == "true" if kind == "bool" else value
    return build(EngineOptions, values, lambda name: f"--judge {name}")
