"""Datasets of the Hugging Face hub, streamed row by row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import PipelineError

T = TypeVar("T")

_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?::([\w.-]+))?")


@dataclass(frozen=True)
class HubDataset:
    """A split of a dataset; `name` is what the user wrote."""

    name: str
    path: str
    config: str | None
    split: str

    def digest(self) -> str:
        """The hash by which the `datasets` library tells one version from another."""
        return str(self._asked(lambda: self._builder().hash))

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows. Raises PipelineError if the hub or the split is not to be had."""
        rows = self._asked(lambda: iter(self._builder().as_streaming_dataset(split=self.split)))
        while (row := self._asked(lambda: next(rows, None))) is not None:
            yield row

    def _builder(self) -> Any:
        from datasets import load_dataset_builder
        from datasets.utils import disable_progress_bars, logging

        logging.set_verbosity_error()
        disable_progress_bars()
        return load_dataset_builder(self.path, self.config)

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:  # the library raises two dozen types; all mean that the rows cannot be had
            said = (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
            raise PipelineError(
                self.name,
                f"no such file, and the hub gives no such dataset ({said})",
                "Check path, name and connection; owner/name:config:split names a part.",
            ) from error


def hub_dataset(name: str) -> HubDataset | None:
    """What `owner/name`, `owner/name:split` or `owner/name:config:split` means; None for any other name."""
    found = _NAME.fullmatch(name)
    if not found or name.startswith("."):
        return None
    path, first, second = found.groups()
    config, split = (first, second) if second else (None, first or "train")
    return HubDataset(name, path, config, split)
