"""A trained reward model at work: as a judge, as a reward, to choose the best of several answers.

scores = load("runs/reward-001").score([[{"role": "user", ...}, {"role": "assistant", ...}], ...])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.engines.models import is_run, language_model, quiet
from pipeline.errors import PipelineError
from pipeline.format.conversations import Message
from pipeline.format.templates import Template, Unproved
from pipeline.train import trained
from pipeline.train.pairs import encode

_BATCH = 16  # conversations scored together


class RewardModel:
    """Scores conversations that end with an answer.

    `max_length`: tokens read of one; of a longer one the beginning is cut, as in training. `to_end`: the
    score is read at the end token of the answer, as ours are, else at the end of the template's text.
    """

    def __init__(self, model: Any, tokenizer: Any, max_length: int, *, to_end: bool, name: str) -> None:
        if not isinstance(tokenizer.chat_template, str):
            fix = "Give a reward model that is trained on conversations."
            raise PipelineError(f"reward model {name}", "its tokenizer has no chat template", fix)
        self.name, self.max_length = name, max_length
        self._model, self._to_end = model.eval(), to_end
        self._template = Template(tokenizer, tokenizer.chat_template, "chat")
        self._pads = model.config.get_text_config().pad_token_id is not None

    def score(self, conversations: Sequence[Sequence[Message]]) -> list[float]:
        """One score for each conversation, in their order, whatever else is scored beside it.

        Raises PipelineError for a conversation that does not end with an answer or holds special tokens.
        """
        rows = [self._ids(messages, number) for number, messages in enumerate(conversations)]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        found, size = dict[int, float](), _BATCH if self._pads else 1
        for begin in range(0, len(order), size):
            part = order[begin : begin + size]
            found.update(zip(part, self._scores([rows[number] for number in part]), strict=True))
        return [found[number] for number in range(len(rows))]

    def _ids(self, messages: Sequence[Message], number: int) -> list[int]:
        where = f"conversation {number}"
        if not messages or messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
            problem = "it does not end with an answer of the assistant"
            raise PipelineError(where, problem, "Give a prompt and an answer.")
        said = [{**message, "content": message["content"].strip()} for message in messages]
        try:
            one = encode(self._template, said, where)
            if not self._to_end:
                return self._template.ids(self._template.render(said))[-self.max_length :]
        except Unproved as reason:
            fix = "Score it without such texts, or use another reward model."
            raise PipelineError(where, str(reason), fix) from None
        return one.ids[-self.max_length :]

    def _scores(self, rows: Sequence[list[int]]) -> list[float]:
        import torch

        pad = self._model.config.get_text_config().pad_token_id or 0
        longest = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])  # (B, T)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        device = self._model.device
        with torch.inference_mode():
            logits = self._model(
                input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False
            ).logits
        return [float(score) for score in logits.float()[:, 0]]


def load(run_or_hub_id: str | Path, *, dtype: str = "float32") -> RewardModel:
    """The reward model of a finished run of ours, or of a directory or a hub id. Raises PipelineError.

    In `dtype` float32 the batch changes no score but in its last digits.
    """
    name = str(run_or_hub_id)
    if is_run(Path(name)):
        if not (Path(name) / "DONE").exists() or trained.task_of(Path(name)) != "classify":
            problem = "this is no finished run of pipeline.reward"
            raise PipelineError(f"reward model {name}", problem, "Name one, say runs/reward-001.")
        model, tokenizer = trained.load(Path(name), dtype=dtype)
        longest = trained.max_length(Path(name))
    else:
        model, tokenizer = _plain(language_model(name), dtype)
        run = Path(name).parent  # of a merged one
        ours = Path(name).name == "merged" and (run / "config.yaml").is_file()
        longest = trained.max_length(run) if ours else tokenizer.model_max_length
    if model.config.num_labels != 1:
        problem = f"it has {model.config.num_labels} outputs, expected one"
        raise PipelineError(f"reward model {name}", problem, "Name a reward model, no classifier.")
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or longest
    to_end = is_run(Path(name)) or Path(name).name == "merged"
    return RewardModel(model, tokenizer, min(longest, window), to_end=to_end, name=name)


def _plain(folder: str, dtype: str) -> tuple[Any, Any]:
    from torch import cuda
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    quiet()
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # one of a dozen unrelated types; all mean that the files do not do
        said = (str(error).strip() or "no reason given").splitlines()[0][:200].rstrip(".")
        problem = f"cannot be loaded ({type(error).__name__}: {said})"
        fix = "Give a sequence classifier that transformers supports, with its tokenizer."
        raise PipelineError(f"reward model {folder}", problem, fix) from error
    return model.to("cuda" if cuda.is_available() else "cpu"), tokenizer
