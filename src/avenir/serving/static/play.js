"use strict";
// Draws what the world imagines, and sends it which keys are held. Everything it knows of the world
// comes with the first message; frames are a length, JSON of that length, then pixels. Text and other
// signals are in signals.js, what is seen in latents in latents.js.

const MARKS = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→" };
const ALIASES = { w: "ArrowUp", a: "ArrowLeft", s: "ArrowDown", d: "ArrowRight" };
const NAMES = {
  world: "The world", simulator: "The simulator", recording: "What was recorded",
  latents: "Its latents, three components as colours",
};
const SHOWN_LATENCIES = 2000, MOST_BYTES = 2e6;
const FIELDS = "input[type=text], input[type=range], input[type=number], select";  // they take keys themselves

const byId = (name) => document.getElementById(name);
const held = new Set(), pressed = new Map();
let socket, world, latest, later = [];
const measured = { latencies: [], frames: 0, drawn: [] };
window.avenir = measured;  // for measuring from outside

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/play${location.search}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) =>
    typeof event.data === "string" ? receive(JSON.parse(event.data)) : draw(event.data);
  socket.onclose = (event) =>
    complain(`The world is gone${event.reason ? `: ${event.reason}` : ""}. Reload the page to play again.`);
}

function send(what, more = {}) {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: what, ...more }));
}

function complain(words) {
  byId("error").textContent = words;
  byId("error").hidden = !words;
}

// What the server sends ------------------------------------------------------------------------

function receive(message) {
  if (message.error) complain(message.error);
  if ("factors" in message) message.factors ? showFactors(message.factors) : shut();
  if (message.hello) greet(message.hello);
  if (message.kept) keep(message.kept);
}

function greet(hello) {
  world = hello;
  byId("world").textContent = hello.name;
  document.title = `${hello.name} · Avenir`;
  for (const key of Object.keys(hello.keys)) byId("keys").append(keyButton(key));
  if (!Object.keys(hello.keys).length) byId("how").textContent = "This world takes no actions: it plays on its own.";
  for (const name of hello.backends) byId("choices").append(backendChoice(name));
  if (hello.captions) offerWords(hello.captions);
  if (hello.signals.length) offerSignals(hello.signals);
  byId("look").hidden = !hello.looks;
  hello.clips.forEach((clip, number) => byId("clips").append(clipButton(clip, number)));
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches && !document.hidden) send("go");
}

function draw(data) {
  const view = new DataView(data), length = view.getUint32(0);
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let offset = 4 + length;
  later.forEach(clearTimeout);
  later = [];
  for (const [name, shape] of Object.entries(about.pictures)) {
    const [count, channels, height, width] = shape, size = channels * height * width;
    const frames = Array.from({ length: count }, (_, i) => new Uint8Array(data, offset + i * size, size));
    offset += count * size;
    frames.forEach((frame, i) => {
      // Frames of one step follow each other at the world's own rate.
      if (i === 0 || about.paused) paint(name, frame, width, height);
      else later.push(setTimeout(() => paint(name, frame, width, height), (1000 * i) / world.fps));
    });
  }
  for (const figure of [...byId("pictures").children])
    if (!(figure.dataset.picture in about.pictures)) figure.remove();
  about.presses.forEach(answered);
  measured.frames += 1;
  measured.drawn.push(performance.now());
  measured.drawn = measured.drawn.filter((when) => when > performance.now() - 2000);
  update(about);
}

