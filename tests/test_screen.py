"""Every reason of the screening fires on its own crafted row, in English and in Chinese, and seeds pass."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.stages.repetition import repetition
from pipeline.stages.screen import LEAK_UNITS, REASONS, ScreenLimits, load_words, prompt_leak, screen
from pipeline.stages.words import EVIDENCE, Words, find_phrase

ROOT = Path(__file__).resolve().parents[1]
WORDS = {language: load_words(ROOT / "prompts" / language / "words.yaml") for language in ("en", "zh")}
PROMPTS = (
    "Please invent one more task that somebody in an ordinary office could really ask for.",
    "请再想一个生活或工作中真有人会提出的要求，用地道的中文写出来。",
)

ROWS = {
    "special_token": {
        "en": [
            "Name three rivers in Asia.<|im_end|>",
            "Name three rivers </s> in Asia.",
            "[INST] Name three rivers. [/INST]",
            "Name three <<SYS>> rivers.",
            "### Instruction: Name three rivers.",
            "Name the rivers of {{ country }}.",
            "Name three rivers.\nAssistant: Nile",
            "Name {% for r in rivers %} three.",
            "Name three riv\ufffders.",
        ],
        "zh": [
            "请列举三条河流。<|endoftext|>",
            "请列举三条河流。<｜end▁of▁sentence｜>",
            "用户：请列举三条河流。",
            "### 指令：请列举三条河流。",
            "请列举{{ 国家 }}的河流。",
        ],
    },
    "too_short": {"en": ["Explain photosynthesis."], "zh": ["写首诗"]},
    "too_long": {"en": ["Explain " + "very " * 150 + "briefly."], "zh": ["请解释" + "这个道理" * 40]},
    "unsuited_keyword": {
        "en": [
            "Describe what you see in this image.",
            "Draw a cat that sleeps on a sofa.",
            "Summarize the attached report.",
            "Open the file and read it aloud.",
            "Find a video about knitting.",
            "Write a short introduction to your favorite sport.",
        ],
        "zh": [
            "描述这张图片的内容。",
            "请打开附件并总结要点。",
            "画一只睡觉的猫。",
            "介绍一下你最喜欢的运动。",
        ],
    },
    "punctuation_start": {
        "en": [
            "- Write a poem about rain.",
            ", and explain the water cycle.",
            "* List three rivers in Asia.",
        ],
        "zh": ["，写一首关于雨的诗。", "——请解释水循环。", "（写一首关于雨的诗。"],
    },
    "wrong_language": {
        "en": [
            "Escribe una carta de agradecimiento a tu abuela por el regalo.",
            "请写一首关于春天的诗。",
            "Please 写一首关于春天的诗。",
        ],
        "zh": [
            "Write a short poem about the first day of spring.",
            "春の朝についての短い詩を書いてください。",
        ],
    },
    "refusal": {
        "en": [
            "As an AI language model, describe how you feel about rain.",
            "I'm sorry, but I cannot come up with more tasks.",
        ],
        "zh": ["作为一个人工智能助手，请谈谈你的感受。", "抱歉，我无法提供更多的任务。"],
    },
    "prompt_leak": {
        "en": [
            "Come up with a series of tasks about cooking.",
            # nine words of the first prompt
            "Write down what somebody in an ordinary office could really ask for.",
        ],
        # fifteen characters of the second prompt
        "zh": ["请想出一系列任务，主题是做饭。", "写出生活或工作中真有人会提出的要求。"],
    },
    "boilerplate": {
        "en": [
            "Here are some tasks: name three rivers.",
            "Sure! Write a poem about rain.",
            "Task 9: Write a poem about rain.",
            "1. 1. Write a poem about rain.",
            "Write about rain, snow, hail, etc...",
            "Write a poem. Output: Rain falls.",
        ],
        "zh": [
            "好的，写一首关于雨的诗。",
            "以下是一些任务：写诗。",
            "任务9：写一首关于雨的诗。",
            "写一首诗。输出：春雨绵绵。",
        ],
    },
    "repetition": {
        "en": [
            "Write about rain rain rain rain rain rain.",
            "Name an animal-superior-superior-superior that lives here.",
            "Write a poem. Write a poem. Write a poem.",
            "List names: 1. Elena 2. Elena 3. Elena",
            "Name three ways to avoid that pesky pesky mosquito.",
            "Decide whether the review is positive or negative; positive or negative.",
            "Write of the term in the context of it in the context of all in the context of none.",
        ],
        "zh": [
            "请写出笑声哈哈哈哈哈哈哈哈。",
            "写一首诗吧。写一首诗吧。写一首诗吧。",
            "判断评论是好评还是差评，是好评还是差评。",
        ],
    },
    "not_a_request": {
        "en": [
            "I'm going to give up tomorrow.",
            "This sentence is 5 words and 3 syllables.",
            "He must be in his apartment.",
            "The most unusual animal that lives on your planet.",
            "Green-colored apples are the best apples to eat.",
            "There was no plan to leave, but the company has changed their policy.",
            "A 15-minute walk in the sun.",
            "Time is money.",
            "Research shows that sleep helps.",
            "Once upon a time, there was a girl named Lily.",
        ],
        "zh": [
            "我明天要放弃了。",
            "船和鲸鱼。",
            "计算机科学是一门有趣的学科。",
            "根据今年的统计，游客比去年更多。",
            "他站着不动。",
        ],
    },
    "self_comparison": {
        "en": [
            "Explain the difference between a binary search algorithm and a binary search algorithm.",
            'Does the following sentence use the word "nauseas" or the word "nauseas" twice?',
            "Compare a cat with the cat.",
            "How is a virus different from a virus?",
            "Is the text below positive or positive?",
        ],
        "zh": [
            "苹果和苹果有什么区别？",
            "“高兴”和“高兴”有什么不同？",
            "比较苹果和苹果。",
            "这句话是褒义还是褒义？",
        ],
    },
    "repeated_label": {
        "en": ["Classify the word as positive, negative, praise, praise, blame, praise, blame."],
        "zh": ["判断评论属于正面、负面、中性、中性、负面、中性。"],
    },
}


def seeds(language):
    text = (ROOT / "seeds" / f"{language}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("reason", "language", "instruction"),
    [(reason, language, row) for reason, rows in ROWS.items() for language in rows for row in rows[language]],
)
def test_the_crafted_row_fires_exactly_its_reason(reason, language, instruction):
    drop = screen(instruction, language, WORDS[language], prompt_texts=PROMPTS)
    assert drop is not None and drop.reason == reason
    assert drop.evidence and len(drop.evidence) <= EVIDENCE


def test_each_reason_has_a_row_in_each_language():
    assert tuple(ROWS) == REASONS
    assert all(set(rows) == {"en", "zh"} and all(rows.values()) for rows in ROWS.values())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_our_seeds_pass(language):
    for seed in seeds(language):
        assert screen(seed["instruction"], language, WORDS[language]) is None, seed["id"]


@pytest.mark.parametrize(
    ("language", "instruction"),
    [
        ("en", "Write a paragraph about your profile of interests."),  # neither "graph" nor "file"
        ("en", "Name a poem that mentions a bookmap or a cartoon."),
        ("en", "Write a shell command that counts the files in a folder."),  # code may speak of files
        ("en", '"Early bird" or "night owl": explain which you would rather be.'),
        ("en", "What does 慢走 mean when a Chinese shopkeeper says it?"),
        ("en", 'Translate "Je suis heureux de vous voir ce soir" so that a child understands it.'),
        ("en", "You are a museum guide. Explain why the Egyptians wrapped up their mummies."),
        ("en", "Using the facts below, write a short biography."),
        ("en", "Given a list of ingredients, suggest a dinner"),
        ("en", "Here are my commuting times in minutes. Give me the mean."),
        ("en", "What is the difference between a cat and a cat in a zoo?"),
        ("en", "Explain the difference between Polish and polish."),
        ("en", 'Say whether the word "good" or the word "bad" is meant.'),
        ("en", "Describe the relationship between people and people."),
        ("en", "Remove the duplicates: apple, pear, apple, pear, apple."),
        ("en", "What comes next in the pattern: red, blue, red, blue, red?"),
        ("zh", "人与人有什么不同？"),
        ("zh", "大苹果和苹果有什么区别？"),
        ("zh", "比较苹果和苹果派的热量。"),
        ("zh", "“的”和“得”有什么区别？"),
        ("zh", "统计每个词的次数：苹果、梨、苹果、梨、苹果。"),
        ("zh", "“磨刀不误砍柴工”这句话说明了什么道理"),
        ("zh", "解释英语单词 serendipity 的意思"),
        ("zh", "把 The early bird catches the worm 翻译成中文"),
        ("zh", "六十字以内，讲清这个故事的起因"),
    ],
)
def test_close_cases_pass(language, instruction):
    assert screen(instruction, language, WORDS[language], prompt_texts=PROMPTS) is None


def test_lengths_at_the_limits_pass():
    limits = ScreenLimits(min_length=3, max_length=5, min_length_zh=4)
    assert screen("Explain the rain.", "en", WORDS["en"], limits) is None  # 3 words
    assert screen("Explain the rain in Spain.", "en", WORDS["en"], limits) is None  # 5 words
    assert (
        screen("Explain the rain in northern Spain.", "en", WORDS["en"], limits).evidence
        == "6 units, at most 5"
    )
    assert screen("解释下雨", "zh", WORDS["zh"], limits) is None  # 4 characters
    assert screen("解释雨", "zh", WORDS["zh"], limits).evidence == "3 units, at least 4"


def test_a_copied_run_counts_from_eight_words_on():
    copied = PROMPTS[0].split()
    assert LEAK_UNITS["en"] == 8
    for size, leaks in ((7, False), (8, True)):
        instruction = "Explain: " + " ".join(copied[4 : 4 + size])
        drop = screen(instruction, "en", WORDS["en"], prompt_texts=PROMPTS)
        assert (drop is not None and drop.reason == "prompt_leak") is leaks


@pytest.mark.parametrize(
    ("language", "prompt", "text", "leaked"),
    [
        ("en", "Never speak of it. Use at most 100 words.", "Eat fruit. Use at most 100 words!", True),
        ("en", "Never speak of it. Use at most 100 words.", "Use at most 10 words.", False),
        ("en", "Answer briefly.", "Answer briefly.", False),  # two words say nothing
        ("zh", "请直接回答，不要谈论你自己。", "多吃水果。不要谈论你自己。", True),
        ("zh", "请直接回答，不要谈论你自己。", "不要谈论别人。", False),
        ("zh", "请简明地回答。", "请简明地回答。", False),
    ],
)
def test_a_sentence_of_a_prompt_leaks_as_a_whole(language, prompt, text, leaked):
    drop = prompt_leak(text, WORDS[language], (prompt,), language)
    assert (drop is not None and drop.reason == "prompt_leak") is leaked


@pytest.mark.parametrize(
    "text",
    [
        "row " * 6,
        "ha ho " * 4,
        "aaaaaaaaaaaa",
        "It is a good and healthy thing to sleep well. It is a good and healthy thing to sleep well.",
        "The dog ran.\nThe dog ran.\nThe dog ran.",
        "1. Elena 2. Elena 3. Elena",
        "- the best time to visit the park is spring\n- the best time to visit the park is autumn\n"
        "- the best time to visit the park is in spring\n- the best time to visit the park is spring",
        "1、苹果\n2、苹果\n3、苹果\n4、梨",
        "春天来了，花都开了。春天来了，花都开了。春天来了，花都开了。",
        "哈哈哈哈哈哈哈哈",
        "我们要努力学习，" * 5,
        # the same parts of an enumeration
        "The body has a heart, a skin, a lung, a skin, a bone, a skin, a nerve, a skin, an eye.",
        "人体有心脏、神经系统、肺、神经系统、皮肤、神经系统、骨骼、神经系统、眼睛。",
        # the same words through a text
        "I am a master of disguise and silence. At night I am a master of shadows. As a master of stealth "
        "I go unseen, as a master of maps I find every door. They call me a master of escape.",
        "春天是一年中最美的季节，因为花会开。夏天是一年中最美的假期，因为水很凉。秋天是一年中最美的收获，因为果子熟了。"
        "冬天是一年中最美的梦，因为有雪。节日是一年中最美的时刻。",
    ],
)
def test_loops_are_found(text):
    assert repetition(text).reason == "repetition"


@pytest.mark.parametrize(
    "text",
    [
        "Knock knock. Who's there? Boo. Boo who? Don't cry, it is only a joke.",
        "1 1 1 1 1 1 1 1",
        "for x in a:\n    print(x)\nfor x in a:\n    print(x)\nfor x in a:\n    print(x)",
        "Monday: rest\nTuesday: run\nWednesday: rest\nThursday: run\nFriday: rest",
        "| a | b |\n| --- | --- |\n| 1 | yes |\n| 2 | yes |\n| 3 | yes |",
        "哈哈哈，太好笑了！",
        "a step-by-step, one-by-one, day-by-day plan",
        "She bought bread, milk, eggs, bread, salt, milk and tea.",  # twice is a list of two days
        "The scores were 3, 4, 3, 5, 3, 4, 3.",
        "他买了面包、牛奶、鸡蛋、面包、盐和茶。",
    ],
)
def test_what_only_looks_like_a_loop_passes(text):
    assert repetition(text) is None


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_texts_of_our_seeds_do_not_loop(language):
    for seed in seeds(language):
        for instance in seed["instances"]:
            assert repetition(instance["output"]) is None, seed["id"]
            assert repetition(instance["input"]) is None, seed["id"]


def test_english_has_at_least_250_openers():
    assert len(WORDS["en"].openers) >= 250


def test_phrases_are_found_at_word_boundaries_with_any_quotes_and_spaces():
    assert find_phrase("a paragraph of prose", ("graph",)) is None
    assert find_phrase("a  Bar\nGraph", ("bar graph",)) == ("bar\ngraph", 3)
    assert find_phrase("Well, I’m sorry", ("i'm sorry",)) == ("i'm sorry", 6)
    assert find_phrase("他说，抱歉，我无法回答", ("抱歉,我无法",)) == ("抱歉,我无法", 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("openers: [write]", "no list 'request_markers'"),
        ("opener: [write]", "Did you mean 'openers'?"),
        ("- write", "got list"),
        ("openers: [", "not YAML"),
        ("openers: write", "expected a list of text"),
        ("openers: []", "expected a list of text"),
        ("openers: [write, on]", "True in 'openers', expected text"),
        ('openers: ["\\ud800"]', "ud800 is half a surrogate pair"),
    ],
)
def test_a_bad_words_file_is_refused(tmp_path, text, said):
    path = tmp_path / "words.yaml"
    path.write_text(text)
    with pytest.raises(PipelineError, match=said.replace("'", ".").replace("?", ".")) as error:
        load_words(path)
    assert "words.yaml" in error.value.where


def test_words_hold_tuples():
    assert all(isinstance(getattr(WORDS["zh"], f.name), tuple) for f in dataclasses.fields(Words))
