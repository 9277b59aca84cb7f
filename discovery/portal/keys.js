// Hands on the keyboard: what each key does, wherever the focus is not in a field.

import { read } from "./address.js";

const $ = (id) => document.getElementById(id);
const DRAWER = "portal keys"; // where this browser keeps that letters are no keys

// `page` offers what the keys do: search, move, first, last, open, filters, close.
export function listen(page) {
  const on = $("keys-on");
  on.checked = recalled() !== "off";
  on.addEventListener("change", () => keep(on.checked ? "on" : "off"));
  $("show-help").addEventListener("click", () => $("help").showModal());
  $("help").addEventListener("click", (event) => event.target === $("help") && $("help").close());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const typing = event.target.closest("textarea, input:not([type=checkbox])");
    if (event.key === "Escape") return escape(page, typing);
    const action = typing ? inSearch(page, event, typing) : anywhere(page, event, on.checked);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function escape(page, typing) {
  if (page.filters.close()) return;
  if (!typing) return page.close();
  if (typing === $("search")) page.search("");
  typing.blur();
}

function inSearch(page, event, typing) {
  return typing === $("search") && (event.key === "ArrowDown" || event.key === "Enter") ? () => page.move(1) : null;
}

function anywhere(page, event, letters) {
  const inList = event.target === document.body || $("list").contains(event.target);
  const arrows = { ArrowDown: () => page.move(1), ArrowUp: () => page.move(-1), Home: () => page.move(-Infinity), End: () => page.move(Infinity) };
  if (inList && arrows[event.key]) return arrows[event.key];
  if (!letters) return null;
  const name = page.focused() ?? read().name;
  const open = (tab) => name && (() => page.open(name, tab));
  const keys = {
    "/": () => $("search").focus(),
    "?": () => $("help").showModal(),
    j: () => page.move(1),
    k: () => page.move(-1),
    f: () => page.filters.focus(),
    c: open("chat"),
    h: open("history"),
    d: open(),
  };
  return keys[event.key];
}

function recalled() {
  try {
    return localStorage.getItem(DRAWER);
  } catch {
    return null;
  }
}

function keep(value) {
  try {
    localStorage.setItem(DRAWER, value);
  } catch {
    // Then it holds for this visit.
  }
}
