"""Numbers as people and models write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loracle.errors import DataError
from loracle.metrics import numeric
from loracle.metrics.numbers import has_marked_number, read_number, reads

EQUAL = [
    ("The total is 1,234 dollars.", "1234"),
    ("答案为 12 平方米", "12"),
    ("12㎡", "12"),
    ("约等于3.14", "3.14"),
    ("≈3.14", "3.14"),
    ("3.14...", "3.14"),
    ("= 5 (cm)", "5"),
    ("5 (cm)", "5"),
    ("The answer is 5%.", "5"),
    ("$\\frac{3}{4}$ hour", "0.75"),
    ("3", "3"),
    ("一万二千", "12000"),
    ("十二万三千四百五十六", "123456"),
    ("1百万", "1000000"),
    ("2.5百万", "2500000"),
    ("壹佰", "100"),
    ("五分之三", "0.6"),
    ("50％", "50"),
    ("−0.5", "-0.5"),
    ("-.5", "-0.5"),
    ("0.5", "1/2"),
    ("(−3)", "-3"),
    ("x≥3", "3"),
    ("x>3", "3"),
    ("3 或 5", "5"),
    ("5 apples and 3 pears", "3"),
    ("答案是5元3角", "5"),
    ("12.50元", "12.5"),
    ("￥12.50", "12.5"),
    ("1,5,9", "9"),
    ("1e-3", "0.001"),
    ("10^{-3}", "0.001"),
    ("2×10^5", "200000"),
    ("2*10**5", "200000"),
    ("5^2", "25"),
    ("1st", "1"),
    ("20th century", "20"),
    ("1990s", "1990"),
    ("3.", "3"),
    ("18.", "18"),
    ("\\boxed{18.}", "18"),
    ("\\boxed{1,000}", "1000"),
    ("\\boxed{\\$18}", "18"),
    ("\\boxed{x=18}", "18"),
    ("\\boxed{18\\text{ km}}", "18"),
    ("\\boxed{50\\%}", "50"),
    ("\\boxed{\\frac12}", "0.5"),
    ("$\\boxed{\\dfrac{7}{2}}$.", "3.5"),
    ("A: 7", "7"),
    ("Answer: $7.00", "7"),
    ("####18", "18"),
    ("#### $18.00", "18"),
    ("#### -3", "-3"),
    ("12:30", "12:30"),
    ("7:05 a.m.", "7:05"),
    ("3-4", "3-4"),
    ("3～4", "3-4"),
    ("between 3 and 4", "4"),
    ("3 to 4 days", "3-4"),
    ('5"', "5"),
    ("½ cup", "0.5"),
    ("2 1/2 hours", "5/2"),
    ("2-1/2", "2.5"),
    ("第二十三届", "23"),
    ("二十三", "23"),
    ("六十分", "60"),
    ("两千", "2000"),
    ("3万元", "30000"),
    ("3 万", "30000"),
    ("30,000", "3万"),
    ("1.2亿元", "120000000"),
    ("1亿2千万", "120000000"),
    ("一亿", "1e8"),
    ("零点五", "0.5"),
    ("负三分之一", "-1/3"),
    ("负二", "-2"),
    ("0.5", "0.5"),
    ("7 000 000", "7000000"),
    ("7.000.000", "7000000"),
    ("1’234", "1234"),
    ("1,234.56", "1234.56"),
    ("1.234,56", "1234.56"),
    ("Rs. 500", "500"),
    ("€1.234,56", "1234.56"),
    ("42", "42"),
    ("17 + 25 = 42 apples.", "#### 42"),
    ("It costs $1,234.50 in total.", "1234.5"),
    ("1234", "1,234"),
    ("x = -3", "-3"),
    ("x = −3", "-3"),
    ("The result is -3", "-3"),
    ("答案是-3", "-3"),
    ("10-3", "3"),
    ("x-3", "3"),
    ("(2)-3", "3"),
    ("about 1.5e3", "1500"),
    (".5", "0.50"),
    ("50%", "50"),
    ("共４２个", "42"),
    ("答案是 42。", "42"),
    ("12,34", "34"),
    ("1,2,3", "3"),
    ("The year was 1998.", "1998"),
    ("$9{,}500", "9500"),
    ("12 m^2", "12"),
    ("0.75", "3/4"),
    ("1.5 × 10^3", "1500"),
    ("负5", "-5"),
    ("**18**.", "18"),
    ("1 234", "1234"),
    ("1'234", "1234"),
    ("1.234,5", "1234.5"),
    ("1.234.567", "1234567"),
    ("\\frac{1}{2}", "0.5"),
    ("1 1/2", "1.5"),
    ("$1\\frac{1}{2}$", "3/2"),
    ("\\boxed{42}", "42"),
    ("\\boxed{\\text{42 apples}}", "42"),
    ("10³", "1000"),
    ("1e3", "1000"),
    ("2^{10}", "1024"),
    ("3:30", "3:30"),
    ("3:30 pm", "15:30"),
    ("at 3:30.", "3:30"),
    ("3-5", "3–5"),
    ("3 to 5", "3-5"),
    ("3至5", "3-5"),
    ("三十五", "35"),
    ("一百二十", "120"),
    ("两", "2"),
    ("两个", "2"),
    ("3.5万", "35000"),
    ("1亿", "100000000"),
    ("三万五千", "35000"),
    ("#### 18\nQ: next? #### 5", "18"),
    ("She sold 18. #### 18 (2 of 9)", "18"),
    ("12 m²", "12"),
    ("-5", "−5"),
    ("-5", "-5"),
    ("－5", "-5"),
    ("minus 5", "-5"),
    ("negative 5", "-5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("x = - 5", "-5"),
    ("US$5", "5"),
    ("RMB100", "100"),
    ("100元", "100"),
    ("5kg", "5"),
    ("5 km/h", "5"),
    ("2 million", "2000000"),
    ("1.5 million people", "1500000"),
    ("The answer is 18 apples, 3 of them green.", "18"),
    ("The answer is 3 + 15 = 18", "18"),
    ("The answer is 5 × 3, which is 15", "15"),
    ("答案是18，其中3个是绿的", "18"),
    ("百分之五十", "50"),
    ("三分之一", "1/3"),
    ("2/4", "1/2"),
    ("6/3", "2"),
    ("½", "0.5"),
    ("2½", "2.5"),
    ("100 %", "100"),
    ("\\$1{,}000", "1000"),
    ("9\\,500", "9500"),
    ("2020-01-05", "2020/01/05"),
    ("1,234,567.89", "1234567.89"),
    ("答：一共三十五人。", "35"),
    ("第三", "3"),
    ("Answer: 7.", "7"),
    ("The final answer is $\\boxed{-\\frac{3}{4}}$", "-0.75"),
    ("3点半", "3:30"),
    ("$18$", "18"),
    ("18.00", "18"),
    ("£3.50", "3.5"),
    ("about 20°C", "20"),
    ("25\\%", "25"),
    ("1.234", "1.234"),
    ("5'", "5"),
    ("No.5", "5"),
    ("(5)", "5"),
    ("[5]", "5"),
    ("{5}", "5"),
    ("5!", "5"),
    ("Tom has 3 apples and 2 pears, so 5", "5"),
    ("12th", "12"),
    ("+5", "5"),
    ("1/2 cup", "0.5"),
    ("3 : 2", "3:2"),
    ("1.5·10^3", "1500"),
    ("1.5\\times10^{3}", "1500"),
    ("1.5×10⁻³", "0.0015"),
    ("１２３４", "1234"),
    ("5k", "5000"),
    ("一共有12个苹果，一个不少", "12"),
    ("from 3 to 5", "5"),
    ("10 - 3 = 7", "7"),
    ("1 000 000", "1000000"),
    ("1 000,5", "1000.5"),
    ("5", "5"),
    ("价格是35元", "35"),
    ("-1/2", "-0.5"),
    ("-1 1/2", "-1.5"),
    ("1", "1"),
    ("1,000", "1000"),
    ("八", "8"),
    ("八。", "8"),
    ("答案：八", "8"),
    ("二十", "20"),
    ("一千零一", "1001"),
    ("12:00", "12:00"),
    ("3.14159", "3.14159"),
    ("x=5", "5"),
    ("x=5.", "5"),
    ("5.", "5"),
    ("\\(5\\)", "5"),
    ("\\[ x = 5 \\]", "5"),
    ("$x = 5$", "5"),
    ("5\\text{ cm}", "5"),
    ("5^\\circ", "5"),
    ("30^{\\circ}", "30"),
    ("60°", "60"),
]
UNEQUAL = [
    ("42.01", "42"),
    ("-42", "42"),
    ("42 of 100", "42"),
    ("none", "none"),
    ("forty-two", "42"),
    ("0.1", "0.10000000000000001"),
    ("1e3", "1"),
    ("50%", "0.5"),
    ("1/4", "3/4"),
    ("4:30", "3:30"),
    ("2/3", "5/3"),
    ("12", "2"),
    ("A2", "2"),
    ("CO2", "2"),
    ("x_2", "2"),
    ("x^2", "2"),
    ("√2", "2"),
    ("2π", "2"),
    ("1.2.3", "3"),
    ("3:30", "30"),
    ("3-5", "5"),
    ("3/4", "4"),
    ("10^3", "3"),
    ("10³", "103"),
    ("m²", "2"),
    ("0x1F", "0"),
    ("2020-01-05", "5"),
    ("1/0", "0"),
    ("一起", "1"),
    ("万一", "1"),
    ("Denver", "0"),
    ("", "0"),
    ("H2O", "2"),
    ("5", "-5"),
    ("35", "三"),
    ("1.5×10^3", "3"),
    ("1,234", "234"),
    ("1 234", "234"),
    ("30", "3:30"),
    ("负五", "5"),
]


@pytest.mark.parametrize(("prediction", "reference"), EQUAL)
def test_the_same_number_is_equal_however_it_is_written(prediction: str, reference: str) -> None:
    assert numeric(prediction, ["no number", reference]) == 1
    assert numeric(reference, [prediction]) == 1


@pytest.mark.parametrize(("prediction", "reference"), UNEQUAL)
def test_another_number_or_none_scores_nothing(prediction: str, reference: str) -> None:
    assert numeric(prediction, [reference]) == 0
    assert numeric(reference, [prediction]) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "forty-two",
        "Denver",
        "A2",
        "CO2",
        "x_2",
        "√2",
        "1/0",
        "1^99999",
        "一起",
        "9" * 500,
    ],
)
def test_what_states_no_number_is_not_read(text: str) -> None:
    assert read_number(text) is None
    assert not reads(text)
    assert numeric("0", [text]) == 0
    assert numeric(text, ["0"]) == 0


@pytest.mark.parametrize("text", ["#### 42", "So 6 * 7 = 42.\n#### 42", "####1,000"])
def test_the_mark_of_gsm8k_is_recognised(text: str) -> None:
    assert has_marked_number(text)


@pytest.mark.parametrize("text", ["42", "#### forty", "### 42", ""])
def test_a_text_without_the_mark_or_its_number_is_none_of_gsm8k(text: str) -> None:
    assert not has_marked_number(text)


def test_references_are_needed() -> None:
    with pytest.raises(DataError, match="no reference answer"):
        numeric("1", [])


@given(value=st.integers(-(10**12), 10**12))
def test_thousands_in_any_writing_are_the_same_number(value: int) -> None:
    for mark in (",", "'", " ", "{,}", "_"):
        assert numeric(f"{value:,}".replace(",", mark), [str(value)]) == 1
    assert numeric(f"x = {value}.", [f"{value}.0"]) == 1


@given(above=st.integers(-999, 999), below=st.integers(1, 999))
def test_a_fraction_is_its_value_in_any_writing(above: int, below: int) -> None:
    sign = "-" if above < 0 else ""
    fraction = f"{sign}\\frac{{{abs(above)}}}{{{below}}}"
    assert numeric(fraction, [f"{above}/{below}"]) == 1
    assert numeric(f"\\boxed{{{fraction}}}", [f"{2 * above}/{2 * below}"]) == 1


DIGITS = "一二三四五六七八九"


@given(hundreds=st.integers(1, 9), tens=st.integers(1, 9), ones=st.integers(1, 9))
def test_chinese_numerals_are_read(hundreds: int, tens: int, ones: int) -> None:
    written = f"{DIGITS[hundreds - 1]}百{DIGITS[tens - 1]}十{DIGITS[ones - 1]}"
    value = 100 * hundreds + 10 * tens + ones
    assert numeric(f"共有{written}个苹果", [str(value)]) == 1
    assert numeric(f"{written}万", [f"{value}万"]) == 1
    assert numeric(f"{value}亿", [str(value * 10**8)]) == 1


PIECES = [
    "1",
    "23",
    "0",
    "-",
    "+",
    ".",
    ",",
    "/",
    ":",
    "^",
    "e",
    "×",
    "10",
    " ",
    "%",
    "$",
    "万",
    "三",
    "十",
    "分之",
]
mixtures = st.lists(
    st.sampled_from(
        [
            *PIECES,
            "\\frac{",
            "}",
            "{",
            "\\boxed{",
            "####",
            "the answer is ",
            "答案是",
            "½",
            "³",
            "to",
        ]
    )
).map("".join)


@given(first=st.one_of(st.text(), mixtures), second=st.one_of(st.text(), mixtures))
def test_any_two_texts_are_compared_alike_from_both_sides(first: str, second: str) -> None:
    assert numeric(first, [second]) == numeric(second, [first])
    assert numeric(first, [first]) == float(reads(first))


HOSTILE = {
    "numbers": "1 ",
    "ratios": "1 : ",
    "ranges from": "from 1 ",
    "Chinese numerals": "一",
    "announcements": "answer is ",
    "braces": "\\boxed{",
    "fractions": "\\frac{1}",
    "one line of nothing": "a",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("start", ["", "the answer is ", "#### "])
def test_a_long_text_is_read_in_pieces_that_do_not_grow(
    unit: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loracle.metrics import numbers

    def sizes(length: int) -> list[int]:
        seen: list[int] = []
        plain = numbers.plain_writing
        with monkeypatch.context() as patch:
            patch.setattr(numbers, "plain_writing", lambda t: seen.append(len(t)) or plain(t))
            numbers.read_number(start + unit * (length // len(unit)))
        return seen

    short, long = sizes(10_000), sizes(20_000)
    assert max(short) == max(long) <= 4_000
    assert sum(long) <= 2.2 * sum(short)


def test_the_last_number_of_a_long_text_is_its_number() -> None:
    filler = "words without a figure " * 400
    assert numeric(f"It was 5. {filler} Then 3 to 7", ["3-7"]) == 1
    assert numeric(f"It was 1,250 then. {filler}", ["1250"]) == 1
    assert numeric(f"一共三十五人。{'没有' * 3000}", ["35"]) == 1
    assert numeric(f"It was 8. {'没有三十五人' * 1000}", ["8"]) == 1
