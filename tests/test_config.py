"""Options: defaults < YAML < flags, cast by declared type, refused with a suggestion."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Optional

import pytest

from pipeline.config import as_dict, build, cast, flag, option, parse
from pipeline.errors import PipelineError


@dataclasses.dataclass(frozen=True)
class Options:
    """One option of every kind."""

    num_examples: int = option(100, "kept examples to stop at", unit="examples", low=1, high=5_000_000)
    lr: float = option(1e-3, "learning rate", low=0, high=1)
    offset: float = option(0.0, "added to 100% of scores", group="scores")
    judge: bool = option(False, "let the model judge", group="scores")
    stream: bool = option(True, "show answers as they come")
    languages: tuple[str, ...] = option(("en", "zh"), "languages to write", choices=("en", "zh"))
    weights: tuple[float, ...] = option((), "weights", low=0)
    style: str = option("chat", "prompt style", choices=("chat", "completion"))
    model: str = option("", "model folder", metavar="DIR")
    limit: int | None = option(None, "requests to stop at", unit="requests", low=1)
    kinds: tuple[str, ...] | None = option(None, "kinds")
    cap: Optional[float] = option(None, "cap", high=1)  # noqa: UP045 - the older spelling must work as well
    NOT_AN_OPTION: ClassVar[int] = 3


def parsed(*argv: str) -> Options:
    return parse(Options, list(argv), prog="pipeline.test", doc="What it does: 100% of it.")


def refusal(*argv: str) -> str:
    with pytest.raises(PipelineError) as caught:
        parsed(*argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def from_yaml(folder: Path, text: str | bytes) -> str:
    path = folder / "o.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_defaults_hold_when_nothing_is_given() -> None:
    assert parsed() == Options()


def test_yaml_wins_over_defaults_and_flags_win_over_yaml(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "num_examples: 7\nlr: 0.5\n")
    got = parsed("--lr", "0.25", "--config", config)
    assert (got.num_examples, got.lr, got.style) == (7, 0.25, "chat")


def test_yaml_keys_may_use_dashes_as_the_flags_do(tmp_path: Path) -> None:
    assert parsed("--config", from_yaml(tmp_path, "num-examples: 7\n")).num_examples == 7


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_a_yaml_file_without_options_changes_nothing(tmp_path: Path, text: str) -> None:
    assert parsed("--config", from_yaml(tmp_path, text)) == Options()


def test_numbers_that_yaml_reads_as_text_are_cast_by_the_declared_type(tmp_path: Path) -> None:
    # YAML 1.1 wants a dot in a float: 5e-5 arrives as the text "5e-5", and so does a quoted number.
    got = parsed("--config", from_yaml(tmp_path, 'lr: 5e-5\nnum_examples: "12"\nmodel: 7\nlimit: 3.0\n'))
    assert (got.lr, got.num_examples, got.model, got.limit) == (5e-5, 12, "7", 3)
    assert isinstance(got.limit, int)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("num_examples: many", "num_examples: got 'many', expected a whole number (examples). "),
        ("num_examples: 2.5", "num_examples: got 2.5, expected a whole number (examples). "),
        ("num_examples: .inf", "num_examples: got inf, expected a whole number (examples). "),
        ("num_examples: true", "num_examples: got True, expected a whole number (examples). "),
        ("num_examples: [3]", "num_examples: got [3], expected a whole number (examples). "),
        ("num_examples:", "num_examples: got None, expected a whole number (examples). "),
        ("num_examples: 0", "num_examples: got 0, expected 1 to 5000000 (examples). "),
        ("limit: -1", "limit: got -1, expected at least 1 (requests). "),
        ("cap: 1.5", "cap: got 1.5, expected at most 1. "),
        ("lr: fast", "lr: got 'fast', expected a number. "),
        ("lr: .nan", "lr: got nan, expected a number. "),
        ("offset: .nan", "offset: got nan, expected a number. "),
        ("offset: 1" + "0" * 400, "offset: got 1000"),
        ("judge: 1", "judge: got 1, expected true or false. "),
        ('judge: "true"', "judge: got 'true', expected true or false. "),
        ("model: no", "model: got False, expected text. "),
        ("model:", "model: got None, expected text. "),
        ("model: {a: 1}", "model: got {'a': 1}, expected text. "),
        ("model: 2026-01-02", "model: got datetime.date(2026, 1, 2), expected text. "),
        ("languages: [en, [zh]]", "languages: got ['zh'], expected text. "),
        ("languages:", "languages: got None, expected text. "),
        ("languages: [en, fr]", "languages: got 'fr', expected one of en, zh. "),
        ('model: "\\ud800"', "model: \\ud800 is half a surrogate pair, which is no character. "),
        ('kinds: [a, "\\udfff"]', "kinds: \\udfff is half a surrogate pair, which is no character. "),
        ("style: chatt", "style: got 'chatt', expected one of chat, completion. Did you mean 'chat'?"),
        ("style: other", "style: got 'other', expected one of chat, completion. Choose one of them."),
        ("num_exmples: 3", "unknown option 'num_exmples'. Did you mean 'num_examples'?"),
        ("zzz: 3", "unknown option 'zzz'. See --help"),
        ("- 3", "got list, expected 'option: value' lines. "),
        ("[]", "got list, expected 'option: value' lines. "),
        ("false", "got bool, expected 'option: value' lines. "),
        ("just words", "got str, expected 'option: value' lines. "),
        ("model: 2026-13-45", "not YAML (month must be in 1..12). "),
    ],
)
def test_an_unusable_yaml_value_is_refused_with_file_and_option(
    tmp_path: Path, line: str, message: str
) -> None:
    config = from_yaml(tmp_path, line + "\n")
    assert refusal("--config", config).startswith(f"{config}: {message}")


@pytest.mark.parametrize(
    ("line", "flags", "message"),
    [
        ("num_examples: 0", ["--num-examples", "3"], "num_examples: got 0, expected 1 to 5000000"),
        ("judge: 1", ["--judge"], "judge: got 1, expected true or false"),
        ("languages: [en, 5]", ["--languages", "en"], "languages: got '5', expected one of en, zh"),
    ],
)
def test_a_value_of_the_file_is_checked_although_a_flag_overrides_it(
    tmp_path: Path, line: str, flags: list[str], message: str
) -> None:
    config = from_yaml(tmp_path, line + "\n")
    assert refusal("--config", config, *flags).startswith(f"{config}: {message}")


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "lr: 0.1\nmodel: a: b\n")
    assert refusal("--config", config).startswith(
        f"{config}:2: not YAML (mapping values are not allowed here)"
    )


def test_a_yaml_file_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, b"lr: 0.1\nmodel: " + "模型".encode("gb18030"))
    # 模 is c4 a3 in GB18030 (valid in UTF-8 as it happens: U+0123); 型 is d0 cd, and cd cannot follow d0.
    assert refusal("--config", config).startswith(f"{config}:2: byte 0xd0 is not UTF-8")


@pytest.mark.parametrize("name", ["", "none.yaml"])
def test_a_missing_config_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal("--config", name).startswith(f"{Path(name)}: ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--num-exmples", "3"],
            "command line: unknown option '--num-exmples'. Did you mean '--num-examples'?",
        ),
        (["--num-exmples=3"], "command line: unknown option '--num-exmples'. Did you mean '--num-examples'?"),
        (["--num_examples", "3"], "command line: unknown option '--num_examples'. Did you mean"),
        (["--num", "3"], "command line: unknown option '--num'. "),
        (["--no-jugde"], "command line: unknown option '--no-jugde'. Did you mean '--no-judge'?"),
        (["中文"], "command line: unknown argument '中文'. See --help"),
        ([""], "command line: unknown argument ''. See --help"),
        (["--lr"], "command line: --lr: expected one argument. See pipeline.test --help"),
        (["--languages"], "command line: --languages: expected at least one argument. "),
        (["--judge=yes"], "command line: --judge/--no-judge: ignored explicit argument 'yes'. "),
        (["--num-examples", "1e3"], "--num-examples: got '1e3', expected a whole number (examples). "),
        (["--num-examples", "0"], "--num-examples: got 0, expected 1 to 5000000 (examples). "),
        (["--num-examples", "5000001"], "--num-examples: got 5000001, expected 1 to 5000000 (examples). "),
        (["--lr", "nan"], "--lr: got 'nan', expected a number. "),
        (["--lr", "inf"], "--lr: got inf, expected 0 to 1. "),
        (["--lr", "-1e-3"], "--lr: got -1e-3, expected 0 to 1. "),
        (["--offset", "nan"], "--offset: got 'nan', expected a number. "),
        (["--languages", "en", "zz"], "--languages: got 'zz', expected one of en, zh. "),
        (["--weights", "0.5", "-1"], "--weights: got -1, expected at least 0. "),
        (
            ["--style", "chatt"],
            "--style: got 'chatt', expected one of chat, completion. Did you mean 'chat'?",
        ),
    ],
)
def test_an_unusable_flag_is_refused_with_its_name(argv: list[str], message: str) -> None:
    assert refusal(*argv).startswith(message)


def test_limits_are_inclusive() -> None:
    assert (parsed("--lr", "0").lr, parsed("--lr", "1").lr) == (0.0, 1.0)


@pytest.mark.parametrize("text", ["-1e-3", "-.5", "-2", "-0.001", "1e-3"])
def test_negative_numbers_in_any_notation_are_values_and_not_options(text: str) -> None:
    assert parsed("--offset", text).offset == float(text)


def test_bool_flags_turn_on_and_off_over_yaml(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "judge: yes\nstream: false\n")
    got = parsed("--config", config)
    assert (got.judge, got.stream) == (True, False)
    got = parsed("--config", config, "--no-judge", "--stream")
    assert (got.judge, got.stream) == (False, True)


def test_tuples_come_from_several_words_a_list_or_a_single_value(tmp_path: Path) -> None:
    assert parsed("--languages", "zh", "en").languages == ("zh", "en")
    assert parsed("--weights", "1", "5e-1").weights == (1.0, 0.5)
    assert parsed("--config", from_yaml(tmp_path, "languages: [zh]\nweights: [1, 5e-1]\n")).weights == (
        1.0,
        0.5,
    )
    assert parsed("--config", from_yaml(tmp_path, "languages: zh\n")).languages == ("zh",)
    assert parsed("--config", from_yaml(tmp_path, "languages: []\n")).languages == ()


def test_none_is_for_optional_options_only(tmp_path: Path) -> None:
    got = parsed("--config", from_yaml(tmp_path, "limit: null\nkinds: ~\ncap:\n"))
    assert (got.limit, got.kinds, got.cap) == (None, None, None)
    got = parsed("--limit", "5", "--kinds", "a", "b", "--cap", "0.5")
    assert (got.limit, got.kinds, got.cap) == (5, ("a", "b"), 0.5)


def test_help_names_purpose_units_ranges_choices_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    for part in (
        "What it does: 100% of it.",
        "--config FILE YAML file of options; flags win over it",
        "--num-examples N kept examples to stop at; examples; 1 to 5000000; default: 100",
        "--lr X learning rate; 0 to 1; default: 0.001",
        "--offset X added to 100% of scores; default: 0.0",
        "--judge, --no-judge let the model judge; default: False",
        "languages to write; one of: en, zh; default: en zh",
        "weights; at least 0; default: none",
        "--style TEXT prompt style; one of: chat, completion; default: chat",
        "--model DIR model folder; default: none",
        "requests to stop at; requests; at least 1; default: none",
        "cap; at most 1; default: none",
        "scores:",
    ):
        assert part in shown
    assert "==SUPPRESS==" not in shown and shown.count("default: False") == 1


def test_resolved_options_repeat_the_run_through_yaml(tmp_path: Path) -> None:
    import yaml

    first = parsed("--lr", "5e-5", "--languages", "zh", "--judge", "--limit", "3")
    assert as_dict(first)["languages"] == ["zh"]
    config = from_yaml(tmp_path, yaml.safe_dump(as_dict(first)))
    assert parsed("--config", config) == first


def test_build_casts_raw_values_and_refuses_unknown_names() -> None:
    assert build(Options, {"lr": "5e-5", "languages": "zh"}) == Options(lr=5e-5, languages=("zh",))
    with pytest.raises(PipelineError, match="run.json: unknown option 'stlye'. Did you mean 'style'?"):
        build(Options, {"stlye": "chat"}, where=lambda name: "run.json")


def test_flag_spells_a_field_with_dashes() -> None:
    assert flag("num_examples") == "--num-examples"


def test_cast_works_without_metadata() -> None:
    values: list[tuple[Any, Any, Any]] = [("3", int, 3), (3, float, 3.0), ("x", tuple[str, ...], ("x",))]
    assert [cast(value, kind, {}, where="x") for value, kind, _ in values] == [want for *_, want in values]


@dataclasses.dataclass(frozen=True)
class WithFiles(Options):
    """The same with words that belong to no flag."""

    files: tuple[str, ...] = option((), "files to read", metavar="IN", positional=True)


def with_files(*argv: str) -> WithFiles:
    return parse(WithFiles, list(argv), prog="pipeline.test", doc="What it does.")


@pytest.mark.parametrize(
    "line",
    [
        "a.jsonl b.jsonl --lr 0.5 --judge",
        "--lr 0.5 --judge a.jsonl b.jsonl",
        "--judge a.jsonl --lr 0.5 b.jsonl",
    ],
)
def test_words_that_belong_to_no_flag_fill_the_positional_option(line: str) -> None:
    got = with_files(*line.split())
    assert (got.files, got.lr, got.judge) == (("a.jsonl", "b.jsonl"), 0.5, True)


def test_a_positional_option_is_a_yaml_key_too_and_words_win_over_it(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "files: [a.jsonl]\n")
    assert with_files().files == ()
    assert with_files("--config", config).files == ("a.jsonl",)
    assert with_files("b.jsonl", "--config", config).files == ("b.jsonl",)


def test_an_unknown_flag_beside_positional_words_is_refused() -> None:
    with pytest.raises(PipelineError, match="unknown option '--jugde'. Did you mean '--judge'"):
        with_files("a.jsonl", "--jugde")


@dataclasses.dataclass(frozen=True)
class Switches:
    """Choices that YAML 1.1 reads as truth values."""

    cache: str = option("auto", "keep answers", choices=("auto", "on", "off"))
    search: str = option("report", "what is found", choices=("off", "report"))


def test_a_bare_on_or_off_of_yaml_is_the_choice_of_that_name(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "cache: on\nsearch: off\n")
    assert parse(Switches, ["--config", config], prog="x", doc="") == Switches("on", "off")
    with pytest.raises(PipelineError, match="got True, expected text"):
        parse(Switches, ["--config", from_yaml(tmp_path, "search: on\n")], prog="x", doc="")
