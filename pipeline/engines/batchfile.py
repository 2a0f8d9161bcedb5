"""Offline batches: requests go into a file in OpenAI's Batch format, answers come back in others.

A run stops where it needs answers (NotSent says what to do), and --resume finds them in the same folder by
their ids, so neither the order nor the number nor the names of the result files matter. Only chat requests:
vLLM's run_batch takes no text completions (0.31: /v1/chat/completions, embeddings, scores, audio).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.engines.base import NotSent, Request, Response
from pipeline.engines.cache import request_key
from pipeline.engines.openai_wire import CHAT_URL, chat_body, cut_at_stop, parse_chat, well_formed
from pipeline.errors import PipelineError, disk_errors
from pipeline.records import read_text, to_json
from pipeline.rundir import RunDir

_NEVER_RUN = ("batch_expired", "batch_cancelled")  # OpenAI's codes for requests that it did not get to
_CHAT_ONLY = "Use --style chat and --answer-style chat."


class BatchFileEngine:
    """Answers a group once all its answers lie in `folder`; until then writes what is missing to a file.

    Results are read from every `batch*.jsonl` there. Raises PipelineError if `styles`, those of the prompts
    that will be sent, hold "completion".
    """

    license, precision = "unknown", "as the batch service computes"
    groups_in_flight, can_score, can_structure, has_chat = 1, False, True, True

    def __init__(self, folder: Path, model: str, batch_size: int = 1000, styles: Sequence[str] = ()) -> None:
        if "completion" in styles:
            raise PipelineError("--batch-api", "a batch file holds chat requests only", _CHAT_ONLY)
        self.folder, self.model, self.batch_size = folder, model, batch_size
        self.tokens_drawn = 0

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer a group from the files. Raises NotSent, with what to do, if they do not hold all of it."""
        return await asyncio.to_thread(self._answer, list(requests))

    def stop(self) -> None:
        """Do nothing: no request is ever under way."""

    async def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _answer(self, requests: list[Request]) -> list[Response]:
        ids = self._ids(requests)
        found = self._found(set(ids))
        missing = {name: request for name, request in zip(ids, requests, strict=True) if name not in found}
        if missing:
            raise NotSent(self._ask(missing, len(found)))
        self.tokens_drawn += sum(response.completion_tokens for response in found.values())
        return [cut_at_stop(found[name], r.sampling.stop) for name, r in zip(ids, requests, strict=True)]

    def _ids(self, requests: Sequence[Request]) -> list[str]:
        """Name every request by what it asks and how many equal ones came before it in the group."""
        before: Counter[str] = Counter()
        names = []
        for request in requests:
            if request.choices or not request.chat:
                kind = "to score" if request.choices else "of text"
                problem = f"a batch file holds chat requests only, got one {kind}"
                raise PipelineError("--batch-api", problem, _CHAT_ONLY)
            key = request_key(self.model, request)[:32]
            names.append(f"{key}-{before[key]}")
            before[key] += 1
        return names

    def _found(self, wanted: set[str]) -> dict[str, Response]:
        """The answers that lie in the folder; a good one goes before a failed one to the same request."""
        found: dict[str, Response] = {}
        for path in sorted(self.folder.glob("batch*.jsonl")):
            if path.name.endswith(".input.jsonl"):
                continue
            for name, row in read_results(path):
                if (
                    name in wanted
                    and (name not in found or found[name].error)
                    and (answer := read_answer(row))
                ):
                    found[name] = answer
        return found

    def _ask(self, requests: Mapping[str, Request], answered: int) -> str:
        """Write the batch file; return what is to be done with it."""
        stem = f"batch-{hashlib.sha256(' '.join(requests).encode()).hexdigest()[:12]}"
        lines = [self._line(name, request) for name, request in requests.items()]
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        RunDir(self.folder).write(f"{stem}.input.jsonl", "".join(lines))
        count = f"{len(requests):,} request{' waits' if len(requests) == 1 else 's wait'}"
        rest = (
            f" ({answered:,} of the group are answered; if the others failed, put the error file there too)"
        )
        return f"{count} in {self.folder / stem}.input.jsonl{rest if answered else ''}.\n{self._ways(stem)}"

    def _ways(self, stem: str) -> str:
        source, target, errors = (
            self.folder / f"{stem}.{kind}.jsonl" for kind in ("input", "output", "error")
        )
        words = shlex.join(["-i", str(source), "-o", str(target), "--model", self.model])
        return (
            f"Have them answered, put the result into {self.folder}/ and go on with --resume. Either\n"
            f"  python -m vllm.entrypoints.openai.run_batch {words} --generation-config vllm\n"
            f"or upload the file to OpenAI (purpose batch), create a batch for {CHAT_URL}, and save its"
            f" output file as {target} and its error file, if there is one, as {errors}."
        )

    def _line(self, name: str, request: Request) -> str:
        body = chat_body(request, self.model)
        return to_json({"custom_id": name, "method": "POST", "url": CHAT_URL, "body": body}) + "\n"


def read_results(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (custom_id, line) from a batch's output or error file. Raises PipelineError naming a bad line."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("custom_id"), str):
                raise ValueError("no 'custom_id'")
        except (ValueError, RecursionError) as error:
            problem = f"not a line of a batch's results ({error})"
            raise PipelineError(
                f"{path}:{number}", problem, "Fetch the file again, or move it away."
            ) from None
        yield row["custom_id"], row


def read_answer(row: Mapping[str, Any]) -> Response | None:
    """Read one line of results; None if the service never ran the request."""
    response, error = row.get("response"), row.get("error")
    response = response if isinstance(response, dict) else {}
    if isinstance(error, dict) and error.get("code") in _NEVER_RUN:
        return None
    body, status = response.get("body"), response.get("status_code")
    if error or status != 200:
        return _failed(_reason(error) or _reason(body) or f"status {status}")
    try:
        return parse_chat(body)
    except ValueError as problem:
        return _failed(f"malformed answer: {problem}")


def _failed(reason: str) -> Response:
    return Response("", "error", 0, 0, error=well_formed(reason))


def _reason(error: Any) -> str:
    """The message of an error: text, {message} (OpenAI) or {error: {message}} (vLLM, an error's body)."""
    if isinstance(error, dict):
        return _reason(error.get("error") or error.get("message") or error.get("code"))
    return str(error) if error else ""
