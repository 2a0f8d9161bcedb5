"""Does an instruction point at a text ("the following review", "this dish") that it does not itself hold?"""

from __future__ import annotations

import re

from pipeline.stages.request_form import not_a_request
from pipeline.stages.screen import QUOTED
from pipeline.stages.text import CJK, cjk_share, length
from pipeline.stages.words import Words, find_phrase

_NO_POINTER = re.compile(
    r"\bthe following (?:day|week|month|year|morning|evening|night|season)s?\b|\b(?:an?|any|each|every"
    r"|some) given\b"
    r"|\bbelow (?:\d|[$€£]|zero|freezing|average|sea level|ground|market|the surface|the poverty)"
    r"|[\d一二三四五六七八九十百千万字岁度元分米]以下|[桌床树水山楼桥脚底]下面"
    r"|[论作课中英语天人]文中",
    re.IGNORECASE,
)
# In "Write a function that counts the vowels of a given string" the string is a parameter.
_PARAMETER = re.compile(
    r"(?:write|create|implement|develop|design|build)\b[^.]*?\b(?:function|program|script|algorithm|query"
    r"|class|system)"
    r"|[写编造建现计发][^，。]*?(?:函数|程序|脚本|算法|系统)",
    re.IGNORECASE,
)
_GIVEN = re.compile(r"\bgiven\b|给定|所给", re.IGNORECASE)
_GIVEN_BEHIND = re.compile(r"[:：\n]|\s[-–—]+\s")
_CHOICES = re.compile(rf"(?:{QUOTED.pattern})(?:(?:\s|,|、|or|and|/|或|还是|和)*(?:{QUOTED.pattern}))+")

# What may stand behind "this" without being a noun, and nouns that everybody knows or that mean the task.
_NO_NOUN = (
    r"is|was|were|are|has|have|had|will|would|can|could|may|might|must|should|shall|do|does|did|not|be|been"
    r"|in|on|at|to|for|from|with|without|by|of|as|and|or|but|if|when|while|because|so|than|that|then|into"
    r"|about|up|out|more|less|better|much|many|far|who|whom|whose|which|where|how|why|all|also|only|just"
    r"|really|still|ever|never|always|often|now|using|through|before|after|between|under|over|during|like"
    r"|i|you|he|she|it|we|they|the|an?|my|your|our|their|being|becomes?|affects?|happen\w*|relates?"
    r"|helps?|differs?"
    r"|compares?|sounds?|looks?|means?|makes?|works?|changes?|appl(?:y|ies)|says?|tells?|causes?|feels?"
    r"|fits?|influences?|leads?|contributes?|seems?|involves?|requires?|allows?|includes?|impacts?|correct"
    r"|shows?|gives?|takes?|comes?|goes|possible|true|ok|okay"
)
_EVIDENT = (
    r"years?|weeks?|weekends?|months?|days?|mornings?|afternoons?|evenings?|nights?|summer|winter|spring|fall"
    r"|autumn|seasons?|times?|moments?|minutes?|hours?|centur(?:y|ies)|decades?|eras?|age|quarter"
    r"|semester|term"
    r"|christmas|holidays?|(?:mon|tues|wednes|thurs|fri|satur|sun)day|past|coming|world|planet|earth"
    r"|universe|life"
    r"|way|ways|kinds?|sorts?|types?|manner|regard|respect|purpose|reasons?|point|tasks?|exercise"
    r"|instructions?|prompt"
    r"|request|assignment|challenge|fashion|end"
)
_THIS = re.compile(
    rf"\b(?:this|these|those)\s+(?!(?:{_NO_NOUN})\b)(?!(?:[\w-]+\s+){{0,2}}(?:{_EVIDENT})\b)"
    r"(?:(?:two|three|four|five|same|particular|specific|type of|kind of)\s+)?(?P<noun>[a-z][\w-]*)"
    r"|\b(?:where|what|who|how|why|which|whether)\s+(?P<bare>this)\s+(?:is|was|comes)\b",
    re.IGNORECASE,
)
_THOSE_WHO = re.compile(
    r"\bthose\s+(?:[\w-]+\s+){0,3}(?:who|that|which|in|with|of|from|without)\b", re.IGNORECASE
)
_NAMED_BEHIND = re.compile(
    r"\s+\S*\d|\s*(?:called|named|titled|entitled|known as|that|which says)\b|\s*叫|\s*名为"
)
_THIS_ZH = re.compile(
    r"(?:^|[，。！？；：,.!?;:\s]|[把将对给为用在从与和于以按就到是读]|解释|分析|描述|概括|总结|翻译|改写|介绍|评价|判断|说明"
    r"|关于|根据|解决|回答|理解|看待|命名|比较|找出|怎么做|如何做|适合|使用|制作|推荐|写出|一[份篇个首条段句])"
    r"(?P<at>这[一两三几]?[个些道篇首段幅本部种份则封条张组对位家项场件行句款座只棵朵台辆套]|此(?=[句文诗题词段])"
    r"|该(?=文|句|诗|段|词|产品|公司|故事|电影|书|菜|现象|语境|短语|评论|代码|函数))"
    r"(?!月|星期|周|世界|时代|社会|季节|夏|春|秋|冬|学期|暑假|寒假|早|晚|上午|下午|假期|星球|任务|时候|时间"
    rf"|年代|世纪|时期|阶段|年龄|意义|角度|方面|指令|国庆|是|都|要|能|会|吗)(?P<noun>{CJK.pattern}{{1,2}})"
)
_PREVIOUS = re.compile(
    r"\bthe (?:previous|preceding|original) (?P<noun>sentence|paragraph|question|text|passage|statement|line"
    r"|word|example)"
    r"|(?:[上前]一|原来?的?)(?P<zh>句|段|题|个问题|个句子|个段落|句子|段落)",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"context|语境|上下", re.IGNORECASE)  # a quoted word is not yet a context
