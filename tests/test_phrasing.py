"""The phrasings: no word is lost or added to the answer, data files are checked, and the shares are kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.format.phrasing import FAMILIES, Asked, Phrased, Shares, phrase
from pipeline.format.phrasing_files import (
    FOLDER,
    MIN_FORM,
    MIN_KIND,
    Section,
    fill,
    read_flan,
    read_self_instruct,
)
from pipeline.records import LANGUAGES, Example
from pipeline.stages.seeds import TAGS

FLAN = {language: FOLDER / f"flan.{language}.yaml" for language in LANGUAGES}
SELF_INSTRUCT = FOLDER / "self-instruct.yaml"
NEVER = Shares(inversion=0, chain_of_thought=0, few_shot=0)
LONG = " ".join(f"word{i}" for i in range(20))
ROW = Asked("Name it.", "", LONG, "en", "classification")


def said(phrased: Phrased) -> tuple[str, str]:
    user, assistant = phrased.messages
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    return user["content"], assistant["content"]


def sections(language: str) -> Iterator[tuple[str, Section]]:
    flan = read_flan(FLAN[language])
    yield from flan.kinds.items()
    yield "options", flan.options
    yield "inversion", flan.inversion
    yield "chain_of_thought", flan.chain_of_thought


def texts(language: str) -> list[str]:
    few_shot = read_flan(FLAN[language]).few_shot
    found = [p.text for _, section in sections(language) for p in (*section.with_input, *section.alone)]
    return found + [text for form in few_shot for text in (form.head, form.alone, form.with_input) if text]


def refusal(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError) as caught:
        read_flan(path)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def changed(tmp_path: Path, old: str, new: str) -> str:
    """What is said of our English file with one thing changed."""
    text = FLAN["en"].read_text(encoding="utf-8")
    assert old in text
    return refusal(tmp_path / "flan.en.yaml", text.replace(old, new, 1))


# ---- no word is lost ----

CHARACTERS = st.sampled_from("ab {}$\\%\n<>'\"中文，。{instruction}{input}") | st.characters(codec="utf-8")
TEXT = st.text(CHARACTERS, max_size=20)
WORDS = TEXT.filter(str.strip)
ROWS = st.builds(
    Asked,
    instruction=WORDS,
    input=TEXT,
    output=WORDS,
    language=st.sampled_from(LANGUAGES),
    kind=st.sampled_from([*TAGS, "conversation", "", "no such kind"]),
    rationale=TEXT,
    options=st.lists(WORDS, max_size=3).map(tuple),
)
HALF = Shares(0.3, 0.5, 0.5, min_inversion_words=0)


@given(ROWS, st.sampled_from(FAMILIES), st.text(max_size=5), st.lists(ROWS, max_size=3))
def test_every_word_of_a_row_is_said_and_none_is_added_to_the_answer(
    row: Asked, family: str, key: str, shots: list[Asked]
) -> None:
    phrased = phrase(row, family, 0, key, shots=shots, shares=HALF)
    assert phrased == phrase(row, family, 0, key, shots=shots, shares=HALF)
    user, assistant = said(phrased)
    told = [row.input] if row.input.strip() else []
    if "inversion" in phrased.variety:
        told, answer = [*told, row.output], row.instruction
    else:
        reasoned = "chain_of_thought" in phrased.variety
        answer = f"{row.rationale}\n\n{row.output}" if reasoned else row.output
        told += [row.instruction, *(row.options if family == "flan" else ())]
    if "few_shot" in phrased.variety:
        told += [text for shot in shots for text in (shot.instruction, shot.output)]
    assert assistant == answer
    assert all(text in user for text in told)


@given(WORDS, WORDS, WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_every_phrasing_of_every_file_says_all(ask: str, text: str, output: str, options: list[str]) -> None:
    lines, inline = "\n".join(f"- {option}" for option in options), " / ".join(options)
    values = {"instruction": ask, "input": text, "output": output, "options": lines, "options_inline": inline}
    found = [text for language in LANGUAGES for text in texts(language)]
    for language in LANGUAGES:
        section = read_self_instruct(SELF_INSTRUCT, language)
        found += [phrasing.text for phrasing in (*section.with_input, *section.alone)]
    assert len(found) > 2 * 16 * 2 * MIN_KIND
    for template in found:
        around = re.split(r"\{(\w+)\}", template)  # words, placeholder, words, placeholder, ..., words
        whole = "".join(values[part] if i % 2 else part for i, part in enumerate(around))
        assert fill(template, values) == whole


def test_an_input_is_used_if_there_is_one_and_never_asked_for_if_not() -> None:
    for language in LANGUAGES:
        for name, section in sections(language):
            assert all("{input}" in phrasing.text for phrasing in section.with_input), name
            assert not any("{input}" in phrasing.text for phrasing in section.alone), name
    user, _ = said(phrase(replace(ROW, input=" \n"), "plain", 0, "a"))
    assert user == ROW.instruction


def test_plain_is_what_an_example_says_itself() -> None:
    for text in ("", "this {thing}"):
        example = Example("a", "Name it.", text, LONG, "en", False)
        phrased = phrase(replace(ROW, input=text), "plain", 0, "a")
        assert list(phrased.messages) == example.messages and phrased.variety == "plain"


# ---- which phrasing is drawn ----


def test_the_draw_depends_on_seed_and_key_and_takes_every_phrasing() -> None:
    drawn = [phrase(ROW, "flan", 0, str(i), shares=NEVER).variety for i in range(400)]
    section = read_flan(FLAN["en"]).kinds["classification"]
    assert set(drawn) == {f"flan/{phrasing.name}" for phrasing in section.alone}
    assert drawn != [phrase(ROW, "flan", 1, str(i), shares=NEVER).variety for i in range(400)]
    assert len({phrase(ROW, "self-instruct", 0, str(i)).variety for i in range(400)}) == 7


def test_a_kind_that_is_not_known_gets_the_default() -> None:
    for kind in ("", "no such kind"):
        phrased = phrase(replace(ROW, kind=kind), "flan", 0, "a", shares=NEVER)
        assert phrased.variety.startswith("flan/default/")


@pytest.mark.parametrize(
    ("instruction", "below"),
    [
        ("Sum up what is below.", True),
        ("概括下面的话。", True),
        ("Sum up the above.", False),
        ("概括上文。", False),
    ],
)
def test_the_input_stands_where_the_instruction_says(instruction: str, below: bool) -> None:
    language = "en" if instruction.isascii() else "zh"
    for kind in ("", *TAGS):
        row = Asked(instruction, "INPUT", "x", language, kind)
        for i in range(30):
            user, _ = said(phrase(row, "flan", 0, str(i), shares=NEVER))
            assert (user.index(instruction) < user.index("INPUT")) == below


def test_options_are_listed_whatever_the_kind() -> None:
    for kind in ("", "classification", "math"):
        row = replace(ROW, kind=kind, options=("good", "bad"))
        user, _ = said(phrased := phrase(row, "flan", 0, kind, shares=NEVER))
        assert "good / bad" in user or "- good\n- bad" in user
        assert phrased.variety.startswith("flan/options/")


def test_the_shares_are_kept() -> None:
    row = replace(ROW, rationale="Because.")
    shots = [replace(row, instruction="Name this.")]
    forms = Counter(phrase(row, "flan", 0, str(i), shots=shots).variety.split("/")[1] for i in range(4000))
    # 0.1 are inverted; of the 3600 others half reason and a quarter show: 450 do both, 1350 reason only,
    # 450 show only, 1350 do neither. Standard deviations are at most 30.
    expected = {
        "inversion": 400,
        "chain_of_thought_few_shot": 450,
        "chain_of_thought": 1350,
        "few_shot": 450,
        "classification": 1350,
    }
    assert forms.keys() == expected.keys()
    assert all(abs(forms[form] - count) < 120 for form, count in expected.items())


def test_an_answer_too_short_to_tell_is_not_inverted() -> None:
    always = replace(NEVER, inversion=1)
    short, chinese = replace(ROW, output=LONG.removesuffix(" word19")), replace(ROW, output="字" * 20)
    assert "inversion" in phrase(ROW, "flan", 0, "a", shares=always).variety
    assert "inversion" in phrase(chinese, "flan", 0, "a", shares=always).variety
    assert "inversion" not in phrase(short, "flan", 0, "a", shares=always).variety
    assert "inversion" not in phrase(replace(ROW, options=("a", "b")), "flan", 0, "a", shares=always).variety


def test_few_shot_examples_come_first_and_the_question_waits_for_its_answer() -> None:
    always = replace(NEVER, few_shot=1)
    shots = [Asked("Add.", "1 2", "three", "en", ""), Asked("Say hello.", "", "hello", "en", "")]
    row = Asked("Subtract.", "9 5", "four", "en", "")
    user, answer = said(phrase(row, "flan", 0, "a", shots=shots, shares=always))
    told = ("Add.", "1 2", "three", "Say hello.", "hello", "Subtract.", "9 5")
    places = [user.index(text) for text in told]
    assert places == sorted(places)
    assert "four" not in user and answer == "four" and not user[-1].isspace()
    assert "few_shot" not in phrase(row, "flan", 0, "a", shares=always).variety  # there are no shots


def test_shots_with_the_same_instruction_may_say_it_once() -> None:
    always = replace(NEVER, few_shot=1)
    row = Asked("Reverse.", "ab", "ba", "en", "")
    shots = [replace(row, input="cd", output="dc")]
    drawn = [said(phrase(row, "flan", 0, str(i), shots=shots, shares=always)) for i in range(50)]
    times = {user.count("Reverse.") for user, _ in drawn}
    assert times == {1, 2}


def test_a_row_reasons_by_example_only_if_every_example_does() -> None:
    always = Shares(inversion=0, chain_of_thought=1, few_shot=1)
    row = replace(ROW, rationale="Because it is so.")
    mute = phrase(row, "flan", 0, "a", shots=[ROW], shares=always)
    assert mute.variety.startswith("flan/chain_of_thought/")
    phrased = phrase(row, "flan", 0, "a", shots=[replace(ROW, rationale="Since I say so.")], shares=always)
    assert phrased.variety.startswith("flan/chain_of_thought_few_shot/")
    assert f"Since I say so.\n\n{LONG}" in said(phrased)[0]
    assert said(phrased)[1] == f"Because it is so.\n\n{LONG}"


@pytest.mark.parametrize(
    ("row", "family", "problem"),
    [(ROW, "flann", "expected one of plain"), (replace(ROW, language="fr"), "plain", "language 'fr'")],
)
def test_an_unknown_family_or_language_is_refused(row: Asked, family: str, problem: str) -> None:
    with pytest.raises(PipelineError, match=problem):
        phrase(row, family, 0, "a")


# ---- the files ----


def test_every_kind_of_the_seeds_has_phrasings_in_both_languages() -> None:
    english, chinese = (read_flan(FLAN[language]) for language in LANGUAGES)
    assert english.kinds.keys() == chinese.kinds.keys() == {*TAGS, "conversation", "default"}
    assert min(map(len, (english.few_shot, chinese.few_shot))) >= 2 * MIN_FORM


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_phrasings_of_a_kind_are_the_same_but_for_white_space(language: str) -> None:
    for name, section in sections(language):
        found = ["".join(p.text.split()) for p in (*section.with_input, *section.alone)]
        assert len(set(found)) == len(found), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_phrasings_of_a_kind_differ_in_form(language: str) -> None:
    for name, section in sections(language):
        if name in ("inversion", "chain_of_thought"):
            continue
        both = [p.text for p in (*section.with_input, *section.alone)]
        first = Counter(p.text.index("{input}") < p.text.index("{instruction}") for p in section.with_input)
        assert first[True] >= 2 and first[False] >= 2, f"{name}: the input before or after"
        assert any("?" in text or "？" in text for text in both), f"{name}: a question"
        assert any(text.endswith((":", "：", "Answer", "】")) for text in both), f"{name}: an answer cue"
        assert any(text.endswith("}") for text in both), f"{name}: no answer cue"


def test_each_file_is_in_its_language() -> None:
    own = yaml.safe_load(SELF_INSTRUCT.read_text(encoding="utf-8"))
    wide = re.compile(r"[\u3000-\u9fff\uff00-\uffef]")
    assert not [text for text in texts("en") + own["en"] if wide.search(text)]
    for text in texts("zh") + own["zh"]:
        words = re.sub(r"\{\w+\}", "", text)
        assert not re.search(r"[A-Za-z]", words), text
        assert not re.search(r"[,.:;?!]", words), f"half-width punctuation: {text}"
        # nothing but placeholders and rules, or Chinese
        assert re.search(r"[\u4e00-\u9fff]", words) or not re.search(r"\w", words), text


def test_a_file_that_is_not_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    assert ":2: not YAML" in refusal(tmp_path / "a.yaml", "kinds:\n  default: [}\n")
    assert "got str, expected a mapping" in refusal(tmp_path / "b.yaml", "kinds")
    with pytest.raises(PipelineError, match="no such file"):
        read_flan(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"Q: {instruction}\\nA:"', '"Q: {question}\\nA:"', "default/17: unknown placeholder {question}"),
        ('"Q: {instruction}\\nA:"', '"Q: {instruction\\nA:"', "default/17: unknown placeholder {"),
        ('"Q: {instruction}\\nA:"', '"Q:"', "default/17: got no placeholder, expected {instruction}"),
        ('"Q: {instruction}\\nA:"', '"{instruction} {instruction}"', "got {instruction} {instruction}"),
        ('"Q: {instruction}\\nA:"', '"{instruction} {output}"', "got {instruction} {output}"),
        ('"Q: {instruction}\\nA:"', "{instruction: A}", "default/17: {'instruction': 'A'}, expected text"),
        ("  coding:", "  coding: []\n  sleeping:", "'coding' has 0 phrasings for rows with an input"),
        ("  coding:", "  coding: none\n  sleeping:", "'coding' is str, expected a list"),
        ("  default:", "  sleeping:", "no section 'default'"),
        ("inversion:", "inversions:", "no section 'inversion'"),
        ("kinds:", "more: []\nkinds:", "unknown section 'more'"),
        ('"{options}\\n\\nThose', '"Those', "options/6: got {input} {instruction}, expected"),
        ("few_shot:", "few_shot: []\n#", "not YAML"),
        ('alone: "Q: {instruction}\\nA: {output}"', 'alone: "Q: {instruction}"', "few_shot/1 alone: got"),
        ('\\nA: {output}"', '\\nA: {output}!"', "few_shot/1 alone: it does not end with {output}"),
        ('- alone: "Q:', '- tail: "x"\n    alone: "Q:', "few_shot/1: unknown section 'tail'"),
        ('head: "{instruction}"', 'head: "{instruction}"\n    alone: "x"', "every example needs an input"),
        ('head: "Go by the examples."', 'head: "{input}"', "few_shot/3 head: got {input}"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert problem in changed(tmp_path, old, new)


def test_a_kind_with_too_few_phrasings_is_refused(tmp_path: Path) -> None:
    text = FLAN["en"].read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    data["kinds"]["math"] = data["kinds"]["math"][:-1]
    said = refusal(tmp_path / "flan.en.yaml", yaml.safe_dump(data))
    assert "'math' has 7 phrasings for rows without an input, expected at least 8" in said
    data = yaml.safe_load(text)
    data["few_shot"] = data["few_shot"][3:]
    assert "'few_shot' has 2 forms" in refusal(tmp_path / "b.yaml", yaml.safe_dump(data))
