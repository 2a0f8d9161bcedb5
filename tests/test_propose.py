"""Proposals are read out of whatever numbering a model falls into; demonstrations are drawn as asked."""

from __future__ import annotations

import random

import pytest

from pipeline.engines.base import Sampling
from pipeline.records import Instance, SeedTask
from pipeline.stages.prompts import STYLES, Prompts
from pipeline.stages.propose import (
    Demonstrations,
    MachineWritten,
    parse_proposals,
    pick_demonstrations,
    propose_request,
)

POEM, WHY = "Write a poem about a dog.", "Explain why leaves fall."
SHI, YE = "写一首关于小狗的诗。", "解释叶子为什么会落下。"
PAIRS = [(POEM, WHY), (SHI, YE)]


def items(text: str, opener: str = "", *, chat: bool = True) -> list[str]:
    return [item for item, _ in read(text, opener, chat=chat)]


def read(
    text: str, opener: str = "", *, chat: bool = True, finish: str = "stop", shown: tuple[str, ...] = ()
) -> list[tuple[str, str]]:
    """(item, reason or "") pairs."""
    parsed = parse_proposals(text, opener, chat=chat, finish_reason=finish, shown=shown)
    assert all(drop is None or drop.evidence for _, drop in parsed)
    return [(item, drop.reason if drop else "") for item, drop in parsed]


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize(
    "layout",
    [
        "9. {0}\n10. {1}",
        "9) {0}\n10) {1}",
        "9）{0}\n10）{1}",
        "9、{0}\n10、{1}",
        "9．{0}\n10．{1}",
        "1. {0}\n2. {1}",
        "9. {0}\n1. {1}",
        "Task 9: {0}\nTask 10: {1}",
        "任务9：{0}\n任务10：{1}",
        "  9.  {0}\n\n  10.  {1}\n",
        "- {0}\n- {1}",
        "* {0}\n* {1}",
        "• {0}\n• {1}",
        "9. 9. {0}\n10. 10. {1}",
        "9) 9) {0}\n10) 10) {1}",
        "9、9、{0}\n10、10、{1}",
        "9. {0} 10. {1}",
        "**9.** {0}\n**10.** {1}",
        "9. **{0}**\n10. **{1}**",
        '9. "{0}"\n10. "{1}"',
        "9. “{0}”\n10. “{1}”",
        "9. 「{0}」\n10. 「{1}」",
        "Here are two tasks:\n\n9. {0}\n10. {1}",
        "好的，以下是两个任务：\n9. {0}\n10. {1}",
        "Sure! 9. {0}\n10. {1}",
    ],
)
def test_both_items_are_found_in_every_layout(layout: str, first: str, second: str) -> None:
    assert items(layout.format(first, second)) == [first, second]


def test_items_merged_without_a_space_are_parted_in_chinese() -> None:
    assert items(f"9. {SHI}10. {YE}") == [SHI, YE]


def test_a_completion_may_start_with_its_first_item_or_with_a_number() -> None:
    assert items(f" {POEM}\n10. {WHY}", chat=False) == [POEM, WHY]
    assert items(f" 9. {POEM}\n10. {WHY}", chat=False) == [POEM, WHY]
    assert items(f"{SHI}\n10. {YE}", chat=False) == [SHI, YE]


def test_the_first_item_carries_on_the_opener() -> None:
    assert items(" poem about a dog.\n10. Explain why leaves fall.", "Write a", chat=False) == [POEM, WHY]
    assert items("n essay on dogs.", "Write a", chat=False) == ["Write an essay on dogs."]
    assert items("首关于小狗的诗。\n10. 解释叶子为什么会落下。", "写一", chat=False) == [SHI, YE]


def test_a_number_that_carries_on_the_opener_is_no_numbering() -> None:
    assert items("12、18和24的最大公约数是多少？", "计算", chat=False) == [
        "计算12、18和24的最大公约数是多少？"
    ]


@pytest.mark.parametrize("text", ["", "  \n", f"\n9. {POEM}"])
def test_an_opener_that_is_not_carried_on_is_no_item(text: str) -> None:
    # "What is the difference between" alone would pass the screening: five words, begins like a question
    assert items(text, "What is the difference between", chat=False) == ([POEM] if POEM in text else [])


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("text", ["", " ", "\n\n", "9.", "9. \n10. "])
def test_no_text_gives_no_items(text: str, chat: bool) -> None:
    assert items(text, chat=chat) == []


@pytest.mark.parametrize(
    "item",
    [
        "Convert 3.5 miles to kilometres.",
        "Round 3.5. Then explain your choice.",
        "Say what is new in Python 3.11. Give one example.",
        "Explain what a 10:30 train is.",
        "Compute 2**10 and 3**4.",
        "三点五写成3.5，请解释为什么。",
        "请说明Python 3.11。举一个例子。",
        "比较3.5和3.11的大小。",
    ],
)
def test_decimals_and_versions_are_no_numbering(item: str) -> None:
    assert items(f"9. {item}\n10. {WHY}") == [item, WHY]