_ROLE = re.compile(
    r"\W*(?:you are|act as|imagine you|pretend|as an?\b|你是|假[如设装]你?|扮演|作为)", re.IGNORECASE
)
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|(?<=[。！？；：])|\n")
_CLAUSE = re.compile(r",\s|[，,]|\s(?:and|but|then|so|while|because)\s")
# Behind a pointer these begin a wish about the answer, not the text: "It should be short.", "At most ten."
_ABOUT_ANSWER = re.compile(
    r"\W*(?:it|its|they|this|these|that|those|each|every|both|you|your|there|i (?:am|need|want|have)"
    r"|at (?:most|least)"
    r"|nobody|everyone|somebody|no|only|max\w*|in|within|up to|one|two|three|four|five|\d+|yes|true|use"
    r"|using|with|without"
    r"|(?:the|an?|any|all)\b[^.]*\b(?:output|answer|response|summary|result)"
    r"|[^.]*\b(?:should|must|needs? to|has to|have to)"
    r"|yes or no)\b"
    r"|[它这要需每不必应只答用最可字在是]|字数|输出|结果|注意",
    re.IGNORECASE,
)
_TEXT_START = re.compile(
    r"\W*(?:the|an?|i|we|he|she|my|our|there|yesterday|today)\b|[我他她今昨有]", re.IGNORECASE
)
_SITUATION, _LONG = 10, 15  # units of a role ("You are a chef.") and of a sentence that tell a situation
_BEHIND = 5  # units of a text given behind the pointer's sentence


def refers_to_input(instruction: str, words: Words) -> bool:
    """Say whether the instruction points at a text or thing that it does not itself hold."""
    bare = _NO_POINTER.sub(" ", instruction)
    bare = _GIVEN.sub(" ", bare) if _PARAMETER.search(bare) else bare
    found = find_phrase(bare, words.input_references)
    if found and not _given_before(bare[: found[1]], found[0].split()[-1]):
        after = found[1] + len(found[0])
        if not _holds_text(bare, after) and not _text_behind(bare, after, words):
            return True
    return _dangling(bare, words)


def _given_before(before: str, noun: str) -> bool:
    return _antecedent(before, noun) if noun == "this" else _introduced(before, noun)


def lacks_second_text(instruction: str, input: str) -> bool:
    """Say whether a following and a previous text are compared while the input is a single one."""
    both = _PREVIOUS.search(instruction) and re.search(r"\bfollowing\b|下面|以下", instruction)
    return bool(both) and len([part for part in _SENTENCE.split(input.strip()) if length(part)]) < 2


