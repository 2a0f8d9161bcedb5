"""Every reason of the validation fires on its own crafted instance, English and Chinese, and seeds pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.records import Instance
from pipeline.stages.echoes import input_equals_output
from pipeline.stages.screen import load_words
from pipeline.stages.validate import REASONS, ValidateLimits, conflict, own_length, refers_to_input, validate
from pipeline.stages.words import EVIDENCE

ROOT = Path(__file__).resolve().parents[1]
WORDS = {language: load_words(ROOT / "prompts" / language / "words.yaml") for language in ("en", "zh")}
PROMPTS = (
    "Please answer the task as a patient expert who knows the field would do.",
    "请像一位熟悉这个领域的耐心专家那样完成任务。",
    "Use at most 100 words, in one short list.",
    "回答不超过一百五十字。",
)
LIMITS = ValidateLimits(min_output=2, max_output=60, max_input=40)

# reason -> language -> rows of (instruction, input, output)
ROWS = {
    "empty_output": {
        "en": [
            ("Name a river.", "", ""),
            ("Name a river.", "", "..."),
            ("Name a river.", "", "N/A"),
            ("Name a river.", "", "None."),
        ],
        "zh": [("列举一条河流。", "", "。"), ("列举一条河流。", "", "无"), ("列举一条河流。", "", "——")],
    },
    "special_token": {
        "en": [
            ("Name a river.", "", "The Nile.<|im_end|>"),
            ("Sum up the notes.", "Rain </s> today", "Rainy day."),
        ],
        "zh": [("列举一条河流。", "", "长江<|endoftext|>"), ("概括大意。", "今天[INST]下雨", "下雨了")],
    },
    "refusal": {
        "en": [
            ("What is your favourite food?", "", "As an AI language model, I don't eat."),
            ("Name a river.", "", "I'm sorry, but I cannot help with that request."),
            ("Write a letter to a friend.", "", "Dear Ann, I am an AI and write no letters."),
        ],
        "zh": [
            ("你喜欢吃什么？", "", "作为一个人工智能助手，我不吃东西。"),
            ("列举一条河流。", "", "抱歉，我无法回答这个问题。"),
        ],
    },
    "prompt_leak": {
        "en": [
            ("Name a river.", "", "Come up with a series of tasks: name a lake."),
            ("Name a river.", "", "The Nile. Answer the task as a patient expert who knows rivers."),
            ("How do I stop smoking?", "", "Begin today. Use only 100 words to explain it."),
            ("How do I stop smoking?", "", "Here is one short list: begin today, ask for help."),
        ],
        "zh": [
            ("列举一条河流。", "", "请想出一系列任务，比如列举湖泊。"),
            ("列举一条河流。", "", "熟悉这个领域的耐心专家那样回答：长江。"),
            ("怎样戒烟？", "", "从今天开始。以上共一百五十字。"),
        ],
    },
    "missing_input": {
        "en": [
            ("Summarize the following article.", "", "The article is about rain."),
            ("Fix the grammar of this sentence.", "", "She goes home."),
            ('Classify the given text as "good" or "bad".', "", "It is good."),
            ("Create a recipe for this dish.", "", "Boil the rice."),
            ('What does the word "world" mean in this context?', "", "It means the earth."),
            ("Explain why the original sentence is too long.", "", "It has many clauses."),
            (
                "Does the following sentence have the same structure as the previous sentence?",
                "The dog ran home.",
                "Yes, it does.",
            ),
        ],
        "zh": [
            ("概括下面的文章。", "", "文章讲的是下雨。"),
            ("修改这句话的语病。", "", "她回家了。"),
            ("判断给定的句子是“褒义”还是“贬义”。", "", "是褒义。"),
            ("写出这道菜的做法。", "", "先煮米饭，再炒。"),
            ("下面的句子和上一句结构相同吗？", "小狗跑回家了", "结构相同"),
        ],
    },
    "input_equals_output": {
        "en": [("Make the sentence shorter.", "The dog ran home.", "the dog ran home")],
        "zh": [("把句子改短。", "小狗跑回家了。", "小狗跑回家了")],
    },
    "input_repeats_instruction": {
        "en": [
            ("Make the sentence shorter.", "Make the sentence shorter. The dog ran.", "Dog ran."),
            (
                "Is this sentence written in a neutral tone?",
                "Is this sentence written in a friendly tone?",
                "It is not.",
            ),
        ],
        "zh": [
            ("把句子改短。", "把句子改短：小狗跑回家了。", "狗回家了"),
            ("这句话的语气是中性的吗？", "这句话的语气是友好的吗？", "不是这样。"),
        ],
    },
    "output_repeats_instruction": {
        "en": [
            ("Write a poem about rain.", "", "Write a poem about rain. It falls."),
            (
                "Write a poem about the rain in our little town.",
                "",
                "A poem about the rain in our little town.",
            ),
        ],
        "zh": [
            ("写一首关于雨的诗。", "", "写一首关于雨的诗，春雨绵绵。"),
            ("请写一首关于小镇春雨的诗。", "", "一首关于小镇春雨的诗。"),
        ],
    },
    "ends_in_colon": {
        "en": [("Name three rivers.", "", "Three long rivers in Asia are:")],
        "zh": [("列举三条河流。", "", "亚洲有三条大河：")],
    },
    "repetition": {
        "en": [
            ("Describe the dog.", "", "It is very very very very very very good."),
            ("Name three people.", "", "1. Elena 2. Elena 3. Elena"),
            ("Sum up the notes.", "No rain today. No rain today. No rain today.", "It was dry."),
            ("Name a drink.", "", "25% of the fruit: 25% of the fruit: 25% of the fruit can be a melon."),
        ],
        "zh": [
            ("写一段笑话。", "", "他笑了：哈哈哈哈哈哈哈哈"),
            ("说一种饮料。", "", "四分之一水果，四分之一水果，四分之一水果可以是甜瓜。"),
            ("描写春天。", "", "花开了。春天来了。春天来了。春天来了。"),
        ],
    },
    "too_short": {"en": [("Name a river.", "", "Nile")], "zh": [("写出“水”的反义词。", "", "火")]},
    "too_long": {
        "en": [
            ("Describe rain.", "", " ".join(f"drop{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(61))),
            (
                "Sum it up.",
                " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(41)),
                "Many words.",
            ),
        ],
        "zh": [
            ("描写雨。", "", "".join(chr(0x4E00 + i) for i in range(61))),
            ("概括大意。", "".join(chr(0x4E00 + i) for i in range(41)), "没有意思"),
        ],
    },
    "wrong_output_language": {
        "en": [
            ("Describe the weather.", "", "今天天气很好，阳光明媚，适合出门。"),
            (
                "Describe the weather.",
                "",
                "Il fait très beau aujourd'hui, nous allons nous promener au parc.",
            ),
            (
                "Translate the greeting into French.",
                "Good morning, how are you?",
                "Good day, how are you doing?",
            ),
        ],
        "zh": [
            ("描写天气。", "", "The weather is lovely today, and we are going out."),
            ("把问候语翻译成英文。", "早上好，你好吗", "早安，你最近怎么样"),
        ],
    },
    "invalid_json": {
        "en": [
            ("Return the person as JSON.", "Ann, 30", '{"name": "Ann", "age": 30'),
            ("Return the person as JSON.", "Ann, 30", "```json\n{name: 'Ann'}\n```"),
        ],
        "zh": [("把信息转成 JSON 对象。", "小安，三十岁", '{"姓名": "小安", "年龄": }')],
    },
    "invalid_python": {
        "en": [
            ("Write a Python function that adds two numbers.", "", "def add(a, b)\n    return a + b"),
            (
                "Write a Python function that adds two numbers.",
                "",
                "Like this:\n```python\ndef add(a, b:\n    return 1\n```",
            ),
        ],
        "zh": [
            ("用 Python 写一个加法函数。", "", "def add(a, b):\nreturn a + b"),
            ("用 Python 写一个加法函数。", "", "如下：\n```python\nprint('你好)\n```"),
        ],
    },
    "debris": {
        "en": [
            ("Show how to print hello.", "", "Like this:\n```\nprint hello"),
            ("Name a river.", "", "The Nile.\nUser: Name a lake."),
            ("Name a river.", "", "The Nile.\nInput: lake"),
            ("Name a river.", "", "The Nile.\n\nExample 2\nThe Amazon."),
            ("Name three rivers.", "", "1. 1. 1. 2. 3.\n\nThat was the list."),
        ],
        "zh": [
            ("列举一条河流。", "", "长江。\n用户：再列举一个湖泊。"),
            ("列举一条河流。", "", "长江。\n输入：湖泊"),
            ("列举一条河流。", "", "长江。\n示例2：黄河。"),
            ("列举三条河流。", "", "1. 2. 3. \n以上是三条河流。"),
            ("怎样输出问候语？", "", "这样写：\n```\n问候语"),
        ],
    },
    "unmet_constraint": {
        "en": [
            ("What is love? Answer with a question.", "", "Love is kind."),
            ("Describe the sun in 3 words.", "", "The sun is hot and it is very bright today."),
            ("Name three reefs.", "", "1. The Great Barrier Reef"),
        ],
        "zh": [
            ("用问句回答：天为什么蓝？", "", "因为散射。"),
            ("用五个字形容春天。", "", "花开了，人们走出家门去踏青，孩子们放起风筝。"),
            ("列举三种水果。", "", "苹果"),
        ],
    },
}


def check(
    instruction, input, output, language, *, finish_reason="stop", is_classification=False, limits=LIMITS
):
    return validate(
        instruction,
        input,
        output,
        finish_reason=finish_reason,
        language=language,
        is_classification=is_classification,
        words=WORDS[language],
        limits=limits,
        prompt_texts=PROMPTS,
    )


@pytest.mark.parametrize(
    ("reason", "language", "row"),
    [(reason, language, row) for reason, rows in ROWS.items() for language in rows for row in rows[language]],
)
def test_the_crafted_instance_fires_exactly_its_reason(reason, language, row):
    drop = check(*row, language)
    assert drop is not None and drop.reason == reason
    assert drop.evidence and len(drop.evidence) <= EVIDENCE


@pytest.mark.parametrize(
    ("language", "row"),
    [("en", ("Name a river.", "", "The Nile is")), ("zh", ("列举一条河流。", "", "长江是"))],
)
def test_an_answer_cut_off_by_the_token_limit_is_truncated(language, row):
    assert check(*row, language, finish_reason="length").reason == "truncated"
    assert check(*row, language) is None


@pytest.mark.parametrize(
    ("input", "output", "again", "other"),
    [("The dog ran.", "A dog.", "the dog  ran", "A cat."), ("小狗跑了。", "狗", "小狗跑了", "猫")],
)
def test_the_same_input_again_is_a_duplicate_or_a_conflict(input, output, again, other):
    kept = [Instance("unrelated", "x"), Instance(input, output)]
    assert conflict(kept, again, output).reason == "duplicate_instance"
    assert conflict(kept, again, other).reason == "conflicting_output"
    assert conflict(kept, "something new", output) is None
    assert conflict([], input, output) is None
    assert conflict([Instance("3 + 5", "8")], "3 - 5", "-2") is None  # the same units, another sum


def test_each_reason_has_a_row_in_each_language():
    # the tests around this one
    elsewhere = {"truncated", "conflicting_output", "duplicate_instance", "input_holds_label"}
    assert set(REASONS) == set(ROWS) | elsewhere
    assert [r for r in REASONS if r in ROWS] == list(ROWS)
    assert all(set(rows) == {"en", "zh"} and all(rows.values()) for rows in ROWS.values())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_instances_of_our_seeds_pass(language):
    for line in (ROOT / "seeds" / f"{language}.jsonl").read_text("utf-8").splitlines():
        seed = json.loads(line)
        kept: list[Instance] = []
        for instance in seed["instances"]:
            drop = check(
                seed["instruction"],
                instance["input"],
                instance["output"],
                language,
                is_classification=seed["is_classification"],
                limits=ValidateLimits(),
            )
            assert (drop or conflict(kept, instance["input"], instance["output"])) is None, seed["id"]
            kept.append(Instance(**instance))


@pytest.mark.parametrize(
    ("language", "row"),
    [
        # given in the instruction itself, or pointing at nothing
        (
            "en",
            (
                "Summarize the following: Rain fell for three days, then the river rose.",
                "",
                "A flood after rain.",
            ),
        ),
        ("en", ("Write a haiku using the following word: sunset", "", "Sunset on the bay")),
        ("en", ('Explain this phrase: "once in a blue moon".', "", "It means very rarely.")),
        ("en", ("Explain why the ground freezes below zero.", "", "Water in it turns to ice.")),
        (
            "en",
            (
                "Write a function that counts the vowels of the given string.",
                "",
                "def f(s):\n    return sum(c in 'aeiou' for c in s)",
            ),
        ),
        ("zh", ("解释下面这句话：失败是成功之母。", "", "失败能让人学到东西。")),
        ("zh", ("用五十字以下介绍长江。", "", "长江是中国最长的河流。")),
        ("zh", ("《静夜思》这首诗表达了什么？", "", "表达了思乡之情。")),
        # a restated question with its answer is no copy
        (
            "en",
            (
                "What is the result of 4 raised to the power of 3?",
                "",
                "The result of 4 raised to the power of 3 is 64.",
            ),
        ),
        # polite refusals that were asked for
        (
            "en",
            (
                "Decline the invitation in one sentence.",
                "Party on Friday?",
                "I'm sorry, but I can't come on Friday.",
            ),
        ),
        ("zh", ("替我婉拒周五的聚会。", "", "抱歉，我不能参加周五的聚会。")),
        # languages that belong there
        (
            "en",
            (
                "Translate the greeting into French.",
                "Good morning, my friends",
                "Bonjour, mes chers amis, comment allez-vous",
            ),
        ),
        (
            "en",
            (
                'How do you say "good morning, my friends" in Spanish?',
                "",
                "Buenos días, mis queridos amigos de siempre",
            ),
        ),
        ("zh", ("这句谚语用英文怎么说？请回答。", "熟能生巧", "Practice makes perfect, as they say.")),
        ("zh", ("给这段代码加上说明。", "print(1)", "# prints the number one\nprint(1)")),
        # JSON that was the input, not the wish
        ("en", ("Explain what the JSON strings stand for.", '{"a": 1}', "A single key with one number.")),
        ("en", ("Return the person as JSON.", "Ann, 30", '```json\n{"name": "Ann", "age": 30}\n```')),
        # labels and dialogues that were asked for
        (
            "en",
            (
                "Write a short chat between a user and an assistant.",
                "",
                "User: Hello there\nAssistant: Good day to you",
            ),
        ),
        (
            "en",
            (
                "Give two short examples of irony.",
                "",
                "Example 1: A fire station burns.\nExample 2: A pilot fears heights.",
            ),
        ),
        (
            "en",
            (
                "Split the list of sentences into two lines.",
                "Rain fell. Snow fell.",
                "Rain fell.\nSnow fell.",
            ),
        ),
    ],
)
def test_close_cases_pass(language, row):
    assert check(*row, language) is None


@pytest.mark.parametrize(
    ("language", "row"),
    [
        ("en", ("Is there an error in the sentence? Answer none or some.", "The dog ran.", "None")),
        ("en", ("Is the sentence positive or negative in tone?", "I love it.", "positive")),
        ("zh", ("此句有无语病？", "小狗跑了。", "无")),
        ("zh", ("这是物理变化还是化学变化？", "铁锅生锈", "化学变化")),
    ],
)
def test_labels_pass_as_classification(language, row):
    assert check(*row, language, is_classification=True, limits=ValidateLimits()) is None


def test_a_label_for_nothing_passes_where_the_instruction_names_it():
    assert check('List the errors, or write "none".', "", "none", "en", limits=ValidateLimits()) is None


def test_lengths_at_the_limits_pass():
    numbers = [str(i) for i in range(61)]
    assert check("Count up.", "", " ".join(numbers[:60]), "en") is None
    assert check("Count up.", "", " ".join(numbers), "en").evidence == "61 units, at most 60"
    assert check("Count up.", "", "one, two", "en") is None  # two words, as min_output


def test_python_is_compiled_but_never_run(tmp_path):
    target = tmp_path / "touched"
    code = f"from pathlib import Path\nPath({str(target)!r}).touch()"
    assert check("Write Python code that creates a file.", "", code, "en") is None
    assert not target.exists()


@pytest.mark.parametrize(
    ("instruction", "language", "needs"),
    [
        ("Classify the sentiment of the following review.", "en", True),
        ("Sort these words alphabetically.", "en", True),
        ("Describe the following day in your diary.", "en", False),
        ("把下面的句子译成英文。", "zh", True),
        ("列举三条河流。", "zh", False),
    ],
)
def test_instructions_say_whether_they_need_an_input(instruction, language, needs):
    assert refers_to_input(instruction, WORDS[language]) is needs


def test_a_quoted_text_that_comes_back_unchanged_is_no_answer() -> None:
    for instruction, output in (
        (
            'Turn this into a question: "The old man feeds the grey birds."',
            "The old man feeds the grey birds.",
        ),
        ("把“今天早上下了一场大雨。”改成问句。", "“今天早上下了一场大雨。”"),
    ):
        drop = input_equals_output(instruction, "", output)
        assert drop is not None and drop.reason == "input_equals_output"
    assert input_equals_output('Is "the cat sat on the mat" a rhyme?', "", "Yes, it is.") is None


@pytest.mark.parametrize(
    ("instruction", "given", "output", "dropped"),
    [
        ("Rewrite it in a casual tone.", "I am so sorry to hear about your illness.", None, True),
        ("Explain the sentence.", "The man is tall and he is 32 years old.", None, True),
        ("把这句话说得更口语一些。", "今天早上外面下了一场很大的雨，路上全是水。", None, True),
        ("Correct the grammar.", "I am so sorry to hear about your illness.", None, False),
        ("Put the sentence into the past tense.", "I am so sorry to hear about your illness.", None, False),
        ("改正句中的错别字。", "今天早上外面下了一场很大的雨，路上全是水。", None, False),
        (
            "Rewrite it in a casual tone.",
            "I am so sorry to hear about your illness.",
            "Hope you get well soon!",
            False,
        ),
        (
            "把这句话说得更口语一些。",
            "今天早上外面下了一场很大的雨，路上全是水。",
            "早上下大雨，路都淹啦。",
            False,
        ),
        ("Say it shorter.", "I am so sorry.", None, False),
    ],
)
def test_an_input_that_hardly_changes_is_no_answer_unless_an_edit_was_asked_for(
    instruction: str, given: str, output: str | None, dropped: bool
) -> None:
    output = given.replace("so ", "").replace("32", "33").replace("很", "") if output is None else output
    drop = input_equals_output(instruction, given, output)
    assert (drop is not None) is dropped
    assert drop is None or "% the same: " in drop.evidence


@pytest.mark.parametrize(
    ("language", "instruction", "given", "label", "dropped"),
    [
        ("en", "Is this message positive or negative?", "negative", "positive", True),
        (
            "en",
            "Is this message positive or negative?",
            '"A song that never dies"\nPositive',
            "negative",
            True,
        ),
        ("en", "Sort the comment into a mood.", "What a day!\nAngry", "angry", True),
        ("en", "Is this message positive or negative?", "A positive surprise!", "positive", False),
        ("en", "Which passage fits?", "Passage:\nBirds fly south.", "1", False),
        ("zh", "判断这条评论是好评还是差评。", "差评", "好评", True),
        ("zh", "判断这条评论是好评还是差评。", "味道真不错，还会再来。\n好评", "好评", True),
        ("zh", "判断这条评论是好评还是差评。", "味道真不错，还会再来。", "好评", False),
    ],
)
def test_an_input_does_not_hold_a_label(
    language: str, instruction: str, given: str, label: str, dropped: bool
) -> None:
    limits = ValidateLimits()
    drop = check(instruction, given, label, language, is_classification=True, limits=limits)
    assert (drop is not None) is dropped
    assert drop is None or drop.reason == "input_holds_label"


@pytest.mark.parametrize(
    ("language", "instruction", "output"),
    [
        ("en", "Describe rain in 100 words.", "Here are 100 words on rain, which falls from clouds."),
        ("en", "Describe rain.", "Rain has inspired more than 90 words in English."),
        ("zh", "用一百五十字描写雨。", "下面的一百五十字写的是雨。"),
        ("zh", "描写雨。", "雨字有八画，古人用三百字写过它。"),
    ],
)
def test_a_length_that_was_asked_for_or_is_another_one_may_be_spoken_of(language, instruction, output):
    assert own_length(instruction, output, PROMPTS) is None