function paint(name, pixels, width, height) {
  const context = canvasOf(name, width, height).getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0, j = 0; i < pixels.length; i += 3, j += 4) {
    image.data[j] = pixels[i];
    image.data[j + 1] = pixels[i + 1];
    image.data[j + 2] = pixels[i + 2];
    image.data[j + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function canvasOf(name, width, height) {
  let figure = byId("pictures").querySelector(`[data-picture="${name}"]`);
  if (!figure) {
    figure = document.createElement("figure");
    figure.dataset.picture = name;
    const canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
    Object.assign(canvas, { width, height });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", NAMES[name] ?? name);
    caption.textContent = NAMES[name] ?? name;
    figure.append(canvas, caption);
    byId("pictures").append(figure);
  }
  return figure.firstChild;
}

function update(about) {
  const old = latest;
  latest = about;
  const seconds = about.step / world.steps_per_second;
  const rate = about.paused ? "paused" : `${(measured.drawn.length / 2).toFixed(0)} steps/s`;
  byId("where").textContent = `${seconds.toFixed(1)} s · ${rate} · ${about.milliseconds.toFixed(0)} ms to imagine`;
  if (about.paused) pressed.clear();  // what is never answered took no time
  if (!old || old.paused !== about.paused)
    byId("go").innerHTML = `${about.paused ? "Go" : "Pause"} <kbd>Space</kbd>`;
  if (!old || old.clip !== about.clip)
    [...byId("clips").children].forEach((button, i) => button.setAttribute("aria-pressed", i === about.clip));
  if (!old || String(old.branches) !== String(about.branches))
    showBranches(about.branches);
  if (!old || old.text !== about.text) showText(about.text);
  if (!old || JSON.stringify(old.signals) !== JSON.stringify(about.signals)) showSignals(about.signals, old?.signals);
  if (!old || String(old.edit) !== String(about.edit)) showEdit(about.edit);
  about.read?.forEach(showRead);
}

// What the player does ------------------------------------------------------------------------

function hold(key, down) {
  if (!world || !(key in world.keys) || held.has(key) === down) return;
  if (down) held.add(key); else held.delete(key);
  byId("keys").querySelector(`[data-key="${key}"]`)?.classList.toggle("held", down);
  const press = down ? performance.now() : null;
  if (down && latest && !latest.paused) pressed.set(press, true);
  send("keys", { held: [...held], press });
}

function answered(press) {
  if (!pressed.delete(press)) return;
  requestAnimationFrame(() => {
    measured.latencies.push(performance.now() - press);
    if (measured.latencies.length > SHOWN_LATENCIES) measured.latencies.shift();
    histogram();
  });
}

function letGo() {
  for (const key of [...held]) hold(key, false);
}

const plain = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);
const steered = (event) => (plain(event) in world.keys ? plain(event) : ALIASES[plain(event)]);
const toggle = () => { complain(""); send(latest?.paused ? "go" : "pause"); };
const back = () => { complain(""); send("rewind", { steps: Math.round(world.steps_per_second) }); };
const begin = (clip, seed = latest.seed) => { complain(""); send("start", { clip, seed }); };
const again = () => begin(latest.clip);
const write = () => document.querySelector(world.captions ? "#text" : "#others .field")?.focus();
const COMMANDS = { " ": toggle, Backspace: back, Home: again, l: look, t: write };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !latest) return;
  if (document.activeElement?.matches(FIELDS)) { if (event.key === "Escape") event.target.blur(); return; }
  const key = plain(event), steers = steered(event);
  // A button that has the focus is pressed by the space bar, as everywhere.
  const typing = event.key === " " && event.target.closest("button, input, label");
  if (steers in world.keys) hold(steers, true);
  else if (key in COMMANDS && !typing) { if (!event.repeat) COMMANDS[key](); }
  else return;
  event.preventDefault();
});
addEventListener("keyup", (event) => { if (world && event.key) hold(steered(event), false); });
// What a pointer pressed does not keep the focus: the space bar is the player's again.
addEventListener("click", (event) => {
  const pressed = document.activeElement;
  if (event.detail && pressed.matches("button, input[type=checkbox]") && event.target.closest("button, label")?.contains(pressed)) pressed.blur();
});
addEventListener("blur", letGo);
addEventListener("focusin", (event) => { if (event.target.matches(FIELDS)) letGo(); });
document.addEventListener("visibilitychange", () => { if (document.hidden) { letGo(); send("pause"); } });

byId("go").onclick = toggle;
byId("back").onclick = back;
byId("again").onclick = again;
byId("other").onclick = () => begin(latest.clip, latest.seed + 1);
byId("look").onclick = look;
byId("caption").onsubmit = (event) => {
  event.preventDefault();
  complain("");
  send("text", { text: byId("text").value });
  byId("text").blur();  // the keys are the player's again
};
byId("silence").onclick = () => { byId("text").value = ""; complain(""); send("text", { text: "" }); };
byId("amount").oninput = () => edit(byId("amount").valueAsNumber);
byId("amount").onpointerup = () => byId("amount").blur();
byId("still").onclick = byId("unedit").onclick = () => edit(0);
byId("save").onclick = () => { complain(""); send("keep"); };
byId("open").onchange = async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  complain("");
  event.target.value = "";  // the same file may be chosen again
  // The server takes long messages only when they begin like this, and none that is longer.
  const message = file.size < MOST_BYTES && `{"do":"open","playthrough":${JSON.stringify(await file.text())}}`;
  if (!message || new TextEncoder().encode(message).length >= MOST_BYTES) complain("This file is too large to be a playthrough.");
  else if (socket.readyState === WebSocket.OPEN) socket.send(message);
};