def _dangling(text: str, words: Words) -> bool:
    """Say whether "this dish", "这道菜" or "the previous line" stands for nothing said around it."""
    for pattern in (_THIS, _THIS_ZH, _PREVIOUS):
        for found in pattern.finditer(text):
            if _THOSE_WHO.match(text, found.start()) or _NAMED_BEHIND.match(text, found.end()):
                continue
            parts = found.groupdict()
            noun = next(parts[name] for name in ("noun", "bare", "zh") if parts.get(name))
            before = text[: found.start("at") if "at" in parts else found.start()]
            given = _introduced(before, noun) if pattern is _PREVIOUS else _antecedent(before, noun)
            held = not _WHOLE.match(noun) and _holds_text(text, found.end())
            if not (given or held or _text_behind(text, found.end(), words)):
                return True
    return False


def _antecedent(before: str, noun: str) -> bool:
    """Say whether what stands before "this `noun`" can hold what it means."""
    least = 4 if _WHOLE.match(noun) else 1
    if any(length(quoted) >= least for quoted in QUOTED.findall(before)):
        return True
    if noun.lower() != "this" and re.search(
        rf"\b{re.escape(_stem(noun))}" if noun.isascii() else noun, before, re.I
    ):
        return True
    *earlier, own = _SENTENCE.split(before)
    if any((length(s) >= 4 or re.search(r"\ban? ", s)) and not _only_role(s) for s in earlier):
        return True
    if length(own) >= _LONG or any(
        length(own[: clause.start()]) >= 4 and not _only_role(own) for clause in _CLAUSE.finditer(own)
    ):
        return True
    name = re.search(r"\w\W+(?!I\b)[A-Z]\w+", own)  # "why tourists visit Paris during this festival"
    return bool(name) and noun.lower() != "this" and not _WHOLE.match(noun)


def _only_role(sentence: str) -> bool:
    return bool(_ROLE.match(sentence)) and length(sentence) < _SITUATION


def _introduced(before: str, noun: str) -> bool:
    """Say whether the noun was brought in before: "Write a sentence and translate this sentence"."""
    if not noun.isascii():
        return bool(re.search(rf"[每一两三几][个条首段]?{re.escape(noun[-1])}", before))
    if re.search(r"\b(?:given|provided|giving you)\b", before, re.IGNORECASE):
        return False  # "Given a sentence, make the sentence shorter"
    lead = (
        r"\b(?:an?|my|our|one|two|three|four|five|six|ten|\d+|each|every|another|some)\s+(?:[\w-]+\s+){0,2}"
    )
    return bool(re.search(lead + re.escape(_stem(noun)), before, re.IGNORECASE))


def _stem(noun: str) -> str:
    return re.sub(r"(?:ies|e?s|y)$", "", noun.lower()) if len(noun) > 4 else noun.lower()


def _text_behind(text: str, after: int, words: Words) -> bool:
    """Say whether the sentence behind the pointer's own is a text: "Is this clear? We open at nine."."""
    end = re.compile(r"[.!?][\"')\]]*\s+|[。！？]").search(text, after)
    behind = text[end.end() :].strip() if end else ""
    first = _SENTENCE.split(behind)[0]
    # a full stop may be followed by an imperative that the openers do not know
    asked = end is not None and end.group()[0] in "?？"
    if length(first) < _BEHIND or _ABOUT_ANSWER.match(first) or not (asked or _TEXT_START.match(first)):
        return False
    return not_a_request(first, "zh" if cjk_share(first) > 0.5 else "en", words) is not None


def _holds_text(instruction: str, after: int) -> bool:
    """Say whether a text stands in the instruction (quoted, behind a colon); `after`: end of the pointer."""
    # "good" or "bad" are labels, no text
    if "```" in instruction or QUOTED.search(_CHOICES.sub(" ", instruction)):
        return True
    for mark in _GIVEN_BEHIND.finditer(instruction):
        # "the following word: sunset" gives its one word right behind
        near = after <= mark.start() and length(instruction[after : mark.start()]) <= 3
        if length(instruction[mark.end() :]) >= (1 if near else 3):
            return True
    return False
