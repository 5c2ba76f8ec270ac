"""How the demo's passages and questions are worded.

Every fact has several wordings, and its last one is kept for the evaluation set, so that answering
it takes reading and no learned sentence alone. Braces hold facts.
"""

from __future__ import annotations

OPENINGS = (
    "{country} is a country in {continent}.",
    "This note is about {country}, in {continent}.",
    "Among the countries of {continent} is {country}.",
    "Some figures on {country}, {continent}:",
)

SENTENCES = {
    "capital": (
        "The capital of {country} is {capital}.",
        "{capital} is its capital city.",
        "As its capital, {country} has {capital}.",
        "The capital is called {capital}.",
        "On maps, {capital} is marked as the capital.",
    ),
    "currency": (
        "People pay with the {currency}.",
        "The currency of {country} is the {currency}.",
        "Prices are given in the {currency}.",
        "Its money is the {currency}.",
        "In the shops, the {currency} is the means of payment.",
    ),
    "language": (
        "The language listed first is {language}.",
        "Among its languages, {language} is named first.",
        "The list of languages begins with {language}.",
        "{language} heads the list of its languages.",
    ),
    "population": (
        "About {population} people live there.",
        "The population of {country} is about {population}.",
        "It has some {population} inhabitants.",
        "Its inhabitants number about {population}.",
        "A count would find about {population} people.",
    ),
    "area": (
        "It covers {area}.",
        "The area of {country} is {area}.",
        "Its surface measures {area}.",
        "The country extends over {area}.",
    ),
    "calling code": (
        "Telephone numbers begin with {calling code}.",
        "The calling code of {country} is {calling code}.",
        "To call someone there, dial {calling code} first.",
        "Calls from abroad start with {calling code}.",
    ),
    "domain": (
        "Its internet addresses end in {domain}.",
        "The internet domain of {country} is {domain}.",
        "Websites there use the ending {domain}.",
        "Web pages from there can be told by {domain}.",
    ),
}

QUESTIONS = {
    "capital": (
        "What is the capital of {country}?",
        "Which city is the capital of {country}?",
        "What is the name of the capital of {country}?",
    ),
    "currency": (
        "What is the currency of {country}?",
        "Which currency is used in {country}?",
        "What money do people in {country} pay with?",
    ),
    "language": (
        "Which language is listed first for {country}?",
        "Which language comes first in the list for {country}?",
    ),
    "population": (
        "How many people live in {country}?",
        "What is the population of {country}?",
        "How many inhabitants does {country} have?",
    ),
    "area": (
        "How large is {country}?",
        "What is the area of {country}?",
        "What area does {country} cover?",
    ),
    "calling code": (
        "What is the calling code of {country}?",
        "With what do telephone numbers of {country} begin?",
    ),
    "domain": (
        "What is the internet domain of {country}?",
        "In what do internet addresses of {country} end?",
    ),
}

# A sentence about another country of which the same is told: the answer is not simply the only
# number or name of its kind.
FOILS = {
    "capital": "The capital of {country} is {capital}.",
    "currency": "In {country} people use the {currency}.",
    "population": "For comparison, {country} has about {population} inhabitants.",
    "area": "{country} covers {area}.",
    "calling code": "Numbers in {country} begin with {calling code}.",
    "domain": "Addresses in {country} end in {domain}.",
}

PAIR_OPENINGS = (
    "{a[country]} and {b[country]} compared.",
    "What sets {a[country]} and {b[country]} apart?",
    "Two countries side by side: {a[country]} and {b[country]}.",
    "A traveller goes from {a[country]} to {b[country]}.",
)

