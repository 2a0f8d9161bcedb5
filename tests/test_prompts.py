"""Every shipped prompt renders with what its stage passes; a user's wins; a broken one gives one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest

from pipeline.errors import PipelineError
from pipeline.records import LANGUAGES, Example
from pipeline.stages.prompts import SHIPPED, STYLES, Prompts

# What each stage's request function passes.
VALUES: dict[str, dict[str, Any]] = {
    "propose": {"demonstrations": ("TEXT",), "opener": "OPENER", "count": 3},
    "propose_classification": {"demonstrations": ("TEXT",), "opener": "OPENER", "count": 3},
    "propose_alpaca": {"demonstrations": [("TEXT", "GIVEN", "SAID")], "opener": "OPENER", "count": 3},
    "evolve": {
        "how": "TOLD",
        "in_depth": True,
        "examples": [("TEXT", "MORE")],
        "instruction": "ASKED",
        "opener": "OPENER",
    },
    "classify": {"demonstrations": [("TEXT", True), ("MORE", False)], "instruction": "ASKED"},
    "classify_list": {"demonstrations": ["TEXT"], "classification": True},
    "labels": {"demonstrations": [("TEXT", ("LABEL", "OTHER"))], "instruction": "ASKED"},
    "labelled_input": {
        "demonstrations": [("TEXT", "LABEL", "GIVEN")],
        "instruction": "ASKED",
        "label": "WANTED",
    },
    "input": {"demonstrations": [("TEXT", "GIVEN")], "instruction": "ASKED", "optional": True},
    "answer": {"demonstrations": [("TEXT", "GIVEN", "SAID")], "instruction": "ASKED", "input": "ABOUT"},
    "judge": {"instruction": "ASKED", "input": "ABOUT", "output": "MADE"},
    "compare": {"system": "TOLD", "request": "ASKED", "first": "MADE", "second": "OTHER"},
    "rate": {"system": "TOLD", "request": "ASKED", "answer": "MADE"},
}
ONE_STYLE = {"classify_list": ("completion",)}  # scored as text: there is no turn to put a question in
FILES = sorted(path for language in LANGUAGES for path in (SHIPPED / language).glob("*.jinja"))
CASES = [(la, stage, style) for la in LANGUAGES for stage in VALUES for style in ONE_STYLE.get(stage, STYLES)]


def words(value: Any) -> set[str]:
    """The capital-letter markers in a value, at any depth."""
    if isinstance(value, str):
        return {value}
    return {w for v in value for w in words(v)} if isinstance(value, list | tuple) else set()


def write(folder: Path, name: str, text: str) -> Prompts:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode())
    return Prompts(str(folder))


def fails(prompts: Prompts, stage: str = "judge", **values: Any) -> str:
    with pytest.raises(PipelineError) as caught:
        prompts.get("en", stage, "chat").render(**(values or VALUES[stage]))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("language", "stage", "style"), CASES)
def test_a_shipped_prompt_renders_with_exactly_what_its_stage_passes(
    language: str, stage: str, style: str
) -> None:
    prompt, values = Prompts().get(language, stage, style), VALUES[stage]
    request = prompt.request(values)
    text = request.system + request.prompt
    assert request.chat == prompt.chat == (style == "chat")
    assert prompt.digest and prompt.name.startswith(f"{language}/{stage}.")
    # A chat needs no demonstrations to answer, and no opener to begin with; everything else is used.
    unused = {"TEXT", "GIVEN", "SAID"} if (stage, style) == ("answer", "chat") else set()
    unused |= {"TEXT", "MORE"} if (stage, style) == ("evolve", "chat") else set()
    unused |= {"OPENER"} if style == "chat" else set()
    for name, value in values.items():
        assert words(value) - unused == {w for w in words(value) if w in text}, name
    if "count" in values and style == "chat":
        assert "3" in request.prompt
    assert "{{" not in text and "{#" not in text and "=====" not in text


@pytest.mark.parametrize(("language", "stage", "style"), CASES)
def test_a_rendered_prompt_ends_without_white_space_also_where_values_are_empty(
    language: str, stage: str, style: str
) -> None:
    prompt = Prompts().get(language, stage, style)
    for empty in ({}, {"input": "", "opener": "", "demonstrations": (), "system": ""}):
        values = {**VALUES[stage], **{k: v for k, v in empty.items() if k in VALUES[stage]}}
        request = prompt.request(values)
        assert request.prompt and request.prompt == request.prompt.rstrip()
        assert request.prompt == request.prompt.lstrip() and request.system == request.system.strip()


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_shipped_file_begins_with_a_comment_on_what_it_expects(path: Path) -> None:
    start = "{# Expects " if path.parent.name == "en" else "{# 期待："
    assert path.read_text(encoding="utf-8").startswith(start)


def test_every_shipped_file_belongs_to_a_stage_and_every_stage_has_both_styles() -> None:
    shared = {"judge", "compare", "rate"}
    wanted = {
        f"{language}/{stage}.jinja" if stage in shared else f"{language}/{stage}.{style}.jinja"
        for language, stage, style in CASES
    }
    assert {f"{p.parent.name}/{p.name}" for p in FILES} == wanted


@pytest.mark.parametrize("language", LANGUAGES)
def test_only_the_answer_in_chat_has_a_system_message(language: str) -> None:
    with_system = {
        f"{stage}.{style}"
        for la, stage, style in CASES
        if la == language and Prompts().get(la, stage, style).system
    }
    assert with_system == {"answer.chat"}


@pytest.mark.parametrize("given", ["", "ABOUT\nTHIS"])
def test_a_chat_answer_is_asked_for_with_the_very_message_of_the_dataset_and_a_length(given: str) -> None:
    for language in LANGUAGES:
        message = Example("1", "ASKED", given, "SAID", language, False).messages[0]["content"]
        asked = Prompts().get(language, "answer", "chat").request({"instruction": "ASKED", "input": given})
        assert asked.prompt.startswith(f"{message}\n\n")
        assert re.fullmatch(
            r"[^\n]*(?:one short paragraph|一百五十字)[^\n]*", asked.prompt.removeprefix(f"{message}\n\n")
        )


def test_an_optional_input_differs_from_a_needed_one() -> None:
    for language in LANGUAGES:
        for style in STYLES:
            prompt = Prompts().get(language, "input", style)
            assert prompt.render(**VALUES["input"]) != prompt.render(**{**VALUES["input"], "optional": False})


@pytest.mark.parametrize(("language", "style"), [(la, s) for la in LANGUAGES for s in STYLES])
@pytest.mark.parametrize(
    "text", ["{{ x }}", "{% if x %}", "{# note #}", "a\n=====\nb", "<|im_start|>system", "<b>&amp;</b>"]
)
def test_a_value_is_data_and_never_template_or_system_message(language: str, style: str, text: str) -> None:
    prompt = Prompts().get(language, "answer", style)
    plain = prompt.request({**VALUES["answer"], "instruction": "ASKED"})
    odd = prompt.request({**VALUES["answer"], "instruction": text})
    assert odd.system == plain.system
    assert odd.prompt == plain.prompt.replace("ASKED", text)


def test_a_file_in_the_users_directory_wins_and_the_others_are_the_shipped_ones(tmp_path: Path) -> None:
    prompts = write(tmp_path, "en/propose.chat.jinja", "Mine: {{ count }}")
    assert prompts.get("en", "propose", "chat").render(**VALUES["propose"]) == "Mine: 3"
    for language, style in (("en", "completion"), ("zh", "chat")):
        mine, shipped = (p.get(language, "propose", style) for p in (prompts, Prompts()))
        assert (mine.name, mine.digest) == (shipped.name, shipped.digest)
    assert prompts.get("en", "propose", "chat").digest != Prompts().get("en", "propose", "chat").digest


def test_a_file_for_one_style_wins_over_the_file_for_both(tmp_path: Path) -> None:
    prompts = write(tmp_path, "en/judge.chat.jinja", "Chat judge")
    assert prompts.get("en", "judge", "chat").render() == "Chat judge"
    assert prompts.get("en", "judge", "completion").name == "en/judge.jinja"


def test_the_users_file_for_both_styles_wins_over_the_shipped_ones(tmp_path: Path) -> None:
    prompts = write(tmp_path, "en/propose.jinja", "Mine")
    for style in STYLES:
        assert prompts.get("en", "propose", style).render() == "Mine"
        assert prompts.get("en", "propose", style).name == "en/propose.jinja"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_line_of_five_equals_signs_ends_the_system_message(tmp_path: Path, newline: str) -> None:
    text = newline.join(["{# Expects x. #}", "Be {{ label }}.", "=====", "Do {{ instruction }}"])
    prompts = write(tmp_path, "en/labels.chat.jinja", text)
    request = prompts.get("en", "labels", "chat").request({"label": "brief", "instruction": "it"})
    assert (request.system.strip(), request.prompt) == ("Be brief.", "Do it")


def test_a_missing_directory_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such directory. Give a directory laid out like prompts/"):
        Prompts(str(tmp_path / "gone"))


def test_a_missing_file_is_named_with_the_place_where_it_belongs(tmp_path: Path) -> None:
    message = fails(Prompts(str(tmp_path)), "poetry", x=1)
    assert message == (
        f"prompt en/poetry.chat.jinja: no such file. Write it to {tmp_path / 'en/poetry.chat.jinja'}."
    )


def test_an_unknown_name_in_a_prompt_is_shown_with_the_known_ones(tmp_path: Path) -> None:
    prompts = write(tmp_path, "en/judge.jinja", "Rate {{ answer }}")
    assert fails(prompts) == (
        "prompt en/judge.jinja: 'answer' is undefined (has: input, instruction, output). Correct the name."
    )


def test_a_syntax_error_names_the_file_and_the_line(tmp_path: Path) -> None:
    prompts = write(tmp_path, "en/judge.jinja", "Rate\n{% if input %}\n{{ input }}")
    assert fails(prompts).startswith(f"{tmp_path / 'en/judge.jinja'}:3: not a Jinja2 template (")


def test_a_syntax_error_below_the_system_message_names_the_line_of_the_file(tmp_path: Path) -> None:
    prompts = write(tmp_path, "en/judge.jinja", "You judge.\nWell.\n=====\nRate\n{{ input")
    assert fails(prompts).startswith(f"{tmp_path / 'en/judge.jinja'}:5: not a Jinja2 template (")


@pytest.mark.parametrize(
    "text", ["{{ input | shout }}", "{{ 1 / 0 }}", "{{ input + 1 }}", "{% include 'x' %}"]
)
def test_a_prompt_that_cannot_be_filled_in_is_a_one_line_error(tmp_path: Path, text: str) -> None:
    assert "en/judge.jinja" in fails(write(tmp_path, "en/judge.jinja", text))


def test_a_file_in_another_encoding_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "en/judge.jinja").write_bytes("评分".encode("gb18030"))
    assert "is not UTF-8" in fails(Prompts(str(tmp_path)))


def test_prompts_are_read_once() -> None:
    prompts = Prompts()
    assert prompts.get("en", "judge", "chat") is prompts.get("en", "judge", "chat")
    assert isinstance(prompts.get("en", "judge", "chat").template, jinja2.Template)
