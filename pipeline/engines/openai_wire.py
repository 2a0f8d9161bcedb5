"""What goes over the wire to an OpenAI-compatible server and what comes back, as pure functions.

Shared by the online engine and by offline batch files, which hold the same bodies.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from pipeline.engines.base import Request, Response

CHAT_URL, COMPLETION_URL = "/v1/chat/completions", "/v1/completions"
MAX_STOPS = 4  # OpenAI takes no more; `cut_at_stop` sees to the others


def body(request: Request, model: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the body that ask `request`. Raises ValueError if it is one to score."""
    return (
        (CHAT_URL, chat_body(request, model))
        if request.chat
        else (COMPLETION_URL, completion_body(request, model))
    )


def chat_body(request: Request, model: str) -> dict[str, Any]:
    """Return the body of a chat request. Raises ValueError if it is one to score."""
    system = [{"role": "system", "content": request.system}] if request.system else []
    messages = [*system, {"role": "user", "content": request.prompt}]
    return {"model": model, "messages": messages, **_sampling(request), **_format(request)}


def completion_body(request: Request, model: str) -> dict[str, Any]:
    """Return the body of a text completion; a schema is left out, as OpenAI has none here.

    Raises ValueError if the request is one to score.
    """
    return {"model": model, "prompt": request.prompt, **_sampling(request)}


def parse_chat(body: Any) -> Response:
    """Read a chat completion. Raises ValueError if the body is malformed.

    An answer that was filtered or refused is a Response with `error`.
    """
    choice = _choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise ValueError(f"'message' is {_kind(message)}, expected an object")
    if refusal := message.get("refusal"):
        return _filtered(body, f"the model refused: {well_formed(str(refusal))}")
    # A reasoning model that is cut off while it thinks has no content.
    empty = choice.get("finish_reason") in ("length", "content_filter") and message.get("content") is None
    return _response(body, choice, "" if empty else message.get("content"), "content")


def parse_completion(body: Any) -> Response:
    """Read a text completion. Raises ValueError if the body is malformed."""
    choice = _choice(body)
    return _response(body, choice, choice.get("text"), "text")


def cut_at_stop(response: Response, stops: Sequence[str]) -> Response:
    """Cut the text before the first of all stop strings: a server knows four, or none.

    A text that was cut is complete ("stop"), even if the server had gone on to its length limit.
    """
    at = min((at for stop in stops if (at := response.text.find(stop)) >= 0), default=-1)
    if at < 0 or response.error:
        return response
    return dataclasses.replace(response, text=response.text[:at], finish_reason="stop")


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _sampling(request: Request) -> dict[str, Any]:
    if request.choices:
        raise ValueError("a request with choices is scored, not sent as a prompt")
    sampling = request.sampling
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    if sampling.frequency_penalty:
        fields["frequency_penalty"] = sampling.frequency_penalty
    if sampling.stop:
        fields["stop"] = list(sampling.stop[:MAX_STOPS])
    return fields


def _format(request: Request) -> dict[str, Any]:
    """Ask for the schema; OpenAI's strict mode wants every property required and none additional."""
    if not request.schema:
        return {}
    schema = {"name": "answer", "strict": True, "schema": json.loads(request.schema)}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _choice(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ValueError(f"the body is {_kind(body)}, expected an object")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError("'choices' is an empty list" if choices == [] else f"'choices' is {_kind(choices)}")
    if not isinstance(choices[0], dict):
        raise ValueError(f"the choice is {_kind(choices[0])}, expected an object")
    return choices[0]


def _response(body: dict[str, Any], choice: dict[str, Any], text: Any, name: str) -> Response:
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        return _filtered(body, "content filter")
    if reason not in ("stop", "length"):
        raise ValueError(f"'finish_reason' is {reason!r}, expected 'stop' or 'length'")
    if not isinstance(text, str):
        raise ValueError(f"'{name}' is {_kind(text)}, expected text")
    return Response(well_formed(text), reason, *_usage(body))


def _filtered(body: dict[str, Any], error: str) -> Response:
    return Response("", "content_filter", *_usage(body), error=error)


def _usage(body: dict[str, Any]) -> tuple[int, int]:
    """Tokens of prompt and completion, 0 where the server does not say."""
    usage = body.get("usage") or {}
    if not isinstance(usage, dict):
        raise ValueError(f"'usage' is {_kind(usage)}, expected an object")
    prompt, completion = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    return prompt, completion


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"'{name}' is {value!r}, expected a whole number")
    return value


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__
