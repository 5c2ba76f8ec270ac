// How numbers and times are written on the pages: as loracle/text.py writes them. A test compares.
"use strict";
const loracleText = (() => {
  const NOTHING = "–";
  const UNITS = { en: ["s", "min", "h"], zh: ["秒", "分", "小时"] };
  const two = (number) => String(number).padStart(2, "0");

  // As Python's f"{value:.1f}": exactly between two numbers, the one that ends in an even digit.
  const fixed = (value, digits) => {
    const text = value.toFixed(digits);
    const [whole, rest] = value.toFixed(60).split(".");
    if (!/^50*$/.test(rest.slice(digits))) return text;
    const below = digits ? `${whole}.${rest.slice(0, digits)}` : whole;
    return Number(below.at(-1)) % 2 ? text : below;
  };
  // A count with its thousands apart.
  const count = (value) => value === null ? NOTHING : fixed(value, 0).replace(/\B(?=(\d{3})+$)/g, ",");
  // EM and F1 in capitals, other metrics as they are called.
  const metricName = (metric) => ["em", "f1"].includes(metric) ? metric.toUpperCase() : metric;
  // A mean in its unit: a share in points, nats as they are.
  const shownScore = (metric, value) => metric === "answer_nll" ? fixed(value, 3) : fixed(100 * value, 1);
  // A training's loss.
  const shownLoss = (value) => value === null ? NOTHING : fixed(value, 3);
  // A time as people say it, in whole seconds.
  const duration = (seconds, language) => {
    const [second, minute, hour] = UNITS[language];
    const whole = Number(fixed(seconds, 0));
    if (whole < 60) return `${whole} ${second}`;
    if (whole < 3600) return `${Math.floor(whole / 60)} ${minute} ${two(whole % 60)} ${second}`;
    const minutes = Number(fixed(seconds / 60, 0));
    return `${Math.floor(minutes / 60)} ${hour} ${two(minutes % 60)} ${minute}`;
  };
  const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{20000}-\u{3fffd}]/u;
  const NO_WIDTH = /\p{Mn}/u;
  const widthOf = (character) => NO_WIDTH.test(character) ? 0 : WIDE.test(character) ? 2 : 1;
  const firstCells = (characters, width) => {
    let taken = 0;
    const past = characters.findIndex((character) => (taken += widthOf(character)) > width);
    return past < 0 ? characters : characters.slice(0, past);
  };
  // A long name loses its middle, since related names differ at their ends.
  const shortened = (text, width) => {
    const characters = [...text];
    if (characters.reduce((sum, character) => sum + widthOf(character), 0) <= width) return text;
    const headWidth = Math.floor(width / 2);
    const tail = firstCells(characters.reverse(), width - 1 - headWidth).reverse();
    return `${firstCells([...text], headWidth).join("")}…${tail.join("")}`;
  };
  // A trial's name without its middle, and its seed.
  const shortTrial = (name, width = 28) => {
    const [, candidate, seed] = name.match(/^(.*?)( · seed \d+)?$/s);
    return `${shortened(candidate, width)}${seed ?? ""}`;
  };
  return { NOTHING, count, duration, metricName, shortened, shortTrial, shownLoss, shownScore };
})();
