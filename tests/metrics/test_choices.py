"""Letters as people and models announce them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loracle.errors import DataError
from loracle.metrics import choice
from loracle.metrics.choices import chosen, is_bare, reads_prediction, reference_letters

ONE_LETTER = [
    ("The answer is option B: Paris", "B"),
    ("根据上述分析，正确选项是C", "C"),
    ("所以选C。", "C"),
    ("本题选择C选项", "C"),
    ("答案：（C）", "C"),
    ("Correct answer: (C) blah", "C"),
    ("C is the correct answer", "C"),
    ("Answer:C", "C"),
    ("The answer is:\n\nC", "C"),
    ("The answer is\nC. Paris", "C"),
    ("因为A错误，所以选C", "C"),
    ("A不对，B不对，C对", "C"),
    ("A、B错误，C正确", "C"),
    ("Based on this, I believe the answer is \\(\\boxed{D}\\).", "D"),
    ("**Answer:** D", "D"),
    ("**D. Paris**", "D"),
    ("D: Paris", "D"),
    ("正确答案: D", "D"),
    ("D。因为……", "D"),
    ("D，因为A", "D"),
    ("选项D是正确的", "D"),
    ("选D项", "D"),
    ("我的答案是D", "D"),
    ("Option (D) is correct", "D"),
    ("The best answer is D", "D"),
    ("Letter D", "D"),
    ("The answer is letter D", "D"),
    ("Choose (D).", "D"),
    ("I'm going with B", "B"),
    ("My answer is B", "B"),
    ("B is the answer", "B"),
    ("It's option B.", "B"),
    ("So B is correct", "B"),
    ("**Correct Answer: B**", "B"),
    ("<b>B</b>", "B"),
    ("`B`", "B"),
    ("Answer - B", "B"),
    ("Ans: B", "B"),
    ("Ans. B", "B"),
    ("答 B", "B"),
    ("Ｂ．北京", "B"),
    ("選B", "B"),
    ("答案為B", "B"),
    ("正確答案是B", "B"),
    ("B (Paris)", "B"),
    ("B - Paris", "B"),
    ("B) ", "B"),
    ("{B}", "B"),
    ("\\text{B}", "B"),
    ("$$B$$", "B"),
    ("Answer: $B$", "B"),
    ("1) B", "B"),
    ("The correct answer is (B): It", "B"),
    ("不是A，也不是B，而是C", "C"),
    ("not A but B", "B"),
    ("Not A. B.", "B"),
    ("A is wrong so B", "B"),
    ("I would say B", "B"),
    ("B!", "B"),
    ("b.", "B"),
    ("answer is b", "B"),
    ("the answer is (a)", "A"),
    ("the answer is a.", "A"),
    ("a", "A"),
    ("选a", "A"),
    ("答案是a", "A"),
    ("Option a", "A"),
    ("B\n\nExplanation: option A mixes up mass and weight.", "B"),
    ("答案是B。选项A错误。", "B"),
    ("\\boxed{B}", "B"),
    ("答案应为B", "B"),
    ("b", "B"),
    ("综上所述，本题应选 B 项。", "B"),
    ("Answer: **B**", "B"),
    ("Option B", "B"),
    ("The answer is (B)", "B"),
    ("**B**", "B"),
    ("\\boxed{C}", "C"),
    ("B. text", "B"),
    ("选项 D 正确", "D"),
    ("The answer is not A, it is B.", "B"),
    ("不是A，是B", "B"),
    ("正确答案不是A，而是B。", "B"),
    ("不选A，选C", "C"),
    ("A错误，B正确", "B"),
    ("Ｂ", "B"),
    ("（Ｂ）", "B"),
    ("$\\boxed{\\text{B}}$", "B"),
    ("The correct answer is option C.", "C"),
    ("the answer is c because x", "C"),
    ("Answer: b", "B"),
    ("b) Paris", "B"),
    ("(b)", "B"),
    ("option b", "B"),
    ("The answer is A. Because B is wrong", "A"),
    ("At first the answer is A. No: the answer is B", "B"),
    ("The answer is A. The answer is B", "A"),
    ("Paris (B) is right", "B"),
    ("B. Paris, not A", "B"),
    ("只有B正确", "B"),
    ("只有选项B错误", "B"),
    ("说法错误的是B", "B"),
    ("说法不正确的选项是C", "C"),
    ("B是正确的", "B"),
    ("C是正确答案", "C"),
    ("所以答D", "D"),
    ("1. B", "B"),
    ("因此B。", "B"),
    ("显然 C", "C"),
    ("答案应该选D", "D"),
    ("答案选D", "D"),
    ("选择C", "C"),
    ("我认为：B", "B"),
    ("The answer to the question is D", "D"),
    ("选项B", "B"),
    ("B选项", "B"),
    ("D项正确", "D"),
    ("the answer is B, A is wrong", "B"),
    ("答案是B，A错误", "B"),
    ("Let's see. Option A is wrong. Option B is incorrect. Option C is right.", "C"),
    ("A. dog - wrong\nB. cat - wrong\nC. cow - right\nAnswer: C", "C"),
    ("I would choose D", "D"),
    ("I'd go with option C", "C"),
    ("Therefore, B.", "B"),
    ("So the correct option is D", "D"),
    ("It's B", "B"),
    ("It must be (C).", "C"),
    ("The best choice is B", "B"),
    ("#### B", "B"),
    ("The right answer: C.", "C"),
    ("A", "A"),
    ("I", "I"),
    ("选B，不选A", "B"),
    ("我选B", "B"),
    ("正确选项为 (D)", "D"),
    ("B because A is wrong", "B"),
    ("C：上海", "C"),
    ("答案：C、上海", "C"),
    ("D 上海", "D"),
    ("选项Ａ", "A"),
    ("Answer is: B)", "B"),
    ("<answer>B</answer>", "B"),
    ("【答案】B", "B"),
    ("[[B]]", "B"),
    ("Choice (C)", "C"),
    ('"B"', "B"),
    ("Final Answer: C", "C"),
    ("The answer is: $\\mathbf{B}$", "B"),
    ("根据题意，A项不符合，B项符合题意，故本题选B。", "B"),
    ("A. The man is here", "A"),
    ("Answer:\nC", "C"),
    ("答案：\nC", "C"),
    ("本题的正确答案是 D。A选项…", "D"),
    ("不能选A，应该选择D", "D"),
    ("E", "E"),
    ("the letter is D", "D"),
    ("选B的理由", "B"),
    ("A is incorrect; B is correct.", "B"),
    ("I think B is right", "B"),
    ("Answer: I", "I"),
    ("B)", "B"),
    ("B）", "B"),
    ("选项为B", "B"),
    ("The answer should be C.", "C"),
    ("answer : c", "C"),
    ("So, the answer is: (D) 42", "D"),
    ("答案为：**C**", "C"),
    ("I'd say it is B", "B"),
    ("Based on the passage, (C)", "C"),
    ("正确答案：A", "A"),
    ("参考答案：D", "D"),
    ("应选A", "A"),
    ("故答案为：B．", "B"),
    ("故选B．", "B"),
    ("故选：B．", "B"),
    ("答：C", "C"),
    ("解：选C", "C"),
    ("排除A、B，选C", "C"),
    ("Rule out A. Answer C", "C"),
    ("My choice: D", "D"),
    ("d", "D"),
    ("D.", "D"),
    ("(d) ", "D"),
    ("Ｄ．上海", "D"),
    ("B\nQuestion: What?\nAnswer: C", "B"),
    ("答案是B\n\n题目：…\n答案：C", "B"),
    ("首先，A选项是错误的，因为…；B选项也不对；所以正确答案是C。", "C"),
]
SEVERAL_LETTERS = [
    ("B、D", "BD"),
    ("故选：AC", "AC"),
    ("Both (A) and (B)", "AB"),
    ("答案：ABD", "ABD"),
    ("A, B and D are correct", "ABD"),
    ("A, C", "AC"),
    ("选A、C", "AC"),
    ("选A和C", "AC"),
    ("ABD", "ABD"),
    ("A B D", "ABD"),
    ("abd", "ABD"),
    ("A和C都正确", "AC"),
    ("The correct answers are A and C.", "AC"),
    ("(A)(C)", "AC"),
    ("A，C，D", "ACD"),
    ("【答案】 AC", "AC"),
    ("正确的是A和B", "AB"),
    ("错误的有B、C", "BC"),
    ("答案是 A 或 B", "AB"),
    ("The answer is A, B, and D.", "ABD"),
    ("The correct options are A, B.", "AB"),
    ("AB", "AB"),
    ("A,B,C,D", "ABCD"),
    ("选项A和选项C正确", "AC"),
    ("答案：A C", "AC"),
    ("选ABD", "ABD"),
    ("Answers: B & D", "BD"),
    ("A;C", "AC"),
    ("A/C", "AC"),
    ("正确的选项是：A、C、D。", "ACD"),
]
NO_LETTER = [
    "The answer isn't B",
    "The answer is neither A nor B",
    "None of the above",
    "The answer is a dog",
    "Answer: A dog barks",
    "A man came",
    "I think so",
    "BBC",
    "The answer is Berlin",
    "none",
    "Vitamin C",
    "维生素A",
    "The answer is U.S.",
    "C++",
    "C语言",
    "A股",
    "O型血",
    "I don't know",
    "",
    "It isn't A",
    "Neither A nor B",
    "Not B.",
    "非A",
    "The answer is because",
    "Answer: All of the above",
    "答案是错误",
    "The answer is bed",
    "Answer: I do not know",
    "A.M. is morning",
    "答案不是A",
    "A不正确",
    "except A",
    "The option (A) is not correct",
    "①",
    "12",
]
# One text for each pattern of OpenCompass's first_option_postprocess.
OPENCOMPASS = [
    "答案是 {}",
    "答案是：{}",
    "答案是:{}",
    "答案应该是{}",
    "答案应是 {}",
    "答案应该选{}",
    "答案为{}",
    "答案选 {}",
    "选择{}",
    "选{}",
    "只有选项{}是对的",
    "只有{}是错的",
    "只有选项{}不正确",
    "只有{}正确",
    "只有选项{}错误",
    "说法不对选项的是{}",
    "说法不正确的是{}",
    "说法正确的选项是{}",
    "说法错误的是{}",
    "{}是正确的",
    "{} 是正确答案",
    "选项{}正确",
    "所以答{}",
    "1. {}",
    "1.{}。",
    "所以 {}",
    "所有{}。",
    "我看是：{}",
    "经计算，{}。",
    "，故{}。",
    "，即{}",
    "经过比较，因此{}。",
    "应该是 {}。",
    "显然{}",
    "The answer is {}",
    "the answer is {}.",
    "The answer is option {}",
    "The correct answer is {}",
    "The correct answer is option {}",
    "The answer to the question is {}",
    "选项 {}",
    "{}选项",
    "{} 项",
    "I say {}: it fits",
    "We get {} , it fits",
    "ANSWER: {}",
    "The answer is: ({})",
    "The answer is **{}**",
    "The correct answer is: \\boxed{{{}}}",
    "The correct option is $\\boxed{{{}}}$",
    "答案选项应该是{}",
    "答案选项为：{}",
    "答案选项为 (**{}**)",
    "{}: a text",
]


@pytest.mark.parametrize(("text", "letter"), ONE_LETTER)
def test_the_letter_chosen_is_found(text: str, letter: str) -> None:
    others = [other for other in "ABCDEI" if other != letter]
    assert choice(text, [letter]) == 1
    assert choice(text, [letter.lower()]) == 1
    assert [choice(text, [other]) for other in others] == [0] * len(others)
    assert reads_prediction(text)


@pytest.mark.parametrize("text", OPENCOMPASS)
@pytest.mark.parametrize("letter", "ABCD")
def test_what_opencompass_reads_is_read(text: str, letter: str) -> None:
    assert choice(text.format(letter), [letter]) == 1


@pytest.mark.parametrize(("text", "letters"), SEVERAL_LETTERS)
def test_several_letters_are_all_needed_and_no_others(text: str, letters: str) -> None:
    assert choice(text, [letters]) == 1
    assert choice(text, ["、".join(letters)]) == 1
    assert choice(text, [letters[:-1]]) == 0
    assert choice(text, [f"{letters}G"]) == 0


def test_judgements_are_collected_where_several_letters_are_asked_for() -> None:
    text = "选项A正确。选项B错误。选项C正确。"
    assert choice(text, ["AC"]) == 1
    assert choice(text, ["ABC"]) == 0
    assert choice(text, ["A"]) == 1
    assert choice(text, ["C"]) == 0


@pytest.mark.parametrize("text", NO_LETTER)
def test_what_chooses_no_letter_scores_nothing(text: str) -> None:
    assert [choice(text, [letter]) for letter in "ABCDEI"] == [0] * 6
    assert choice(text, [text]) == 0
    assert not reads_prediction(text)


@pytest.mark.parametrize(
    ("reference", "letters"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B) Paris", "B"),
        ("B. Paris", "B"),
        ("ABD", "ABD"),
        ("B,D", "BD"),
        ("A、C", "AC"),
        ("答案：C", "C"),
        ("Vitamin C", ""),
        ("Paris", ""),
        ("A dog", ""),
        ("", ""),
    ],
)
def test_references_are_letters_or_begin_with_one(reference: str, letters: str) -> None:
    assert reference_letters(reference) == (frozenset(letters) or None)


@pytest.mark.parametrize("text", ["A", "(b)", "C.", "A、C", "ABD", "选B"])
def test_a_text_of_letters_alone_is_bare(text: str) -> None:
    assert is_bare(text)


@pytest.mark.parametrize("text", ["A dog", "B. Paris", "Paris", "", "DNA", "12", "ab"])
def test_a_text_with_more_than_letters_is_not_bare(text: str) -> None:
    assert not is_bare(text)


@pytest.mark.parametrize("text", ["A", "a", "AC", "A and C", "Both (A) and (B)", "A或B"])
def test_a_hedge_between_letters_is_not_one_of_them(text: str) -> None:
    assert choice(text, ["C"]) == 0
    assert len(text) == 1 or choice(text, ["A"]) == 0


def test_references_are_needed() -> None:
    with pytest.raises(DataError, match="no reference answer"):
        choice("B", [])


WORDS = [
    "A",
    "B",
    "C",
    "(A)",
    "is",
    "the answer",
    "答案",
    "选",
    "不",
    "not",
    "项",
    "、",
    ",",
    ".",
    "\n",
]
mixtures = st.lists(st.sampled_from([*WORDS, " ", "and", "\\boxed{", "}", "正确", "错误"])).map(
    "".join
)


@given(text=st.one_of(st.text(), mixtures), reference=st.one_of(st.text(), mixtures))
def test_any_text_scores_0_or_1_and_equally_again(text: str, reference: str) -> None:
    assert choice(text, [reference]) in (0, 1)
    assert choice(text, [reference]) == choice(text, [reference])


@given(text=mixtures)
@example(text="B\n答案A")
def test_a_readable_reference_is_right_as_its_own_prediction(text: str) -> None:
    if letters := reference_letters(text):
        assert chosen(text, several=len(letters) > 1) == letters
