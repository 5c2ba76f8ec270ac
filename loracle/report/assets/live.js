// The live part of a served page: the state of the run, sent by the server whenever it changes.
// Every message holds the whole state, so a broken connection loses nothing.
"use strict";
(() => {
  const { NOTHING, count, duration, metricName, shortTrial, shortened, shownLoss, shownScore } = loracleText;
  const panel = document.getElementById("live");
  if (!panel) return;
  const part = (name) => panel.querySelector(`[data-part="${name}"]`);
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const say = (english, chinese) => {
    const both = document.createDocumentFragment();
    for (const [language, text] of [["en", english], ["zh-Hans", chinese]]) {
      const span = element("span", "", text);
      span.lang = language;
      both.append(span);
    }
    return both;
  };
  const STAGES = {
    waiting: ["waiting", "等待"], training: ["training", "训练中"], evaluating: ["answering", "回答中"],
    done: ["done", "完成"], failed: ["failed", "失败"], skipped: ["finished before", "先前已完成"],
  };
  const STATUSES = {
    waiting: ["Not started", "尚未开始"], running: ["Running", "运行中"], finished: ["Finished", "已结束"],
    interrupted: ["Interrupted: its process is gone; the same command continues", "已中断：进程已不在；用同一命令可继续"],
  };
  const TONES = { done: "good", skipped: "good", failed: "bad" };

  const curveOf = (points) => {
    const [width, height] = [120, 26];
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("class", "spark");
    svg.setAttribute("aria-hidden", "true");
    if (points.length < 2) return svg;
    const steps = points.map((point) => point[0]);
    const values = points.map((point) => point[1]);
    const [left, right] = [steps[0], steps[steps.length - 1]];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    line.setAttribute("points", points.map(([step, value]) => {
      const x = 1 + (width - 2) * (step - left) / (right - left || 1);
      const y = 1 + (height - 2) * (1 - (value - low) / (high - low || 1));
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    }).join(" "));
    line.setAttribute("fill", "none");
    line.setAttribute("stroke", "currentColor");
    line.setAttribute("stroke-width", "1.5");
    svg.append(line);
    return svg;
  };
  const progressOf = (trial) => {
    const cell = element("td");
    if (trial.total && ["training", "evaluating"].includes(trial.stage)) {
      const bar = element("progress");
      bar.max = trial.total;
      bar.value = trial.done;
      cell.append(bar, element("span", "interval", ` ${count(trial.done)} / ${count(trial.total)}`));
    }
    return cell;
  };
  const scoresOf = (means) => Object.entries(means).map(([evaluation, scores]) => {
    const shown = Object.entries(scores).map(([metric, mean]) =>
      `${metricName(metric)} ${shownScore(metric, mean)}`);
    return Object.keys(means).length > 1 ? `${shortened(evaluation, 16)}: ${shown.join(" · ")}` : shown.join(" · ");
  }).join("; ");
  const rowOf = (trial) => {
    const row = element("tr");
    row.dataset.trial = trial.name;
    const name = element("th", "", shortTrial(trial.name));
    name.title = trial.name;
    name.scope = "row";
    if (trial.device) name.append(element("span", "reason", trial.device));
    if (trial.stage === "failed") name.append(element("span", "reason bad", trial.detail));
    const stage = element("td");
    const tag = element("span", `tag ${TONES[trial.stage] ?? ""}`);
    tag.append(say(...(STAGES[trial.stage] ?? [trial.stage, trial.stage])));
    stage.append(tag);
    const curve = element("td");
    curve.append(curveOf(trial.curve));
    row.append(name, stage, progressOf(trial),
      element("td", "n", shownLoss(trial.loss)), curve,
      element("td", "n", count(trial.tokens_per_second)),
      element("td", "n", scoresOf(trial.means) || NOTHING));
    return row;
  };

  let state = null;
  const showFacts = () => {
    if (!state) return;
    const seconds = state.updated ? Math.max(0, Math.round((Date.now() - Date.parse(state.updated)) / 1000)) : null;
    const [ageEnglish, ageChinese] = ["en", "zh"].map((language) => seconds === null ? NOTHING : duration(seconds, language));
    const done = state.trials.filter((trial) => ["done", "skipped"].includes(trial.stage) && trial.name !== "base").length;
    // Counted down from what was left at the last event.
    const left = state.status === "running" && typeof state.remaining_seconds === "number"
      ? Math.max(1, state.remaining_seconds - (seconds ?? 0)) : null;
    const [leftEnglish, leftChinese] = left === null ? ["", ""]
      : [` · about ${duration(left, "en")} left`, ` · 剩余约 ${duration(left, "zh")}`];
    part("facts").replaceChildren(say(
      `${done} of ${state.num_trials} trials done${leftEnglish} · ${count(state.num_events)} events, the last ${ageEnglish} ago`,
      `${state.num_trials} 次训练已完成 ${done} 次${leftChinese} · 共 ${count(state.num_events)} 个事件，最近一次在 ${ageChinese} 前`));
  };
  const show = () => {
    const [english, chinese] = STATUSES[state.status] ?? [state.status, state.status];
    part("status").className = `kicker ${{ running: "good", interrupted: "bad" }[state.status] ?? ""}`;
    part("status").replaceChildren(say(english, chinese));
    part("trials").replaceChildren(...state.trials.map(rowOf));
    const notes = state.warnings.map((text) => element("li", "", text));
    if (state.num_warnings > state.warnings.length) {
      const more = element("li");
      const hidden = state.num_warnings - state.warnings.length;
      more.append(say(`and ${hidden} earlier ones in pipeline.log`, `更早的 ${hidden} 条见 pipeline.log`));
      notes.unshift(more);
    }
    if (state.num_unreadable) {
      const unreadable = element("li");
      unreadable.append(say(`${state.num_unreadable} lines of events.jsonl cannot be read`, `events.jsonl 中有 ${state.num_unreadable} 行无法读取`));
      notes.push(unreadable);
    }
    part("warnings").replaceChildren(...notes);
    panel.dataset.status = state.status;
    showFacts();
    follow();
  };
  // A newer report comes by itself, but not under the hands of somebody who works with the page.
  const follow = () => {
    if (state.report === panel.dataset.version) return;
    const answers = document.getElementById("answers");
    const inUse = answers && answers.contains(document.activeElement);
    if (inUse || scrollY > innerHeight) part("stale").hidden = false;
    else location.reload();
  };

  const source = new EventSource(panel.dataset.events);
  source.addEventListener("state", (message) => {
    state = JSON.parse(message.data);
    show();
  });
  source.addEventListener("error", () => {
    part("status").className = "kicker bad";
    part("status").replaceChildren(say("No connection; trying again", "连接中断，正在重试"));
  });
  setInterval(showFacts, 1000);
})();
