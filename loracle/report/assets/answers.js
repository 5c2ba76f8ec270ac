// Wins and losses. All text of data and models reaches the page by textContent alone.
// The list is virtual: only the rows in sight are elements, however many questions there are.
"use strict";
(() => {
  const { NOTHING, count, metricName, shortTrial, shortened, shownScore } = loracleText;
  const NUM_PRINTED = 12;
  const NUM_SPARE_ROWS = 6;
  const MOST_LEADS = 3;
  const section = document.getElementById("answers");
  const packed = document.getElementById("answers-data");
  if (!section || !packed) return;
  const find = (name) => section.querySelector(`[data-part="${name}"]`);
  const parts = Object.fromEntries(
    ["evaluation", "a", "b", "metric", "query", "list", "rows", "detail", "head-a", "head-b",
     "print", "count", "failed"].map((name) => [name, find(name)]));
  const buttons = [...section.querySelectorAll("[data-outcome]")];
  const state = { evaluation: 0, a: 0, b: 0, metric: "", outcome: "all", query: "" };
  let data = null;
  let haystacks = null;   // what the search looks into, in lower case, made when first needed
  let shown = [];         // indices of the questions that pass the filters
  let hasLeads = false;   // whether all questions begin with a word like "Question:"
  let selected = -1;      // index of the question in the detail

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const inBoth = (tag, className, english, chinese) => {
    const made = element(tag, className);
    for (const [language, text] of [["en", english], ["zh-Hans", chinese]]) {
      const span = element("span", "", text);
      span.lang = language;
      made.append(span);
    }
    return made;
  };

  const unpack = async (text) => {
    const binary = atob(text.trim());
    const bytes = new Uint8Array(binary.length);
    for (let index = 0; index < binary.length; index += 1) bytes[index] = binary.charCodeAt(index);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  const table = () => data.evaluations[state.evaluation];
  const answersOf = (trial) => table().answers[trial];
  const scoreOf = (trial, index) => answersOf(trial)?.scores[state.metric]?.[index] ?? null;

  // 1 where A is better, -1 where B is, 0 where they are even or one has no score.
  const comparison = (index) => {
    const a = scoreOf(state.a, index);
    const b = scoreOf(state.b, index);
    if (a === null || b === null || a === b) return 0;
    return (a > b) === !table().lower_is_better.includes(state.metric) ? 1 : -1;
  };
  const isFull = (index) => scoreOf(state.a, index) === 1 && !table().lower_is_better.includes(state.metric);
  const outcomeOf = (index) => {
    const sign = comparison(index);
    if (sign) return sign > 0 ? "a" : "b";
    return isFull(index) ? "both" : "even";
  };

  const searchable = () => {
    if (haystacks) return haystacks;
    const passages = table().passages.map((text) => text.toLowerCase());
    haystacks = table().ids.map((id, index) => ({
      passage: passages[table().passage[index]],
      own: [id, table().questions[index], ...table().references[index],
        ...table().answers.map((answers) => answers?.texts[index] ?? "")].join("\n").toLowerCase(),
    }));
    return haystacks;
  };
  const matches = () => {
    const all = [...table().ids.keys()];
    const query = state.query.trim().toLowerCase();
    if (!query) return all;
    const texts = searchable();
    return all.filter((index) => texts[index].own.includes(query) || texts[index].passage.includes(query));
  };

  const filter = () => {
    const counts = { all: 0, a: 0, b: 0, both: 0, even: 0 };
    shown = [];
    for (const index of matches()) {
      const outcome = outcomeOf(index);
      counts.all += 1;
      counts[outcome] += 1;
      if (state.outcome === "all" || state.outcome === outcome) shown.push(index);
    }
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.outcome === state.outcome));
      button.querySelector("b").textContent = count(counts[button.dataset.outcome]);
    }
    for (const [name, trial] of [["a", state.a], ["b", state.b]]) {
      const places = section.querySelectorAll(`[data-name="${name}"]`);
      for (const place of [parts[`head-${name}`], ...places]) showTrial(place, trial);
    }
    parts.list.scrollTop = 0;
    if (!shown.includes(selected)) selected = shown[0] ?? -1;
    drawList();
    drawDetail();
  };

  const shortNames = (names) => {
    const short = names.map((name) => shortTrial(name));
    return new Set(short).size === short.length ? short : names;
  };
  const showTrial = (place, trial) => {
    place.textContent = data.short[trial];
    place.title = data.trials[trial];
    return place;
  };
  const scoreMark = (value) => {
    if (value === null) return element("span", "score part", NOTHING);
    const lower = table().lower_is_better.includes(state.metric);
    if (lower) return element("span", "score part", shownScore(state.metric, value));
    const kind = value === 1 ? "full" : value === 0 ? "zero" : "part";
    return element("span", `score ${kind}`, value === 1 ? "✓" : value === 0 ? "✗" : shownScore(state.metric, value));
  };
  const answerText = (trial, index) => {
    const text = answersOf(trial)?.texts[index];
    if (text === undefined || text === null) return inBoth("span", "empty", "no answer", "无回答");
    return text === "" ? inBoth("span", "empty", "empty answer", "空回答") : element("span", "", text);
  };
  const questionText = (index) => table().questions[index] || table().ids[index];
  // Leads that all questions have, as "Question: ", say nothing in a list. A set in two languages
  // has two of them; more than a few are no leads but part of the questions.
  const leadOf = (text) => text.match(/^[^:：]{1,24}[:：]\s*(?=\S)/)?.[0] ?? "";
  const haveLeads = () => {
    const leads = new Set(table().questions.map(leadOf));
    return leads.size <= MOST_LEADS && leads.size < table().questions.length && !leads.has("");
  };
  const listedQuestion = (index) => {
    const text = questionText(index);
    return hasLeads ? text.slice(leadOf(text).length) : text;
  };

  const rowHeight = () => parseFloat(getComputedStyle(parts.list).getPropertyValue("--row"));
  const rowElement = (position, height) => {
    const index = shown[position];
    const row = element("div", "row");
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(index === selected));
    row.setAttribute("aria-setsize", String(shown.length));
    row.setAttribute("aria-posinset", String(position + 1));
    row.id = `answer-${position}`;
    row.dataset.position = String(position);
    row.style.transform = `translateY(${position * height}px)`;
    row.append(element("div", "", listedQuestion(index)));
    for (const trial of [state.a, state.b]) {
      const cell = element("div");
      cell.append(scoreMark(scoreOf(trial, index)), answerText(trial, index));
      row.append(cell);
    }
    return row;
  };
  const drawList = () => {
    const height = rowHeight();
    parts.rows.style.height = `${shown.length * height}px`;
    const first = Math.max(0, Math.floor(parts.list.scrollTop / height) - NUM_SPARE_ROWS);
    const count = Math.ceil(parts.list.clientHeight / height) + 2 * NUM_SPARE_ROWS;
    const rows = [];
    for (let position = first; position < Math.min(shown.length, first + count); position += 1) {
      rows.push(rowElement(position, height));
    }
    parts.rows.replaceChildren(...rows);
    const position = shown.indexOf(selected);
    if (position >= first && position < first + count) {
      parts.list.setAttribute("aria-activedescendant", `answer-${position}`);
    } else {
      parts.list.removeAttribute("aria-activedescendant");
    }
  };

  // The passage, with the places of the reference answers marked.
  const markedPassage = (passage, references) => {
    const box = element("div", "passage");
    const lower = passage.toLowerCase();
    const wanted = references.map((text) => text.toLowerCase()).filter((text) => text.trim());
    let from = 0;
    while (from < passage.length) {
      let start = -1;
      let length = 0;
      for (const text of wanted) {
        const found = lower.indexOf(text, from);
        if (found >= 0 && (start < 0 || found < start || (found === start && text.length > length))) {
          start = found;
          length = text.length;
        }
      }
      // Lower case may be of another length than its text; then nothing is marked.
      if (start < 0 || lower.length !== passage.length) break;
      box.append(passage.slice(from, start), element("mark", "", passage.slice(start, start + length)));
      from = start + length;
    }
    box.append(passage.slice(from));
    return box;
  };
  const answerItem = (trial, index) => {
    const item = element("li");
    const who = element("div", "who");
    who.append(showTrial(element("span", "soft"), trial));
    const facts = element("span", "soft");
    if (answersOf(trial).cut.includes(index)) {
      facts.append(inBoth("span", "bad", "cut off · ", "被截断 · "));
    }
    facts.append(table().metrics.map((metric) => {
      const value = answersOf(trial).scores[metric]?.[index] ?? null;
      return `${metricName(metric)} ${value === null ? NOTHING : shownScore(metric, value)}`;
    }).join(" · "));
    who.append(facts);
    const text = element("div", "text");
    text.append(answerText(trial, index));
    item.append(who, text);
    return item;
  };
  const drawDetail = () => {
    const content = [];
    if (selected >= 0) {
      const references = table().references[selected];
      const passage = table().passages[table().passage[selected]];
      content.push(
        inBoth("h3", "", "Question", "问题"), element("div", "question", questionText(selected)),
        element("div", "soft mono", table().ids[selected]),
        inBoth("h3", "", "References", "参考答案"), element("div", "", references.join("  ·  ")),
        inBoth("h3", "", "Answers", "回答"));
      const list = element("ul");
      data.trials.forEach((_, trial) => {
        if (answersOf(trial)) list.append(answerItem(trial, selected));
      });
      content.push(list);
      if (passage) {
        content.push(inBoth("h3", "", "Passage", "原文"), markedPassage(passage, references));
      }
    } else {
      content.push(inBoth("p", "soft", "No question matches.", "没有符合条件的问题。"));
    }
    parts.detail.replaceChildren(...content);
  };

  const select = (position) => {
    if (position < 0 || position >= shown.length) return;
    selected = shown[position];
    const height = rowHeight();
    const top = position * height;
    if (top < parts.list.scrollTop) parts.list.scrollTop = top;
    const bottom = top + height - parts.list.clientHeight;
    if (bottom > parts.list.scrollTop) parts.list.scrollTop = bottom;
    drawList();
    drawDetail();
  };

  // Paper cannot scroll: the first questions of the filter are printed, and their number.
  const drawForPrint = () => {
    const printed = shown.slice(0, NUM_PRINTED);
    const rows = printed.map((index) => {
      const row = element("tr");
      row.append(element("td", "", listedQuestion(index)), element("td", "", table().references[index][0]));
      for (const trial of [state.a, state.b]) {
        const cell = element("td");
        cell.append(scoreMark(scoreOf(trial, index)), answerText(trial, index));
        row.append(cell);
      }
      return row;
    });
    parts.print.replaceChildren(...rows);
    parts.count.textContent = `${printed.length} / ${count(shown.length)}`;
  };

  const fill = (select, names, value) => {
    select.replaceChildren(...names.map((name, index) => {
      const option = element("option", "", name);
      option.value = String(index);
      return option;
    }));
    select.value = String(value);
  };
  const startEvaluation = () => {
    haystacks = null;
    hasLeads = haveLeads();
    selected = -1;
    const names = table().metrics;
    const wanted = names.includes(state.metric) ? state.metric : section.dataset.metric;
    state.metric = names.includes(wanted) ? wanted : names[0];
    fill(parts.metric, names.map((name) => name.toUpperCase()), names.indexOf(state.metric));
    filter();
  };
  const listen = () => {
    const change = (part, apply) => parts[part].addEventListener("change", () => {
      apply(Number(parts[part].value));
      filter();
    });
    parts.evaluation.addEventListener("change", () => {
      state.evaluation = Number(parts.evaluation.value);
      startEvaluation();
    });
    change("a", (value) => { state.a = value; });
    change("b", (value) => { state.b = value; });
    change("metric", (value) => { state.metric = table().metrics[value]; });
    let timer = 0;
    parts.query.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => { state.query = parts.query.value; filter(); }, 120);
    });
    for (const button of buttons) {
      button.addEventListener("click", () => { state.outcome = button.dataset.outcome; filter(); });
    }
    let framed = 0;
    const redraw = () => {
      cancelAnimationFrame(framed);
      framed = requestAnimationFrame(drawList);
    };
    parts.list.addEventListener("scroll", redraw);
    addEventListener("resize", redraw);
    parts.list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) select(Number(row.dataset.position));
    });
    parts.list.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor(parts.list.clientHeight / rowHeight()) - 1);
      const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -shown.length, End: shown.length };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const position = shown.indexOf(selected) + moves[event.key];
      select(Math.min(shown.length - 1, Math.max(0, position)));
    });
    addEventListener("beforeprint", drawForPrint);
  };

  const start = async () => {
    data = await unpack(packed.textContent);
    data.short = shortNames(data.trials);
    if (!data.evaluations.length) return;
    state.a = Math.max(0, data.trials.indexOf(section.dataset.first));
    state.b = Math.max(0, data.trials.indexOf(section.dataset.second));
    fill(parts.evaluation, data.evaluations.map((evaluation) => shortened(evaluation.name, 28)), 0);
    fill(parts.a, data.short, state.a);
    fill(parts.b, data.short, state.b);
    parts.evaluation.closest("label").hidden = data.evaluations.length < 2;
    listen();
    startEvaluation();
    drawForPrint();
    section.dataset.ready = "yes";
  };
  start().catch((error) => {
    parts.failed.hidden = false;
    parts.failed.append(` (${error})`);
  });
})();
