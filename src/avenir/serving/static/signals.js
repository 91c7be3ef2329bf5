"use strict";
// Says what comes: as text, and as other signals, such as the weather.

function offerWords(known) {
  byId("words").hidden = byId("heard").hidden = false;
  byId("known").replaceChildren(...known.map((words) => new Option(words, words)));
}

function showText(text) {
  if (!world.captions) return;
  const words = document.createElement("strong");
  words.textContent = text ?? "nothing";
  byId("text-now").replaceChildren("Text now: ", words, text === null ? "." : toWorld());
}

const toWorld = () => (world.backends.length > 1 ? ", to the world alone." : ".");

// Other signals, as the weather ------------------------------------------------------------------

const settings = new Map();  // by the name of a signal: its fields, and how they show a row

function offerSignals(signals) {
  byId("signals").hidden = byId("heard").hidden = false;
  for (const signal of signals) {
    const form = document.createElement("form");
    Object.assign(form, { className: "setting", autocomplete: "off" });
    settings.set(signal.name, (signal.choice ? offerChoice : offerNumbers)(form, signal));
    byId("others").append(form);
  }
  if (!world.captions) byId("others").querySelector(".name").insertAdjacentHTML("beforeend", " <kbd>T</kbd>");
}

function setSignal(signal, value) {
  complain("");
  send("signal", { signal: signal.name, value });
}

function named(words) {
  const name = document.createElement("span");
  Object.assign(name, { className: "name", textContent: words });
  return name;
}

function offerChoice(form, { name, names }) {
  const label = document.createElement("label"), select = document.createElement("select");
  select.className = "field";
  select.setAttribute("aria-label", name);
  select.append(new Option("unknown", ""), ...names.map((each) => new Option(each, each)));
  label.append(named(name), select);
  form.append(label);
  // After a choice by mouse the keys steer again; after one by keyboard they go on choosing.
  let pointed = false;
  select.onpointerdown = () => { pointed = true; };
  select.onkeydown = (event) => {
    // The mouse may have chosen what was chosen before, which fires no event.
    const drives = pointed && steered(event) in world.keys && !(CSS.supports("selector(:open)") && select.matches(":open"));
    pointed = false;
    if (event.key === "Enter") event.preventDefault();
    if (event.key === "Enter" || drives) select.blur();
  };
  select.onchange = () => {
    setSignal({ name }, select.value || null);
    if (pointed) select.blur();
  };
  const chosen = (row) => (row.every((value) => value === 0 || value === 1) ? names[row.indexOf(1)] : null);
  return {
    words: (row) => chosen(row) ?? row.join(", "),
    show: (row) => { if (document.activeElement !== select) select.value = row ? chosen(row) : ""; },
  };
}

function offerNumbers(form, signal) {
  form.append(named(signal.name));
  const fields = Array.from({ length: signal.size }, (_, i) => {
    const label = document.createElement("label"), field = document.createElement("input");
    Object.assign(field, { className: "field", type: "number", step: "any", required: true });
    // Beyond its training data a world imagines anything.
    if (signal.low.length) Object.assign(field, { min: signal.low[i], max: signal.high[i] });
    const one = signal.names[i] ?? (signal.size > 1 ? `${i + 1}` : ""), mark = one === signal.name ? "" : one;
    field.setAttribute("aria-label", `${signal.name} ${mark}`.trim());
    label.append(mark, field);
    form.append(label);
    return field;
  });
  const set = document.createElement("button"), clear = document.createElement("button");
  set.setAttribute("aria-label", `Set ${signal.name}`);
  clear.setAttribute("aria-label", `Clear ${signal.name}`);
  set.innerHTML = "Set <kbd>Enter</kbd>";
  Object.assign(clear, { type: "button", textContent: "Clear" });
  form.append(set, clear);
  const fill = (row) => fields.forEach((field, i) => { field.value = row?.[i] ?? ""; });
  form.onsubmit = (event) => {
    event.preventDefault();
    setSignal(signal, fields.map((field) => field.valueAsNumber));
    document.activeElement.blur();
  };
  clear.onclick = () => { fill(null); setSignal(signal, null); };
  return {
    words: (row) => row.map((value) => +value.toPrecision(6)).join(", "),
    show: (row) => { if (!fields.includes(document.activeElement)) fill(row); },
  };
}

function showSignals(others, before) {
  const changed = (name) => String(others[name]) !== String(before?.[name]);
  for (const [name, setting] of settings) if (changed(name)) setting.show(others[name]);
  const words = document.createElement("strong");
  words.textContent = Object.entries(others).map(([name, row]) => `${name} ${settings.get(name).words(row)}`).join("; ") || "nothing";
  byId("signals-now").replaceChildren("Set now: ", words, Object.keys(others).length ? toWorld() : ".");
}
