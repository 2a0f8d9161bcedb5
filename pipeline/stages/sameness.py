"""Instructions that set a thing against itself, and choices that say the same label again and again."""

from __future__ import annotations

import re
from collections import Counter

from pipeline.records import Drop
from pipeline.stages.text import CJK, collapse, units
from pipeline.stages.words import quote

QUOTED = re.compile(
    r"“[^”]*”|‘[^’]*’|「[^」]*」|『[^』]*』|《[^》]*》|\"[^\"]*\"|(?<!\w)'[^'\n]*'(?!\w)|`[^`]*`"
)
_MARKS = "\"'“”‘’「」『』《》` "
_COMPARED = re.compile(
    r"\b(?:(?:differences?|similarit\w+|distinctions?|contrasts?|comparisons?|choose|choosing"
    r"|decide)\s+between"
    r"|(?:distinguish|differentiate)(?:\s+between)?|compare(?:\s+and\s+contrast)?|contrast)\s+(?P<span>[^.?!;:,\n]+)",
    re.IGNORECASE,
)
_HOW = re.compile(
    r"\bhow (?:is|are|does|do) (?P<a>[^.?!;:,]+?) (?:different from|differ from|compare (?:to|with)"
    r"|similar to)"
    r" (?P<b>[^.?!;:,]+)",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"\s+(?:and|with|to|from|against|versus|vs\.?|or)\s+", re.IGNORECASE)
_TAIL = re.compile(
    r"\s+(?:in terms of|with respect to|with regard to|with examples?|and (?:give|explain|provide|say))\b.*",
    re.I,
)
_ARTICLE = re.compile(r"^(?:(?:an?|the|both|using)\s+)+", re.IGNORECASE)
_JOINED = re.compile(
    r"\s*(?:and|or|vs\.?|versus|from|with|to|than|by|和|与|跟|同|还是|或者?|以及|、)\s*"
    r"(?:the (?:\w+ )?(?:word|phrase|term|sentence|letter|name|label)s?\s+)?",
    re.IGNORECASE,
)
_OR = re.compile(
    r"(?:^|[,:;(]|\b(?:is|are|an?|the|as|either|it|was|be|whether"
    r"|into)\s)\s*(?P<a>[A-Za-z][\w-]{2,}(?: [\w-]+){0,3})"
    r",? or (?:an? |the )?(?P=a)(?=\s*(?:[?.,;:!)]|$))"
)
_OR_SAME = re.compile(r"\b(?P<a>[A-Za-z][\w-]{2,}),? or (?P=a)(?=\s*(?:[?.,;:!)]|$))")
_ZH_LEAD = (
    r"(?:^|[，。：；！？\s“]|比较|解释|说明|分析|描述|对比|区分|简述|判断|介绍|阐述"
    r"|谈谈|讲讲|一下|关于|是|为|属于|请问|指出)"
)
_ZH_COMPARED = re.compile(
    _ZH_LEAD + rf"(?P<a>{CJK.pattern}{{2,15}}|[A-Za-z]\w+)\s*(?:和|与|跟|同|以及)\s*(?P=a)(?:之间)?"
    r"(?=\s*(?:有(?:什么|何|哪些|啥)|的)?(?:主要|本质)?(?:区别|不同|差别|差异|异同|相同|相似|共同点|优缺点|对比))"
)
_ZH_COMPARE = re.compile(
    rf"(?:比较|对比|区分)(?:一下)?(?P<a>{CJK.pattern}{{2,15}}|[A-Za-z]\w+)\s*(?:和|与|跟|同)\s*(?P=a)(?=[，。！？；]|$)"
)
_ZH_OR = re.compile(_ZH_LEAD + rf"(?P<a>{CJK.pattern}{{2,8}})(?:，)?(?:还是|或者?)(?P=a)(?=[，。！？；]|$)")
# Here a list repeats itself with good reason.
_DATA = re.compile(
    r"duplicat|unique|\bcount|frequen|\bsort|occurr|\bremove|\bmode\b|common|repeat|pattern|sequence"
    r"|series|next|chord|note"
    r"|melod|odd|rhythm|distinct|how many|array|\bcode\b|function|\brow\b|lyric|song"
    r"|重复|去重|次数|统计|频|众数|出现|排序|唯一|集合|规律|序列|接下来|下一个|多少|几个|代码|数组|歌",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"\s*[,、，/|]\s*(?:(?:and|or)\s+)?|\s+(?:and|or)\s+|或者?|还是|和", re.IGNORECASE)
_LABELS = 4  # listed at least
_AGAIN = 2  # surplus mentions


def self_comparison(instruction: str) -> Drop | None:
    """Drop "the difference between a cat and a cat", "苹果和苹果有什么区别", '"x" or "x"'. Case counts."""
    for found in _COMPARED.finditer(instruction):
        span = _TAIL.sub("", found["span"])
        if any(_alike(span[: m.start()], span[m.end() :]) for m in _BETWEEN.finditer(span)):
            return Drop("self_comparison", quote(found.group()))
    how = _HOW.search(instruction)
    if how and _alike(how["a"], how["b"]):
        return Drop("self_comparison", quote(how.group()))
    for pattern in (_OR, _OR_SAME, _ZH_COMPARED, _ZH_COMPARE, _ZH_OR):
        if same := pattern.search(instruction):
            return Drop("self_comparison", quote(same.group()))
    quoted = list(QUOTED.finditer(instruction))
    for one, two in zip(quoted, quoted[1:], strict=False):
        between = instruction[one.end() : two.start()]
        if _JOINED.fullmatch(between) and _alike(one.group(), two.group()):
            return Drop("self_comparison", quote(instruction[one.start() : two.end()]))
    return None


def repeated_label(instruction: str) -> Drop | None:
    """Drop a list of choices that names its labels over and over: "praise, praise, blame, praise, blame"."""
    if _DATA.search(instruction):
        return None
    for part in re.split(r"[.?!:;()（）。？！：；\n]", instruction):
        labels = [label for item in _SPLIT.split(part) if (label := item.strip(_MARKS).lower())]
        # the first and last may carry the rest of the sentence
        short = [label for label in labels if len(units(label)) <= (8 if CJK.search(label) else 3)]
        short = [label for label in short if label.replace(" ", "").isalpha() and len(label) > 1]
        times = Counter(short)
        surplus = len(short) - len(times)
        if len(short) >= _LABELS and surplus >= _AGAIN:
            label, count = times.most_common(1)[0]
            return Drop("repeated_label", quote(f"{count} times {label}: {part.strip()}"))
    return None


def _alike(one: str, two: str) -> bool:
    plain = [_ARTICLE.sub("", collapse(text).strip(_MARKS)).strip(_MARKS) for text in (one, two)]
    return bool(plain[0]) and plain[0] == plain[1]
