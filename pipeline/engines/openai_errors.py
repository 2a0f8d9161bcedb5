"""What a failed call to an OpenAI-compatible server means: ask again, record it, adapt, or end the run."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.errors import PipelineError

LONGEST_WAIT = 600.0  # s; a server that asks for a longer one is not waited for
_SHOWN = 300  # characters of a server's message

_OVERFLOW = re.compile(
    r"context[_ ]?(length|window|size)|maximum (model|context|sequence) length|(prompt|input) is too long"
    r"|longer than the maximum|exceeds? the (model's )?(available )?(context|maximum)",
    re.I,
)
_FILTERED = re.compile(r"content[_ ](filter|policy|management)|moderation", re.I)
_MISSING = re.compile(
    r"model[_ ]not[_ ]found|model\b.{0,200}(does not exist|not found|pinned to)|invalid model|pinned to"
    r"|chat[_ ]template (functions|is (not|no longer))|(is|not) a chat model"
    r"|does not support (chat|generate|completion)",
    re.I | re.S,
)
_UNPAID = re.compile(r"insufficient[_ ](quota|balance|credit|funds)|billing", re.I)
_UNSUPPORTED = re.compile(
    r"unsupported|not (\w+ )?support|unrecogni[sz]ed|unknown|unexpected|extra (inputs|fields)|not permitted"
    r"|not allowed|invalid schema|only the default",
    re.I,
)
_SCHEMA_WORDS = r"json_schema|structured|guided|grammar"
ADAPTABLE = {  # parameters that the engine can do without or rename, and how messages name them
    "max_tokens": r"\bmax_tokens\b",
    "temperature": r"\btemperature\b",
    "top_p": r"\btop_p\b",
    "frequency_penalty": r"\bfrequency_penalty\b",
    "stop": r"\bstop\b",
    "seed": r"\bseed\b",
    "response_format": rf"response_format|{_SCHEMA_WORDS}",
    "structured_outputs": _SCHEMA_WORDS,
}


class Transient(Exception):
    """A failure that may pass: worth asking again, after `after` seconds where the server said so.

    `status` is the HTTP status of an answer that says so, 0 if there was none or the answer is malformed.
    """

    def __init__(
        self, text: str, *, status: int = 0, after: float | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(text)
        self.status, self.after, self.unreachable = status, after, unreachable

    @property
    def overload(self) -> bool:
        """Whether the server has too much to do."""
        return self.status in (429, 503, 529)


class Refused(Exception):
    """A request that this server will never answer; the message becomes the response's error."""

    def __init__(self, text: str, finish_reason: str = "error") -> None:
        super().__init__(text)
        self.finish_reason = finish_reason


class Unsupported(Refused):
    """A request that is refused for its parameters `names`."""

    def __init__(self, text: str, names: frozenset[str]) -> None:
        super().__init__(text)
        self.names = names


class Missing(Refused):
    """The server has no such model, or not this way of asking it."""


class Forbidden(PipelineError):
    """The key is good, but not for this."""


class Cleaner:
    """Takes keys out of texts: the one in use, and whatever looks like one."""

    def __init__(self, key: str) -> None:
        known = f"{re.escape(key)}|" if len(key) >= 4 else ""
        self._secret = re.compile(
            rf"{known}\bsk-[\w*.-]+|(?i:\bbearer\s+[^\s'\"]+|authorization['\"]?\s*[:=]\s*[^,}}]+)"
        )

    def __repr__(self) -> str:
        return "Cleaner()"

    def __call__(self, text: str) -> str:
        """The text on one line, without keys, cut to a readable length."""
        return " ".join(self._secret.sub("***", text).split())[:_SHOWN]


def classify(error: Any, where: str, key_name: str, clean: Cleaner) -> Exception:
    """Return what to raise for an `openai.APIError` of the server `where`; its text holds no key."""
    status = getattr(error, "status_code", None)
    if status is None:
        return _dropped(error, clean)
    said = clean(_message(error)).rstrip(".")
    labels = f"{error.code} {error.type} {said}"
    if status == 402 or _UNPAID.search(f"{error.code} {error.type}"):
        return PipelineError(where, f"no credit left ({said})", "Add credit, then go on with --resume.")
    if status in (400, 403) and _FILTERED.search(labels):
        return Refused("content filter", "content_filter")
    place = f"environment variable {key_name}"
    if status == 401:  # its message is not shown: it often repeats parts of the key
        return PipelineError(place, f"{where} refuses the key (401)", "Set it to a key that is valid there.")
    if status == 403:
        return Forbidden(place, f"{where} refuses the key (403: {said})", "Use a key that may do this.")
    if status in (408, 409, 429) or (status >= 500 and status != 501):
        after = retry_after(error.response.headers)
        if after is not None and after > LONGEST_WAIT:
            problem = f"it asks to wait {after:.0f} seconds ({status}: {said})"
            return PipelineError(where, problem, "Go on later with --resume.")
        return Transient(f"{status}: {said}", status=status, after=after)
    return _refusal(status, said, labels, str(error.param or "").split(".")[0])


def _refusal(status: int, said: str, labels: str, parameter: str) -> Refused:
    """What a 4xx other than those about keys and load says of the request."""
    if status in (404, 405, 501):
        return Missing(f"{status}: {said}")
    if _OVERFLOW.search(labels):
        return Refused(f"context overflow: {said}")
    if _MISSING.search(labels):
        return Missing(f"{status}: {said}")
    if _UNSUPPORTED.search(labels):
        named = [name for name, pattern in ADAPTABLE.items() if re.search(pattern, said)]
        return Unsupported(f"{status}: {said}", frozenset([parameter] if parameter in ADAPTABLE else named))
    return Refused(f"{status}: {said}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that `retry-after-ms` or `retry-after` (seconds or an HTTP date) asks for; None without."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _until(value)
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def _until(date: str) -> float:
    """Seconds until an HTTP date; NaN if it is none."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except ValueError:
        return math.nan


def _dropped(error: Any, clean: Cleaner) -> Transient:
    """A call without an HTTP answer.

    The cause is told by its name: the client library has changed the HTTP library underneath it before.
    """
    cause = error.__cause__ or error
    name = type(cause).__name__
    text = clean(f"{name}: {cause}".rstrip(": "))
    return Transient(text, unreachable=name in ("ConnectError", "ConnectTimeout"))


def _message(error: Any) -> str:
    """What the server itself says, in the forms that servers have for it."""
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body.get("error") or body
    return str(body or "no reason given")
