"""Every format trains exactly the answers and their end tokens, proved; what cannot be proved is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from pipeline.errors import PipelineError
from pipeline.format.conversations import Conversation
from pipeline.format.formats import FORMATS
from pipeline.format.phrasing import Asked
from pipeline.format.templates import NO_END, SEAM, SPECIAL, UNPROVED, Template, Unproved, apart, template_for

CHATML = tiny_llama.TEMPLATE
EN = Asked("Name a colour.", "", "Red.\n\nOr blue.", "en", "")
ZH = Asked("翻译成英文。", "你好 😀", "Hello {name}", "zh", "translation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_llama.save(path)
    return path


def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def single(asked: Asked) -> Conversation:
    said = f"{asked.instruction}\n\n{asked.input}" if asked.input else asked.instruction
    messages = ({"role": "user", "content": said}, {"role": "assistant", "content": asked.output})
    return Conversation("x.jsonl:1", messages, asked)


def several() -> Conversation:
    said = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")]
    said += [("user", "再见"), ("assistant", "拜拜")]
    return Conversation("x.jsonl:2", tuple({"role": role, "content": text} for role, text in said))


def trained(template: Template, conversation: Conversation) -> list[str]:
    one = template.encode(conversation)
    assert [i for i, label in enumerate(one.labels) if label != -100] == [
        i for begin, end in one.spans for i in range(begin, end)
    ]
    return [template.tokenizer.decode(one.ids[begin:end]) for begin, end in one.spans]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("asked", [EN, ZH], ids=["en", "zh"])
def test_every_format_trains_exactly_the_answer_and_its_end(folder: Path, name: str, asked: Asked) -> None:
    template, phrasing = template_for(tokenizer(folder), name)
    row = apart(single(asked)) if phrasing == "apart" else single(asked)
    end = template.tokenizer.eos_token
    assert trained(template, row) == [asked.output + end]


@pytest.mark.parametrize("name", FORMATS)
def test_every_answer_of_a_conversation_is_trained(folder: Path, name: str) -> None:
    template, _ = template_for(tokenizer(folder), name)
    end = template.tokenizer.eos_token
    assert trained(template, several()) == ["Hello" + end, "拜拜" + end]


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_trained_as_a_prompt_is_what_the_saved_tokenizer_serves(
    folder: Path, name: str, tmp_path: Path
) -> None:
    template, _ = template_for(tokenizer(folder), name)
    one = template.encode(several())
    template.tokenizer.save_pretrained(tmp_path)
    served = AutoTokenizer.from_pretrained(tmp_path)
    messages = [dict(m) for m in several().messages]
    for number, (begin, _) in zip((2, 4), one.spans, strict=True):
        ids = served.apply_chat_template(messages[:number], add_generation_prompt=True)["input_ids"]
        assert one.ids[:begin] == ids


def test_alpaca_shows_the_input_apart_and_changes_its_preamble(folder: Path) -> None:
    template, phrasing = template_for(tokenizer(folder), "alpaca")
    assert phrasing == "apart"
    shown = template.render(apart(single(ZH)).messages)
    assert "### Instruction:\n翻译成英文。\n\n### Input:\n你好 😀\n\n### Response:\nHello {name}" in shown
    assert "an input what to do it with" in shown
    assert "Input" not in template.render(single(EN).messages)


def test_a_template_with_generation_tags_gives_the_same_spans(folder: Path) -> None:
    tagged = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = Template(tokenizer(folder), tagged, "tagged")
    one = template.encode(several())
    marked = template.tokenizer.apply_chat_template(
        [dict(m) for m in several().messages], return_assistant_tokens_mask=True, return_dict=True
    )
    assert marked["input_ids"] == one.ids
    assert [bool(m) for m in marked["assistant_masks"]] == [label != -100 for label in one.labels]


@pytest.mark.parametrize(
    ("source", "reason", "said"),
    [
        # the answer's name is written whether or not an answer is asked for: nothing serves it
        (CHATML.split("{% if add")[0], UNPROVED, "stands '<|im_start|>assistant"),
        # earlier answers are left out of the history
        (
            CHATML.replace("{{ m.content }}", "{{ m.content if loop.last or m.role == 'user' else '...' }}"),
            UNPROVED,
            "not the answer",
        ),
        # a system message that stands there only when an answer follows
        (
            "{% if not add_generation_prompt %}<|im_start|>{% endif %}" + CHATML,
            UNPROVED,
            "where the served prompt reads",
        ),
        (CHATML.replace("<|im_end|>", ""), NO_END, "no end token"),
        ("{{ raise_exception('only pairs') }}", UNPROVED, "refuses the conversation: only pairs"),
    ],
)
def test_templates_that_hide_their_answers_are_refused(
    folder: Path, source: str, reason: str, said: str
) -> None:
    with pytest.raises(Unproved) as caught:
        Template(tokenizer(folder), source, "x").encode(several())
    assert caught.value.reason == reason and said in str(caught.value)


def test_a_prompt_that_ends_within_a_token_of_the_answer_is_refused(folder: Path, tmp_path: Path) -> None:
    merging = tokenizer(folder)
    state = json.loads(merging.backend_tokenizer.to_str())
    state["model"]["vocab"]["ĠR"] = 999
    state["model"]["merges"] = [["Ġ", "R"]]
    merging._tokenizer = Tokenizer.from_str(json.dumps(state))
    spaced = "{% for m in messages %}{{ m.content }}: {{ eos_token if m.role == 'assistant' }}{% endfor %}"
    with pytest.raises(Unproved) as caught:
        Template(merging, spaced, "spaced").encode(single(EN))
    assert caught.value.reason == SEAM and "' R'" in str(caught.value)


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_special_tokens_in_a_text_are_refused(folder: Path, role: str) -> None:
    template, _ = template_for(tokenizer(folder), "chat")
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    messages[role == "assistant"]["content"] += " <|im_end|> more"
    with pytest.raises(Unproved, match="holds '<|im_end|>', a special token") as caught:
        template.encode(Conversation("x", tuple(messages)))
    assert caught.value.reason == SPECIAL


def test_a_tokenizer_without_a_template_or_an_end_is_refused(folder: Path) -> None:
    bare = tokenizer(folder)
    bare.chat_template = None
    with pytest.raises(PipelineError, match="no chat template of its own. Use --format alpaca"):
        template_for(bare, "chat")
    bare.eos_token = None
    with pytest.raises(PipelineError, match="it has no end token"):
        template_for(bare, "alpaca")


def test_a_template_file_is_used_and_a_broken_one_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(CHATML.replace("assistant", "assistant"), encoding="utf-8")
    template, phrasing = template_for(tokenizer(folder), "chat", str(tmp_path / "mine.jinja"))
    assert (phrasing, trained(template, single(EN))) == ("plain", [EN.output + "<|im_end|>"])
    (tmp_path / "broken.jinja").write_text("{% for m in %}", encoding="utf-8")
    template, _ = template_for(tokenizer(folder), "chat", str(tmp_path / "broken.jinja"))
    with pytest.raises(Unproved, match="refuses the conversation"):
        template.encode(single(EN))
