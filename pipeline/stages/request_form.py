"""Whether a text has the form of a request: a question, an imperative where one may begin, a marker."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.records import Drop
from pipeline.stages.words import Words, find_phrase, quote

# An English request begins a sentence or follows a leading clause such as "Using the facts below,".
_START = re.compile(r"(?:^|[.!?:;\n]|\s[-–—]|—)\W*")
_LEADING = re.compile(
    r"(?:using|given|based|taking|judging|assuming|suppose|supposing|considering|as|if|when|while|before"
    r"|after|because"
    r"|since|from|for|in|on|at|with|without|within|under|by|to|of|during|between|among|below|here|first|then"
    r"|next|now"
    r"|finally|instead|today|imagine|drawing|working|following|keeping|acting|thinking|starting|looking"
    r"|reading)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n|\Z")
_COMMA = re.compile(r",\W*")
_FILLER = re.compile(
    r"(?:(?:\w+ly|now|then|next|first|also|and|to|kindly|pls|so|step \d+|not)\W+){1,2}", re.IGNORECASE
)
# "Time is money", "Research shows that ...": openers that are nouns here.
_PREDICATE = re.compile(r"\s+(?:is|are|was|were|has|had|will|makes|shows|means|goes|comes|flies)\b")
_QUESTION = re.compile(r"wh|how|true")
# A Chinese request begins a sentence or follows its first comma; nouns such as 计算机 only look like verbs.
_CLAUSE = re.compile(r"(?:^|[。！？；：!?:;\n])[^\w]*")
_FIRST_COMMA = re.compile(r"[^。！？；：!?:;\n，,]*[，,]\W*")
_NOUN_TAIL = re.compile(r"[机器者家员的后]|工具|驱动|语言|结果|过程")
# Prepositions start requests (把这句话译成英文) and statements (根据统计，……) alike: a verb must follow.
_PREPOSITION = re.compile(
    r"[将把用以从对为按照]|给(?!出|我)|根据|按照|依据|依照|基于|结合|利用|运用|使用|通过|针对|围绕|关于"
)
_VERB = re.compile(
    r"[写改译翻列编算答选排填拟讲说想起取加求找画做造续缩扩标转]|整理|概括|总结|归纳|提取|推荐|安排|制定|设计"
    r"|生成"
    r"|分析|解释|描述|说明|介绍|分类|判断|比较|对比|计算|回答|创建|创作|提出|提供|输出|替换|输入|构建|实现"
    r"|完成|评价"
    r"|排序|组成|命名|形容|归类|归为|评分|打分|赋值|结束|扮演|改进|补充"
)
_LOOK = 40  # characters; longer than any opener


def not_a_request(instruction: str, language: str, words: Words) -> Drop | None:
    """Drop statements: no question mark, no opener where a request may begin, no request marker."""
    if "?" in instruction or "？" in instruction or find_phrase(instruction, words.request_markers):
        return None
    asks = (_asks_in_chinese if language == "zh" else _asks_in_english)(instruction, words)
    return None if asks else Drop("not_a_request", quote(instruction))


def _asks_in_english(text: str, words: Words) -> bool:
    for place in _english_starts(text):
        found = find_phrase(text[place : place + _LOOK], words.openers, starts=True)
        if found and (_QUESTION.match(found[0]) or not _PREDICATE.match(text, place + len(found[0]))):
            return True
    return False


def _english_starts(text: str) -> Iterator[int]:
    """Yield where a request may begin: at each sentence, past leading clauses and fillers ("Briefly")."""
    for start in _START.finditer(text):
        places = [start.end()]
        if _LEADING.match(text, start.end()):
            end = _SENTENCE_END.search(text, start.end())
            stop = end.start() if end else len(text)
            places += [comma.end() for comma in _COMMA.finditer(text, start.end(), stop)]
        for place in places:
            yield place
            if filler := _FILLER.match(text, place):
                yield filler.end()


def _asks_in_chinese(text: str, words: Words) -> bool:
    for clause in _CLAUSE.finditer(text):
        comma = _FIRST_COMMA.match(text, clause.end())
        for place in (clause.end(), *([comma.end()] if comma else [])):
            found = find_phrase(text[place : place + _LOOK], words.openers, starts=True)
            if not found or _NOUN_TAIL.match(text, place + len(found[0])):
                continue
            if not _PREPOSITION.match(text, place) or _VERB.search(text, place + 1):
                return True
    return False