@pytest.mark.parametrize("line", ["3.5 miles is how far?", "10:30 is how many minutes after 9:45?"])
def test_a_line_may_begin_with_a_decimal_or_a_time(line: str) -> None:
    assert items(line) == [line]


def test_a_chinese_item_may_begin_with_a_number() -> None:
    wanted = ["3个孩子分10个苹果，每人几个？", "12、18和24的最大公约数是多少？"]
    assert items(f"9、{wanted[0]}\n10、{wanted[1]}") == wanted


def test_quotes_stay_where_they_are_not_around_the_whole() -> None:
    for item in (
        '"Time flies" means what?',
        'Say "yes" in French and "no" in German: "oui"',
        "“对”是什么意思？",
    ):
        assert items(f"9. {item}") == [item]


def test_an_item_over_several_lines_becomes_one_line() -> None:
    assert items("9. Write a poem\n   about a dog.\n10. Explain why leaves fall.") == [POEM, WHY]


def test_only_the_last_item_is_cut_off_and_only_at_the_length_limit() -> None:
    for first, second in PAIRS:
        cut = f"9. {first}\n10. {second[:6]}"
        assert read(cut, finish="length") == [(first, ""), (second[:6], "cut_off")]
        assert read(cut, finish="stop") == [(first, ""), (second[:6], "")]


def test_an_item_followed_by_a_bare_number_is_whole() -> None:
    assert read(f"9. {POEM}\n10. ", finish="length") == [(POEM, "")]


def test_a_repeated_item_is_told_from_its_first_occurrence() -> None:
    for first, second in PAIRS:
        text = f"9. {first}\n10. {second}\n11. {first.upper()}"
        assert [reason for _, reason in read(text)] == ["", "", "repeated_item"]


def test_an_item_that_was_shown_is_an_echo_of_the_prompt() -> None:
    for first, second in PAIRS:
        shown = (first.replace(" ", "\n "), "Another task.")
        assert [reason for _, reason in read(f"9. {first}\n10. {second}", shown=shown)] == ["prompt_echo", ""]


SEEDS = [SeedTask(f"s{i}", f"Seed {i}", (Instance("", "x"),)) for i in range(20)]
MACHINE = [(f"m{i}", f"Made {i}") for i in range(30)]


def written(count: int) -> MachineWritten:
    made = MachineWritten()
    for key, text in MACHINE[:count]:
        made.add(key, text)
    return made


def kinds(shown: Demonstrations) -> tuple[int, int]:
    return sum(i[0] == "s" for i in shown.ids), sum(i[0] == "m" for i in shown.ids)


def test_six_seeds_and_two_machine_written_instructions_are_shown() -> None:
    shown = pick_demonstrations(random.Random(0), SEEDS, written(30), 6, 2)
    assert kinds(shown) == (6, 2) and len(set(shown.ids)) == 8
    texts = {**{s.id: s.instruction for s in SEEDS}, **dict(MACHINE)}
    assert shown.texts == tuple(texts[i] for i in shown.ids)


def test_seeds_stand_in_while_the_pool_is_small() -> None:
    assert kinds(pick_demonstrations(random.Random(0), SEEDS, written(0), 6, 2)) == (8, 0)
    assert kinds(pick_demonstrations(random.Random(0), SEEDS, written(1), 6, 2)) == (7, 1)
    assert kinds(pick_demonstrations(random.Random(0), SEEDS[:3], None, 6, 2)) == (3, 0)


def test_demonstrations_are_shuffled_so_that_machine_written_ones_stand_anywhere() -> None:
    rng = random.Random(0)
    places = {
        place
        for _ in range(100)
        for place, i in enumerate(pick_demonstrations(rng, SEEDS, written(30), 6, 2).ids)
        if i[0] == "m"
    }
    assert places == set(range(8))


def test_the_same_random_state_draws_the_same_demonstrations() -> None:
    first, again, other = (pick_demonstrations(random.Random(n), SEEDS, written(30), 6, 2) for n in (1, 1, 2))
    assert first == again != other


def test_one_more_machine_written_instruction_changes_few_draws() -> None:
    # a draw of 2 out of 30 shows a 31st with probability 2/31: about 13 of 200
    before, after = written(30), written(30)
    after.add("m30", "Made 30")
    changed = [k for k in range(200) if before.draw(str(k), 2) != after.draw(str(k), 2)]
    assert 4 <= len(changed) <= 26
    assert all("m30" in [key for key, _ in after.draw(str(k), 2)] for k in changed)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_completion_stops_at_the_number_after_the_last_one_and_a_chat_nowhere(language: str) -> None:
    shown = Demonstrations(("A", "B", "C"), ("a", "b", "c"))
    completion, chat = (
        propose_request(
            Prompts().get(language, "propose", s), shown, "" if s == "chat" else "Go", 2, Sampling(0.7, 0.9)
        )
        for s in STYLES
    )
    # 3 shown, 2 asked for (numbers 4 and 5): number 6 ends the answer
    assert completion.sampling == Sampling(0.7, 0.9, stop=("\n6.", "\n\n"))
    assert completion.prompt.endswith("3. C\n4. Go") and not completion.chat
    assert chat.sampling.stop == () and chat.chat and "2" in chat.prompt