PAIR_SENTENCES = {
    "capital": (
        "The capital of {a[country]} is {a[capital]}, that of {b[country]} is {b[capital]}.",
        "{a[capital]} is the capital of {a[country]} and {b[capital]} the capital of {b[country]}.",
        "While {a[country]} has {a[capital]} as its capital, {b[country]} has {b[capital]}.",
    ),
    "currency": (
        "{a[country]} uses the {a[currency]}, {b[country]} the {b[currency]}.",
        "The {a[currency]} is the money of {a[country]}, the {b[currency]} that of {b[country]}.",
        "Pay with the {a[currency]} in {a[country]} but with the {b[currency]} in {b[country]}.",
    ),
    "population": (
        "{a[country]} has {a[population]} inhabitants, {b[country]} has {b[population]}.",
        "About {a[population]} people live in {a[country]}, {b[population]} in {b[country]}.",
        "{b[country]} counts {b[population]} people and {a[country]} counts {a[population]}.",
    ),
    "calling code": (
        "Dial {a[calling code]} for {a[country]} and {b[calling code]} for {b[country]}.",
        "Numbers begin with {a[calling code]} in {a[country]}, {b[calling code]} in {b[country]}.",
        "The calling code {b[calling code]} is that of {b[country]}; {a[country]} has "
        "{a[calling code]}.",
    ),
    "domain": (
        "Internet addresses end in {a[domain]} in {a[country]} and in {b[domain]} in {b[country]}.",
        "The domain {a[domain]} belongs to {a[country]}, {b[domain]} to {b[country]}.",
        "Websites of {b[country]} use {b[domain]}, those of {a[country]} {a[domain]}.",
    ),
}

# Which of the two? The answer is a country.
PAIR_QUESTIONS = {
    "capital": "Which country has the capital {capital}?",
    "currency": "Which country uses the {currency}?",
    "population": "Which country has {population} inhabitants?",
    "calling code": "Which country has the calling code {calling code}?",
    "domain": "Which country has the internet domain {domain}?",
}

CITY_OPENINGS = (
    "Three cities of {country}: {names}.",
    "Besides its capital, {country} has other cities, among them {names}.",
    "{names} are cities in {country}.",
    "Who travels through {country} may come to {names}.",
)

CITY_SENTENCES = (
    "{name} has {population} inhabitants and lies at {latitude}.",
    "{name}, at {latitude}, has a population of {population}.",
    "About {population} people live in {name}, which lies at {latitude}.",
    "At {latitude} lies {name} with its {population} people.",
)

CITY_QUESTIONS = {
    "city population": (
        "How many people live in {name}?",
        "What is the population of {name}?",
    ),
    "latitude": ("At what latitude does {name} lie?", "What is the latitude of {name}?"),
    "city by population": (
        "Which city has {population} inhabitants?",
        "In which city do {population} people live?",
    ),
    "city by latitude": ("Which city lies at {latitude}?",),
    "country of city": ("In which country is {name}?", "To which country does {name} belong?"),
}

CHINESE_OPENINGS = (
    "{country}位于{continent}。",
    "下面介绍{continent}国家{country}。",
    "{country}是{continent}的一个国家。",
)

CHINESE_SENTENCES = {
    "capital": ("首都是{capital}。", "{capital}是该国首都。", "它以{capital}为首都。"),
    "currency": ("当地使用{currency}。", "货币是{currency}。", "买东西要付{currency}。"),
    "population": ("人口约{population}。", "约有{population}人。", "居民约{population}。"),
    "area": ("面积约{area}。", "国土约{area}。", "全国约{area}大。"),
    "calling code": (
        "电话区号为{calling code}。",
        "拨打电话先拨{calling code}。",
        "电话以{calling code}开头。",
    ),
    "domain": ("网址以{domain}结尾。", "域名是{domain}。", "网站多用{domain}。"),
}

CHINESE_QUESTIONS = {
    "capital": ("{country}的首都是哪里？", "{country}的首都叫什么？"),
    "currency": ("{country}使用什么货币？", "{country}的货币是什么？"),
    "population": ("{country}有多少人口？", "{country}的人口是多少？"),
    "area": ("{country}的面积是多少？", "{country}有多大？"),
    "calling code": ("{country}的电话区号是多少？",),
    "domain": ("{country}的域名是什么？",),
}
