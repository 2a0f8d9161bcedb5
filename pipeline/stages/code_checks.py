"""What an answer in code or JSON must hold to: it compiles, it parses, and its fences close.

Nothing is run: Python is compiled only.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
import warnings

from pipeline.records import Drop
from pipeline.stages.words import quote

# Instructions about code may speak of files, graphs and addresses: the answer is code.
ABOUT_CODE = re.compile(
    r"\b(?:python|javascript|typescript|java|sql|mysql|html|css|rust|golang|regex|regular expression|bash"
    r"|shell|code"
    r"|coding|algorithm|git|json|csv|api|linux|unix|function (?:that|to|which|called|named|\w+\()"
    r"|program (?:that|to|in|which))\b|\bc\+\+|代码|函数|编程|编写程序|脚本|算法|正则",
    re.IGNORECASE,
)
FENCED = re.compile(
    r"^[ \t]*```[ \t]*(?P<tag>[\w+-]*)[^\n]*\n(?P<body>.*?)^[ \t]*```", re.DOTALL | re.MULTILINE
)
CODE_SHARE = 0.6  # of the lines

_CODE_LINE = re.compile(
    r"^\s*(?:def |class |import |from [\w.]+ import|return\b|(?:if|for|while|with|elif|except)\b.*:$|else:"
    r"|try:|print\("
    r"|#|@|//|/\*|\*/|<[/!\w]|const |let |var |function |public |SELECT |FROM |WHERE |GROUP |ORDER |JOIN "
    r"|INSERT "
    r"|UPDATE |CREATE )|[;{}(\[]\s*$|^\s*[\w.\[\]'\"]+(?:, *\w+)* [-+*/]?= |^\s*[\w.]+\([^)]*\)\s*(?:#.*)?$"
    r"|^\s*[)\]}]"
)
_PYTHON_START = re.compile(
    r"(?:def |class |import |from [\w.]+ import|print\(|@|for .+:$|while .+:$|if .+:$|[a-z_]\w* = "
    r"|#)",
    re.MULTILINE,
)
_WANTS_JSON = re.compile(
    r"\b(?:in|as|into|to|return\w*|output|produce|generate|create|write|fill in|give|valid|single|an?"
    r"|only)\s+"
    r"(?:\w+\s+){0,2}?json\b(?! (?:strings|files|parser|data|schema|api))"
    r"|(?:转成|转为|转换成|转换为|输出|返回|生成|写成|整理成|提取成|一个|用|以|按)(?:一个|一份|标准|合法|有效"
    r"|的)*\s*json",
    re.IGNORECASE,
)
_WANTS_CODE = re.compile("python|function|script|代码|函数|脚本", re.IGNORECASE)


def looks_like_code(text: str, share: float = CODE_SHARE) -> bool:
    """Say whether at least `share` of the lines outside of fenced blocks have the look of code."""
    lines = [line for line in FENCED.sub("", text).split("\n") if line.strip()]
    return bool(lines) and sum(bool(_CODE_LINE.search(line)) for line in lines) >= share * len(lines)


def is_json(text: str) -> bool:
    """Say whether the whole text is a JSON object or array."""
    return text.strip()[:1] in ("{", "[") and not _json_error(text)


def invalid_json(instruction: str, output: str) -> Drop | None:
    """Drop what does not parse where JSON was asked for: the first ```json block, else the whole output."""
    if not _WANTS_JSON.search(instruction) or _WANTS_CODE.search(instruction):
        return None
    block = next((m["body"] for m in FENCED.finditer(output) if m["tag"].lower() in ("json", "")), output)
    problem = _json_error(block)
    return Drop("invalid_json", quote(problem)) if problem else None


def invalid_python(instruction: str, output: str) -> Drop | None:
    """Drop code that does not compile where Python was asked for: every ```python block, else the output."""
    if "python" not in instruction.lower():
        return None
    blocks = [m["body"] for m in FENCED.finditer(output) if m["tag"].lower() in ("python", "py", "python3")]
    if "```" not in output and _PYTHON_START.match(output.lstrip()) and looks_like_code(output):
        blocks = [output]
    for block in blocks:
        problem = None if ">>>" in block else _syntax_error(textwrap.dedent(block))  # a session is no module
        if problem:
            return Drop("invalid_python", quote(problem))
    return None


def num_fences(text: str) -> int:
    """Count the lines that open or close a code block."""
    return len(re.findall(r"^[ \t]*```", text, re.MULTILINE))


def _json_error(text: str) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


def _syntax_error(code: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            compile(code, "<output>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        except SyntaxError as error:
            return f"line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
        except (ValueError, MemoryError, RecursionError, OverflowError) as error:
            return str(error) or type(error).__name__
    return ""