function keep(text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `${world.name}-playthrough.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// A gamepad's first stick and its cross are the arrow keys.
const onPad = new Set();
setInterval(() => {
  if (!world) return;
  // Of one that is gone no key is down.
  const pad = [...(navigator.getGamepads?.() ?? [])].find(Boolean);
  const [x = 0, y = 0] = pad?.axes ?? [], button = (i) => pad?.buttons[i]?.pressed;
  const now = {
    ArrowLeft: x < -0.4 || button(14), ArrowRight: x > 0.4 || button(15),
    ArrowUp: y < -0.4 || button(12) || button(7), ArrowDown: y > 0.4 || button(13) || button(6),
  };
  for (const [key, down] of Object.entries(now))
    if (Boolean(down) !== onPad.has(key)) { if (down) onPad.add(key); else onPad.delete(key); hold(key, Boolean(down)); }
}, 20);

// What is on the page -------------------------------------------------------------------------

function keyButton(key) {
  const button = document.createElement("button");
  button.textContent = MARKS[key] ?? key;
  button.dataset.key = key;
  const action = world.keys[key];
  const means = world.names.filter((_, i) => action[i]).map((name) => `${name} ${action[world.names.indexOf(name)]}`);
  button.setAttribute("aria-label", [key, ...means].join(", "));
  button.onpointerdown = (event) => { button.setPointerCapture(event.pointerId); hold(key, true); };
  button.onpointerup = button.onpointercancel = () => hold(key, false);
  // A click that no pointer made, from the keyboard or an assistive tool, is a short press.
  button.onclick = (event) => {
    if (event.detail) return;
    hold(key, true);
    setTimeout(() => hold(key, false), 150);
  };
  return button;
}

function backendChoice(name) {
  const label = document.createElement("label"), box = document.createElement("input");
  Object.assign(box, { type: "checkbox", value: name, checked: name === "world" });
  box.onchange = show;
  label.append(box, NAMES[name] ?? name);
  return label;
}

function show() {
  const backends = [...byId("choices").querySelectorAll("input:checked")].map((box) => box.value);
  send("show", { pictures: byId("inside").hidden ? backends : [...backends, "latents"] });
}

function clipButton(picture, number) {
  const button = document.createElement("button"), image = document.createElement("img");
  Object.assign(image, { src: picture, alt: `Clip ${number + 1}` });
  button.append(image);
  button.setAttribute("aria-pressed", number === 0);
  button.onclick = () => begin(number);
  return button;
}

function showBranches(lengths) {
  const focused = [...byId("branches").children].indexOf(document.activeElement);
  byId("branches").replaceChildren(...lengths.map(branchButton));
  if (focused >= 0) byId("branches").children[focused]?.focus();
}

function branchButton(steps, number) {
  const button = document.createElement("button");
  button.textContent = `Branch of ${(steps / world.steps_per_second).toFixed(1)} s`;
  button.onclick = () => { complain(""); send("branch", { number }); };
  return button;
}

function histogram() {
  const times = measured.latencies, most = 200, bins = new Array(40).fill(0);
  for (const time of times) bins[Math.min(39, Math.floor((time / most) * 40))] += 1;
  const tallest = Math.max(...bins), at = quantile(times);
  const bars = bins.map((count, i) => {
    const height = (60 * count) / tallest;
    return `<rect x="${7.5 * i}" y="${70 - height}" width="6.5" height="${height}"/>`;
  });
  const ticks = [0, 50, 100, 150, 200].map((ms) =>
    `<text x="${Math.min(286, Math.max(4, (300 * ms) / most))}" y="84" text-anchor="middle">${ms}${ms === most ? "+" : ""}</text>`);
  byId("histogram").innerHTML = `<line x1="0" x2="300" y1="70.5" y2="70.5"/>${bars.join("")}${ticks.join("")}`;
  byId("latency").textContent =
    `From a key going down to the frame that follows it: ${at(0.5).toFixed(0)} ms in the middle, ` +
    `${at(0.99).toFixed(0)} ms for all but one in a hundred, of ${times.length} presses.`;
}

function quantile(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

connect();
