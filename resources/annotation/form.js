
"use strict";
function start() {
  const find = (id) => document.getElementById(id);
  const { annotator, draw, items } = JSON.parse(find("data").textContent);
  const buttons = [...document.querySelectorAll("[data-score]")];
  const opened = new Set();
  const given = {}; // token → { score, comment }
  for (const { token } of items) restore(token);
  const scoreOf = (item) => given[item.token]?.score || "";
  let at = Math.max(0, items.findIndex((item) => !scoreOf(item)));

  /* Each answer has a place of its own: the form may be open twice, and neither writes over the other's scores. */
  function place(token) {
    return `annotation-${draw}-${token}`;
  }

  function restore(token) {
    try {
      const kept = JSON.parse(localStorage.getItem(place(token)));
      if (kept) given[token] = kept;
    } catch {
      // nothing is kept, or nothing that this form wrote
    }
  }

  function save(token) {
    try {
      localStorage.setItem(place(token), JSON.stringify(given[token]));
    } catch {
      say("This browser keeps nothing: export the CSV before you close the page.");
    }
  }

  const say = (text) => { find("notice").textContent = text; };
  const isShown = () => find("show-all").checked || opened.has(items[at].token);

  /* Text gets onto the page here alone, as text, and only when it was asked for. */
  function drawItem() {
    const item = items[at], shown = isShown();
    find("place").textContent = `${at + 1} of ${items.length}`;
    find("request").textContent = shown ? item.request : "";
    find("answer").textContent = shown ? item.answer || "(no text)" : "";
    find("content").hidden = !shown;
    find("show").hidden = shown;
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.score === scoreOf(item)));
    }
    find("comment").value = given[item.token]?.comment || "";
    const scores = items.map(scoreOf);
    const done = scores.filter(Boolean).length, unknown = scores.filter((score) => score === "U").length;
    find("progress").textContent =
      `${done} of ${items.length} done` + (unknown ? `, ${unknown} of them U` : "");
    find("done").max = items.length;
    find("done").value = done;
  }

  function go(to) {
    at = Math.min(Math.max(to, 0), items.length - 1);
    say("");
    drawItem();
    window.scrollTo(0, 0);
  }

  function show() {
    opened.add(items[at].token);
    drawItem();
  }

  function note(change) {
    const token = items[at].token;
    given[token] = { score: "", comment: "", ...given[token], ...change };
    save(token);
  }

  function give(score) {
    if (!isShown()) {
      say("Not shown yet: look at it first (Space).");
      return;
    }
    note({ score });
    if (at < items.length - 1) {
      go(at + 1);
      return;
    }
    drawItem();
    const left = items.filter((item) => !scoreOf(item)).length;
    say(left ? `The last one. ${left} have no score yet (N).` : "All done: export the CSV.");
  }

  function next() {
    const after = items.findIndex((item, i) => i > at && !scoreOf(item));
    const to = after >= 0 ? after : items.findIndex((item) => !scoreOf(item));
    if (to >= 0) go(to);
    else say("All have a score: export the CSV.");
  }

  /* No part of a comment may act as a formula in a spreadsheet, whatever its list separator is. */
  const FORMULA = /(^|[;\t\r\n])(?=[\s"]*[=+\-@＝＋－＠])/g;
  const cell = (text) => `"${text.replace(FORMULA, "$1'").replaceAll('"', '""')}"`;
  const HEAD = "token,score,comment";
  const LONGEST = 5e6; // bytes

  function csv() {
    const lines = items.map((item) =>
      [item.token, scoreOf(item), given[item.token]?.comment || ""].map(cell).join(","));
    return "\uFEFF" + [HEAD, ...lines].join("\r\n") + "\r\n";
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = `scores-${annotator}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    const left = items.filter((item) => !scoreOf(item)).length;
    say(`Exported as ${link.download}` + (left ? `; ${left} have no score yet.` : "."));
  }

  /* What `csv` wrote, cell by cell; null for anything else. */
  function parsed(text) {
    const row = /"([^"]*)","([1-5U]?)","([^"]*(?:""[^"]*)*)"\r\n/y;
    const found = {};
    const head = `${HEAD}\r\n`;
    if (!text.startsWith(head)) return null;
    row.lastIndex = head.length;
    for (const item of items) {
      const [, token, score, comment] = row.exec(text) || [];
      if (token !== item.token) return null;
      found[token] = { score, comment: comment.replaceAll('""', '"') };
    }
    return row.lastIndex === text.length ? found : null;
  }

  async function load() {
    const [file] = find("load").files;
    if (!file) return;
    const found = file.size > LONGEST ? null : parsed(await file.text());
    find("load").value = "";
    find("load").blur(); // Space is to show the next answer
    if (!found) {
      say("Not loaded: this is no CSV that this form has exported.");
      return;
    }
    for (const [token, { score, comment }] of Object.entries(found)) {
      const kept = given[token];
      given[token] = { score: score || kept?.score || "", comment: comment || kept?.comment || "" };
      save(token);
    }
    drawItem();
    next();
    say(`Loaded: ${Object.values(found).filter(({ score }) => score).length} scores.`);
  }

  const keys = {
    " ": show, ArrowLeft: () => go(at - 1), ArrowRight: () => go(at + 1), n: next,
    Delete: () => { note({ score: "" }); drawItem(); },
  };

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || target === find("comment")) return;
    if (event.key === " " && /^(BUTTON|INPUT|SUMMARY)$/.test(target.tagName)) return; // presses that
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (/^[1-5]$/.test(key)) give(key);
    else if (key === "u") give("U");
    else if (keys[key]) keys[key]();
    else return;
    event.preventDefault();
  });
  /* What was clicked would keep the focus, and Space press it again; by keys (detail 0) that is as it should be. */
  document.addEventListener("click", (event) => {
    const focused = document.activeElement;
    if (event.detail > 0 && /^(BUTTON|INPUT|SUMMARY)$/.test(focused.tagName)) focused.blur();
  });
  for (const button of buttons) button.addEventListener("click", () => give(button.dataset.score));
  find("show").addEventListener("click", show);
  find("show-all").addEventListener("change", drawItem);
  find("comment").addEventListener("input", (event) => note({ comment: event.target.value }));
  find("back").addEventListener("click", () => go(at - 1));
  find("forward").addEventListener("click", () => go(at + 1));
  find("next").addEventListener("click", next);
  find("clear").addEventListener("click", keys.Delete);
  find("export").addEventListener("click", download);
  find("load").addEventListener("change", load);
  window.addEventListener("storage", ({ key }) => { // scored where the form is open a second time
    const item = items.find(({ token }) => place(token) === key);
    if (!item) return;
    restore(item.token);
    drawItem();
  });
  drawItem();
}

/* Chromium may cut a page off, silently and for good, that asks while it loads for what the browser keeps. */
addEventListener("load", () => setTimeout(start, 100));
