"use strict";
// The page is whole without this: it adds sorting, filtering, and a row that lights up everywhere.
(() => {
  const root = document.documentElement, body = document.body;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Light, dark, or as the system has it.
  const remember = (value) => { try { localStorage.setItem("theme", value); } catch { /* a file may not */ } };
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
  const toggle = document.createElement("button");
  toggle.type = "button";
  toggle.className = "theme";
  const say = () => { toggle.textContent = isDark() ? "Light" : "Dark"; toggle.setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`); };
  toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; remember(root.dataset.theme); say(); });
  systemDark.addEventListener("change", say);
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
  say();
  document.querySelector("header").append(toggle);

  // What stays when a page that is being written reads itself again.
  const state = Object.assign({ sort: null, filter: "", words: [], open: null }, history.state || {});
  const keep = () => history.replaceState(state, "");

  const rows = document.getElementById("rows");
  if (rows) {
    const lines = all("tbody tr", rows), heads = all("thead tr:last-child th", rows), inOrder = [...lines];
    const textOf = (line, at) => line.cells[at].dataset.order ?? line.cells[at].textContent.trim();
    const number = (text) => {
      const found = /^[<\[\u2264\u2265 ]*([+\-\u2212]?[\d,]*\.?\d+)/.exec(text);
      return found ? Number(found[1].replace("\u2212", "-").replaceAll(",", "")) : NaN;
    };
    const sort = () => {
      heads.forEach((head, at) => {
        if (state.sort && state.sort.at === at) head.setAttribute("aria-sort", state.sort.up ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
      let sorted = [...inOrder];
      if (state.sort) {
        const { at, up } = state.sort, texts = new Map(lines.map((line) => [line, textOf(line, at)]));
        const given = (text) => text !== "" && text !== "\u2013" && text !== "baseline";
        const isNumeric = [...texts.values()].filter(given).every((text) => !Number.isNaN(number(text)));
        sorted = inOrder.filter((line) => given(texts.get(line))).sort((a, b) => {
          const [one, other] = [texts.get(a), texts.get(b)];
          return (up ? 1 : -1) * (isNumeric ? number(one) - number(other) : one.localeCompare(other));
        });
        sorted.push(...inOrder.filter((line) => !given(texts.get(line)))); // what has no figure stays last
      }
      rows.tBodies[0].append(...sorted);
      keep();
    };
    heads.forEach((head, at) => {
      const button = document.createElement("button"), name = head.querySelector(".sort-name") || head;
      button.type = "button";
      button.append(...name.childNodes);
      name.append(button);
      button.addEventListener("click", () => {
        const words = !all("td.left", lines[0]).includes(lines[0].cells[at]) && at > 0;
        const now = state.sort && state.sort.at === at ? state.sort : null;
        const first = !words; // words from A on, figures from the largest
        state.sort = !now ? { at, up: first } : now.up === first ? { at, up: !first } : null;
        sort();
      });
    });

    const tools = document.querySelector(".tools"), field = document.getElementById("filter");
    const shown = document.getElementById("shown"), chips = all(".chips button");
    const filter = () => {
      const wanted = state.filter.trim().toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const line of lines) {
        const text = line.textContent.toLowerCase();
        const stays = wanted.every((word) => text.includes(word)) && (!state.words.length || state.words.includes(line.dataset.word));
        left += stays;
        for (const one of all(`[data-row="${line.dataset.row}"]`)) if (one.closest("#rows, .drawing")) one.classList.toggle("out", !stays);
      }
      chips.forEach((chip) => chip.setAttribute("aria-pressed", state.words.includes(chip.dataset.word)));
      shown.textContent = left < lines.length ? `${left} of ${lines.length} rows` : "";
      keep();
    };
    field.addEventListener("input", () => { state.filter = field.value; filter(); });
    chips.forEach((chip) => chip.addEventListener("click", () => {
      const word = chip.dataset.word;
      state.words = state.words.includes(word) ? state.words.filter((one) => one !== word) : [...state.words, word];
      filter();
    }));
    tools.hidden = false;
    field.value = state.filter;
    if (state.sort) sort();
    filter();
  }

  // Pointing at a row, or focusing it, lights it up in every table and figure; a click keeps it lit.
  const hint = document.createElement("div");
  hint.className = "hint";
  hint.hidden = true;
  body.append(hint);
  let kept = null, lit = null;
  const light = (row) => {
    if (row === lit) return;
    all(".lit").forEach((one) => one.classList.remove("lit"));
    if (row !== null) all(`[data-row="${row}"]`).forEach((one) => one.classList.add("lit"));
    body.classList.toggle("linked", row !== null);
    lit = row;
  };
  const rowOf = (node) => { const found = node instanceof Element && node.closest("[data-row]"); return found ? found.dataset.row : null; };
  const focused = () => rowOf(document.activeElement);
  document.addEventListener("pointerover", (event) => {
    light(rowOf(event.target) ?? kept ?? focused());
    const mark = event.target instanceof Element && event.target.closest(".drawing [data-said]");
    hint.hidden = !mark;
    if (mark) {
      hint.textContent = mark.dataset.said;
      const beyond = event.clientX + 14 + hint.offsetWidth > innerWidth;
      hint.style.left = `${beyond ? Math.max(4, event.clientX - 14 - hint.offsetWidth) : event.clientX + 14}px`;
      hint.style.top = `${Math.min(event.clientY + 12, innerHeight - hint.offsetHeight - 4)}px`;
    }
  });
  document.addEventListener("focusin", () => light(focused() ?? kept));
  document.addEventListener("focusout", () => light(kept));
  document.addEventListener("click", (event) => {
    const row = rowOf(event.target);
    if (row === null || event.target.closest("a, button, summary")) return;
    kept = kept === row ? null : row;
    light(kept ?? row);
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { kept = null; light(null); hint.hidden = true; } });

  // The keyboard stops at what scrolls sideways, and only there.
  const stops = () => all(".scroll, .drawing").forEach((one) => {
    if (one.scrollWidth > one.clientWidth) one.tabIndex = 0;
    else one.removeAttribute("tabindex");
  });
  addEventListener("resize", stops);
  document.addEventListener("toggle", stops, true);
  document.addEventListener("change", stops);
  stops();

  // Folds: as they were, and open where a link leads into one.
  const folds = all("main > details");
  if (state.open) folds.forEach((fold) => { fold.open = state.open.includes(fold.id); });
  folds.forEach((fold) => fold.addEventListener("toggle", () => {
    state.open = folds.filter((one) => one.open).map((one) => one.id);
    keep();
  }));
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && target.closest("details");
    if (fold && !fold.open) { fold.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", unfold);
  unfold();

  if (body.dataset.again) setTimeout(() => location.reload(), 1000 * body.dataset.again);
})();
