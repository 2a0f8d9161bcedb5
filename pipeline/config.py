"""Options of a command: one frozen dataclass, filled from defaults, then a YAML file, then flags.

    @dataclass(frozen=True)
    class Options:
        num_examples: int = option(100, "kept examples to stop at", unit="examples", low=1)

    options = parse(Options, argv, doc=__doc__)

Field types: str, int, float, bool, a `tuple[T, ...]` of the first three, or any of these `| None`. Values are
cast by the declared type wherever they come from (YAML 1.1 reads `5e-5` as a string) and checked against
`choices`, `low` and `high`; an unknown name is refused with the nearest known one.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pipeline.errors import PipelineError
from pipeline.records import check_characters, read_text

OptionsT = TypeVar("OptionsT")


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    metavar: str = "",
    group: str = "options",
    positional: bool = False,
) -> Any:
    """Declare a dataclass field that is also a flag and a YAML key; `low` and `high` are inclusive.

    A `positional` one, a tuple, takes the words of the command line that belong to no flag.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "unit": unit,
            "low": low,
            "high": high,
            "choices": choices,
            "metavar": metavar,
            "group": group,
            "positional": positional,
        },
    )


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are PipelineErrors with a suggestion."""

    known: frozenset[str] = frozenset()

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before leaving."""
        if message.startswith("unrecognized arguments: "):
            word = (message.removeprefix("unrecognized arguments: ").split() or [""])[0].split("=")[0]
            what = f"{'option' if word.startswith('-') else 'argument'} '{word}'"
            raise unknown("command line", what, word, self.known)
        raise PipelineError("command line", message.replace("argument ", "", 1), f"See {self.prog} --help")


def parse(
    cls: type[OptionsT],
    argv: list[str],
    *,
    prog: str,
    doc: str,
    base: Path | typing.Mapping[str, Any] | None = None,
) -> OptionsT:
    """Build `cls` from `argv` (and the YAML file that `--config` names). Raises PipelineError.

    `base` is below all of these: values, or a YAML file of them such as the configuration of a run that is
    resumed.
    """
    parser, fields = _parser(cls, prog, doc), _fields(cls)
    given = vars(parser.parse_intermixed_args(argv))
    config = given.pop("config", None)
    below = _read_yaml(base, fields) if isinstance(base, Path) else base or {}
    file = {} if config is None else _read_yaml(Path(config), fields)
    return build(cls, {**below, **file, **given}, flag)


def build(
    cls: type[OptionsT], values: dict[str, Any], where: typing.Callable[[str], str] = lambda name: name
) -> OptionsT:
    """Build `cls` from raw `values` by field name, cast and checked; errors begin with `where(name)`."""
    fields = _fields(cls)
    for name in values:
        if name not in fields:
            raise unknown(where(name), f"option '{name}'", name, fields)
    return cls(**{name: cast(value, *fields[name], where=where(name)) for name, value in values.items()})


def flag(name: str) -> str:
    """The command-line spelling of a field name."""
    return "--" + name.replace("_", "-")


