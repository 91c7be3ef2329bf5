"use strict";
// Shows what is read in latents, and moves it.

const READABLE = 0.2;  // R² below which a read-out is struck through
const PREPARING = "Learning what is read and how it is coloured: this takes a few seconds, once.";
const LEARNT = "Learnt from observed frames. R² says how well it reads recordings it never saw: 1 is exact, 0 is no better than always saying the mean. What it hardly reads is struck through.";
const UNREAD = "Nothing is read: this data has no labels.";

let factors;  // learnt when they are first shown
let looking = false;  // what was asked for last, whatever came of it
let moved = 0;  // number of the factor that is moved

function look() {
  if (!world.looks) return;
  looking = byId("inside").hidden;
  if (!looking) shut();
  else {
    complain("");
    inside(true);
  }
  show();
}

function inside(open) {
  byId("inside").hidden = !open;
  byId("look").setAttribute("aria-pressed", open);
  byId("look").firstChild.data = open && !factors ? "Preparing … " : "Look inside ";
  const learnt = factors?.length ? LEARNT : UNREAD;
  byId("trust").textContent = !open ? "" : factors ? learnt : PREPARING;  // read aloud when it is set
  showEdit(latest.edit);
}

function shut() {
  if (latest.edit && slides()) {  // what is not shown is not moved
    edit(0);
    latest.edit = null;
  }
  inside(false);
}

function showFactors(learnt) {
  factors = learnt;
  moved = Math.max(0, factors.findIndex(isRead));
  byId("moving").hidden = !factors.some(isRead);
  byId("factors").append(...factors.map(readOut));
  byId("directions").append(...factors.map(directionButton).filter((_, i) => isRead(factors[i])));
  inside(looking);
}

function showRead(value, number) {
  byId("factors").children[number].children[1].firstChild.firstChild.data = value === null ? "–" : signed(value, 1);
}

const slides = () => !byId("inside").hidden && !byId("moving").hidden;
const isRead = (factor) => factor.r2 >= READABLE;

function readOut(factor) {
  const row = document.createElement("div"), name = document.createElement("dt");
  const value = document.createElement("dd"), trust = document.createElement("dd");
  const shown = document.createElement(isRead(factor) ? "span" : "s");
  name.textContent = factor.name;
  shown.append("–", ` ${factor.unit}`);
  value.append(shown);
  trust.textContent = `R² ${signed(factor.r2, 2)}`;
  row.append(name, value, trust);
  return row;
}

const signed = (number, digits) => number.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");

function directionButton(factor, number) {
  const button = document.createElement("button");
  button.textContent = factor.name;
  button.dataset.number = number;
  button.onclick = () => { moved = number; edit(0); choose(); };
  return button;
}

function choose() {
  for (const button of byId("directions").children)
    button.setAttribute("aria-pressed", Number(button.dataset.number) === moved);
}

function edit(amount) {
  byId("amount").value = amount;
  send("edit", { factor: moved, amount });
}

function showEdit(edited) {
  const [name, amount] = edited ?? [factors?.[moved]?.name, 0];
  const number = factors?.findIndex((factor) => factor.name === name) ?? -1;
  if (number >= 0) moved = number;
  choose();
  byId("amount").setAttribute("aria-label", `Move ${name}, in standard deviations`);
  if (document.activeElement !== byId("amount")) byId("amount").value = amount;
  const far = `${amount > 0 ? "+" : ""}${signed(amount, 1)} standard deviations`;
  const words = amount ? `Moved now: ${name}, ${far} before every step.` : "Moved now: nothing.";
  byId("moved").textContent = words;
  // An opened playthrough may move what the panel does not show.
  byId("edited").hidden = !amount || slides();
  byId("editing").textContent = byId("edited").hidden ? "" : words;
}
