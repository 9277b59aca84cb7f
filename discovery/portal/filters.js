// The bar above the list: a menu for each filter with how many agents a value would leave, and what is set.

import { change, read } from "./address.js";
import { FACETS } from "./fleet.js";
import { h } from "./render.js";
import { TROUBLE_FIRST } from "./words.js";

const MANY = 10; // values from which on a menu has a search of its own
const MOST = 200; // values that a menu shows; its search finds the others

export class Filters {
  constructor(bar) {
    this.menus = FACETS.map((facet) => new Menu(facet));
    this.set = h("span", { class: "set" });
    bar.append(...this.menus.map((menu) => menu.element), this.set);
    document.addEventListener("click", (event) => this.menus.forEach((menu) => menu.element.contains(event.target) || menu.close()));
  }

  show(counts, filters) {
    for (const menu of this.menus) menu.show(counts[menu.key], filters[menu.key] || []);
    const chips = FACETS.flatMap(({ key, word }) => (filters[key] || []).map((value) => chip(key, word, value)));
    const all = chips.length > 1 && h("button", { type: "button", class: "link", onclick: () => change({ filters: {} }) }, "Clear all");
    if (this.set.dataset.is === JSON.stringify(filters)) return;
    this.set.dataset.is = JSON.stringify(filters);
    this.set.replaceChildren(...chips, ...(all ? [all] : []));
  }

  focus() {
    this.menus.find((menu) => !menu.element.hidden)?.summary.focus();
  }

  // Whether a menu was open to be closed.
  close() {
    const open = this.menus.find((menu) => menu.element.open);
    open?.close();
    open?.summary.focus();
    return Boolean(open);
  }
}

function toggle(key, value, on) {
  const { filters } = read();
  const values = new Set(filters[key]);
  if (on) values.add(value);
  else values.delete(value);
  change({ filters: { ...filters, [key]: [...values] } });
}

function chip(key, word, value) {
  const label = `${word}: ${value}`;
  return h("button", { type: "button", class: "chip", title: "Take this filter off", "aria-label": `${label}, take off`, onclick: () => toggle(key, value, false) }, label, h("span", { "aria-hidden": "true" }, " ✕"));
}

class Menu {
  constructor({ key, word }) {
    this.key = key;
    this.word = word;
    this.count = h("span", { class: "quiet" });
    this.summary = h("summary", {}, word, " ", this.count);
    this.find = h("input", { type: "search", placeholder: `Find a ${word.toLowerCase()}`, "aria-label": `Find a ${word.toLowerCase()}`, oninput: () => this.draw() });
    this.values = h("div", { class: "values" });
    this.element = h("details", { class: "menu", name: "menu", hidden: true, ontoggle: () => this.toggled() }, this.summary, h("div", { class: "drop", role: "group", "aria-label": word }, this.find, this.values));
  }

  show(counts, set) {
    Object.assign(this, { counts, set });
    this.element.hidden &&= !counts.size; // a menu that was there stays, or the others would move
    this.count.textContent = set.length ? `${set.length} of ${counts.size}` : counts.size;
    this.element.classList.toggle("on", set.length > 0);
    if (this.element.open) this.draw();
  }

  toggled() {
    if (!this.element.open) return;
    this.find.value = "";
    this.find.hidden = this.counts.size < MANY;
    this.draw();
    if (!this.find.hidden && matchMedia("(hover: hover)").matches) this.find.focus();
  }

  draw() {
    const wanted = this.find.value.trim().toLowerCase();
    const order = this.key === "status" ? (a, b) => TROUBLE_FIRST.indexOf(a[0]) - TROUBLE_FIRST.indexOf(b[0]) : (a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1);
    const found = [...this.counts].filter(([value]) => value.toLowerCase().includes(wanted)).sort(order);
    const focused = document.activeElement?.value;
    const within = this.values.contains(document.activeElement);
    const line = ([value, count]) => {
      const box = h("input", { type: "checkbox", value, onchange: () => toggle(this.key, value, box.checked) });
      box.checked = this.set.includes(value);
      return h("label", { class: count ? undefined : "quiet" }, box, h("span", { class: this.key === "status" ? `state ${value}` : "value" }, value), h("span", { class: "number" }, count.toLocaleString()));
    };
    const rest = found.length > MOST && h("p", { class: "quiet" }, `and ${found.length - MOST} more: type to find them`);
    this.values.replaceChildren(...found.slice(0, MOST).map(line), ...(rest ? [rest] : []));
    if (!found.length) this.values.append(h("p", { class: "quiet" }, "None like it."));
    if (within) [...this.values.querySelectorAll("input")].find((box) => box.value === focused)?.focus();
  }

  close() {
    this.element.open = false;
  }
}