def as_dict(options: Any) -> dict[str, Any]:
    """Every option with its resolved value, as YAML and JSON can hold it (tuples become lists)."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(options).items()}


def unknown(where: object, what: str, word: str, known: typing.Iterable[str]) -> PipelineError:
    """The error for an unknown name, with the nearest known one."""
    close = difflib.get_close_matches(word, list(known), 1, 0.5)
    return PipelineError(where, f"unknown {what}", f"Did you mean '{close[0]}'?" if close else "See --help")


def cast(value: Any, declared: Any, meta: typing.Mapping[str, Any], *, where: str) -> Any:
    """Cast `value` to the `declared` type and check it against its limits. Raises PipelineError."""
    kind, many, optional = _shape(declared)
    if value is None and optional:
        return None
    if many:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_scalar(item, kind, meta, where) for item in items)
    return _scalar(value, kind, meta, where)


def _scalar(value: Any, kind: type, meta: typing.Mapping[str, Any], where: str) -> Any:
    unit = f" ({meta['unit']})" if meta.get("unit") else ""
    wanted = f"expected {_NAMES[kind]}{unit}"
    if isinstance(value, bool) and (word := "on" if value else "off") in (meta.get("choices") or ()):
        value = word  # YAML 1.1 takes a bare on or off for a truth value
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, str | int | float):
        raise PipelineError(where, f"got {value!r}, {wanted}", "Correct the value.")
    if isinstance(value, str):
        check_characters(value, where)
    try:
        result = kind(value)
    except (ValueError, OverflowError):
        raise PipelineError(where, f"got {value!r}, {wanted}", "Correct the value.") from None
    nan, fraction = result != result, kind is int and isinstance(value, float) and value != result
    if nan or fraction:
        raise PipelineError(where, f"got {value!r}, {wanted}", "Correct the value.")
    low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
    if (low is not None and not result >= low) or (high is not None and not result <= high):
        problem = f"got {value}, expected {_range(meta)}{unit}"
        raise PipelineError(where, problem, "Choose a value in that range.")
    if choices and result not in choices:
        close = difflib.get_close_matches(str(value), choices, 1, 0.5)
        fix = f"Did you mean '{close[0]}'?" if close else "Choose one of them."
        raise PipelineError(where, f"got '{value}', expected one of {', '.join(choices)}", fix)
    return result


_NAMES: dict[Any, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _range(meta: typing.Mapping[str, Any]) -> str:
    low, high = (None if limit is None else f"{limit:.15g}" for limit in (meta["low"], meta["high"]))
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"


def _shape(declared: Any) -> tuple[Any, bool, bool]:
    """(scalar type, is it a tuple of them, may it be None) of a field's declared type."""
    optional = False
    if typing.get_origin(declared) in (types.UnionType, typing.Union):
        inner = [t for t in typing.get_args(declared) if t is not type(None)]
        declared, optional = inner[0], True
    if typing.get_origin(declared) is tuple:
        return typing.get_args(declared)[0], True, optional
    return declared, False, optional


def _fields(cls: Any) -> dict[str, tuple[Any, typing.Mapping[str, Any]]]:
    hints = typing.get_type_hints(cls)
    return {f.name: (hints[f.name], f.metadata) for f in dataclasses.fields(cls)}


def _parser(cls: Any, prog: str, doc: str) -> _Parser:
    parser = _Parser(
        prog=prog,
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of options; flags win over it")
    parser._negative_number_matcher = re.compile(r"-\.?\d")  # argparse's own takes -1e-3 for an option
    fields, groups = _fields(cls), {}
    for f in dataclasses.fields(cls):
        kind, many, _ = _shape(fields[f.name][0])
        title = f.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        group = groups[title]
        text = _help(f)
        metavar = f.metadata["metavar"] or {int: "N", float: "X"}.get(kind, "TEXT")
        if kind is bool:
            group.add_argument(flag(f.name), action=argparse.BooleanOptionalAction, help=text)
        elif f.metadata["positional"]:
            group.add_argument(f.name, nargs="*", metavar=metavar, help=text)
        else:
            group.add_argument(flag(f.name), nargs="+" if many else None, metavar=metavar, help=text)
    parser.known = frozenset(parser._option_string_actions)
    return parser


def _help(f: dataclasses.Field[Any]) -> str:
    unit, choices, default = f.metadata["unit"], f.metadata["choices"], f.default
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    parts = [f.metadata["help"], f"one of: {', '.join(choices)}" if choices else "", unit]
    if f.metadata["low"] is not None or f.metadata["high"] is not None:
        parts.append(_range(f.metadata))
    parts.append(f"default: {'none' if shown in (None, '') else shown}")
    return "; ".join(p for p in parts if p).replace("%", "%%")


def _read_yaml(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Every value of the file, checked whether or not a flag overrides it."""
    import yaml

    try:
        data = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-45
        mark = getattr(error, "problem_mark", None)
        where, problem = f"{path}:{mark.line + 1}" if mark else path, getattr(error, "problem", None) or error
        raise PipelineError(where, f"not YAML ({problem})", "Mend the file.") from None
    data = {} if data is None else data
    if not isinstance(data, dict):
        problem = f"got {type(data).__name__}, expected 'option: value' lines"
        raise PipelineError(path, problem, "Mend the file.")
    values = {str(key).replace("-", "_"): value for key, value in data.items()}
    for key in values:
        if key not in fields:
            raise unknown(path, f"option '{key}'", key, fields)
    return {key: cast(value, *fields[key], where=f"{path}: {key}") for key, value in values.items()}
