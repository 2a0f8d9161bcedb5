"""The prompts: Jinja2 files under prompts/<language>/, one per stage and style; `--prompts` overrides any.

`propose.completion.jinja` is text for a base or small model to continue, `propose.chat.jinja` a message to
an instruct model. A file opens with a comment that says what it expects back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from pipeline.engines.base import Request, Sampling
from pipeline.errors import PipelineError
from pipeline.records import read_text

SHIPPED = Path(__file__).resolve().parents[2] / "prompts"
STYLES = ("completion", "chat")
_SYSTEM_END = re.compile(r"\r?\n=====\r?\n")


@dataclass(frozen=True)
class Prompt:
    """One prompt file: `name` as in provenance, `digest` of its text, `chat` if it is a message.

    A chat file may hold a system message, ended by a line of five equals signs.
    """

    name: str
    digest: str
    chat: bool
    system: jinja2.Template | None
    template: jinja2.Template

    def request(
        self,
        values: Mapping[str, Any],
        sampling: Sampling | None = None,
        *,
        choices: tuple[tuple[str, str], ...] = (),
        role: str = "writer",
        schema: str = "",
    ) -> Request:
        """The filled-in prompt as a request."""
        system = self._fill(self.system, values) if self.system else ""
        return Request(
            self._fill(self.template, values),
            self.chat,
            system,
            sampling or Sampling(),
            choices,
            role,
            schema,
        )

    def render(self, **values: Any) -> str:
        """The filled-in text without the system message.

        Raises PipelineError if a name in the file is not given.
        """
        return self._fill(self.template, values)

    def _fill(self, template: jinja2.Template, values: Mapping[str, Any]) -> str:
        try:
            return template.render(**values)
        except jinja2.UndefinedError as error:
            known = ", ".join(sorted(values))
            raise PipelineError(
                f"prompt {self.name}", f"{error} (has: {known})", "Correct the name."
            ) from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise PipelineError(
                f"prompt {self.name}", f"it cannot be filled in ({error})", "Mend it."
            ) from None


class Prompts:
    """Finds prompts: first in the user's directory, then in the shipped one."""

    def __init__(self, override: str = "") -> None:
        if override and not Path(override).is_dir():
            raise PipelineError(
                f"--prompts {override}", "no such directory", "Give a directory laid out like prompts/."
            )
        self.folders = ([Path(override)] if override else []) + [SHIPPED]
        self._known: dict[str, Prompt] = {}
        self._digests: dict[str, str] = {}

    def get(self, language: str, stage: str, style: str) -> Prompt:
        """The prompt of a stage in a language and style; `stage.jinja` serves both styles."""
        name, shared = f"{language}/{stage}.{style}.jinja", f"{language}/{stage}.jinja"
        if name not in self._known:
            found = (n for folder in self.folders for n in (name, shared) if (folder / n).is_file())
            self._known[name] = self._load(next(found, name), chat=style == "chat")
        return self._known[name]

    def digest(self, name: str) -> str:
        """The digest of a prompt file, by its name."""
        if name not in self._digests:
            self._digests[name] = _digest(read_text(self.path(name)))
        return self._digests[name]

    def path(self, name: str) -> Path:
        """The file that `name` (relative to a prompts directory) means.

        Raises PipelineError if there is none.
        """
        found = self._find(name)
        if found:
            return found
        raise PipelineError(f"prompt {name}", "no such file", f"Write it to {self.folders[0] / name}.")

    def _find(self, name: str) -> Path | None:
        return next((f / name for f in self.folders if (f / name).is_file()), None)

    def _load(self, name: str, *, chat: bool) -> Prompt:
        path = self.path(name)
        text = read_text(path)
        parts, compiled, above = _SYSTEM_END.split(text, maxsplit=1), list[jinja2.Template](), 0
        for part in parts:
            try:
                compiled.append(_ENVIRONMENT.from_string(part))
            except jinja2.TemplateSyntaxError as error:
                where = f"{path}:{above + error.lineno}"
                raise PipelineError(where, f"not a Jinja2 template ({error.message})", "Mend it.") from None
            above = part.count("\n") + 2
        return Prompt(name, _digest(text), chat, compiled[0] if len(compiled) == 2 else None, compiled[-1])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# Values are data: nothing in them is parsed as template, and nothing is escaped (the result is no HTML).
_ENVIRONMENT = jinja2.Environment(
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
    keep_trailing_newline=False,
)
