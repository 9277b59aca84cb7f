// What changed of an agent and when, the newest first, with what that did to its tools.

import { toAgent } from "./address.js";
import { h, plural, problemOf } from "./render.js";
import { state, when } from "./words.js";

const PAGE = 50;
const LATEST = 3;

export class History {
  // `registry` is asked; an agent's history is read again when the list's revision of it moved.
  constructor(registry) {
    this.registry = registry;
    this.known = new Map(); // name → {stamp, entries, more, problem}
  }

  // The newest few, for the details.
  lately(agent) {
    return this.element(agent.name, stampOf(agent), ({ entries }) => [
      h("ul", { class: "changes" }, entries.slice(0, LATEST).map(entryItem)),
      entries.length > LATEST && h("p", {}, h("a", { href: toAgent(agent.name, "history") }, "All of its history")),
    ]);
  }

  // All of it, for a tab of its own. Also of an agent that is gone.
  whole(name, agent) {
    return this.element(name, stampOf(agent), (page) => [
      h("ul", { class: "changes" }, page.entries.map(entryItem)),
      page.more && h("button", { type: "button", onclick: (event) => this.earlier(name, event.currentTarget) }, "Earlier"),
    ]);
  }

  // What is known is drawn at once; what is not, when it arrives.
  element(name, stamp, draw) {
    const element = h("div");
    const show = () => {
      const page = this.known.get(name);
      if (page.problem) element.replaceChildren(h("p", { class: "quiet" }, page.problem));
      else element.replaceChildren(...draw(page).filter(Boolean));
    };
    if (this.known.has(name)) show();
    if (this.known.get(name)?.stamp !== stamp) this.load(name, stamp).then(show);
    return element;
  }

  async load(name, stamp) {
    this.known.set(name, { entries: [], ...this.known.get(name), stamp, ...(await this.read(name)) });
  }

  async read(name, before) {
    try {
      const query = new URLSearchParams({ limit: PAGE, ...(before && { before }) });
      const response = await this.registry.ask(`agents/${encodeURIComponent(name)}/history?${query}`);
      if (response.status === 404) return { entries: [], problem: "Nothing is recorded of it. A history is kept for 30 days." };
      if (!response.ok) return { problem: `Its history cannot be read: ${(await problemOf(response)).words}` };
      const entries = await response.json();
      return { entries, more: entries.length === PAGE, problem: entries.length ? null : "Nothing is recorded of it yet." };
    } catch {
      return { problem: "Its history cannot be read: the registry does not answer." };
    }
  }

  async earlier(name, button) {
    const page = this.known.get(name);
    button.disabled = true;
    const { entries = [], more = false } = await this.read(name, page.entries.at(-1).revision);
    page.entries.push(...entries);
    page.more = more;
    const list = button.parentElement.querySelector(".changes");
    list.append(...entries.map(entryItem));
    list.querySelector(`li:nth-last-child(${entries.length || 1})`)?.focus();
    if (more) button.disabled = false;
    else button.remove();
  }
}

const stampOf = (agent) => JSON.stringify((agent?.instances || []).map((one) => [one.revision, one.status, one.boot_id]));

function entryItem(entry) {
  const replica = entry.instance_id && entry.instance_id !== "default" && h("span", { class: "quiet" }, ` · ${entry.instance_id}`);
  return h("li", { tabindex: -1 }, h("div", {}, when(entry.at), replica), h("div", {}, sentence(entry)), entry.tools && diff(entry.tools));
}

const WORDS = { boot_id: "a new process", config_fingerprint: "its configuration", agent_type: "type", ttl_seconds: "its lease", instance_id: "instance" };

function sentence({ kind, status, reason, version, endpoint, fields = [] }) {
  if (kind === "registered") return `Registered version ${version} at ${endpoint}`;
  if (kind === "removed") return h("span", {}, state("gone", "removed"), reason ? ` ${reason}` : "");
  if (kind === "conflict") return h("span", {}, state("stale", "conflict"), ` ${reason}`);
  if (kind === "status") return h("span", {}, state(status), reason ? ` ${reason}` : "");
  const now = { version, endpoint, status };
  const said = fields.map((field) => (now[field] ? `${field} is ${now[field]}` : WORDS[field] || field.replaceAll("_", " ")));
  return said.length ? `Changed: ${said.join(", ")}` : "Changed";
}

function diff({ added = [], removed = [], changed = [], breaking }) {
  const mark = (sign, kind, name, breaks, what = []) =>
    h("li", { class: kind }, h("span", { class: "sign", "aria-hidden": "true" }, sign), h("span", { class: "unseen" }, `${kind} `), h("code", {}, name), breaks && h("strong", { class: "breaking" }, "breaking"), what.map((one) => h("div", { class: "quiet" }, one)));
  return h(
    "div",
    { class: breaking ? "diff breaks" : "diff" },
    h("p", { class: "quiet" }, breaking ? "Its tools changed in a way that breaks callers:" : `Its tools changed: ${plural(added.length + removed.length + changed.length, "tool")}, nothing that breaks callers.`),
    h("ul", {}, removed.map((name) => mark("−", "removed", name, true)), changed.map((one) => mark("~", "changed", one.name, one.breaking, one.what)), added.map((name) => mark("+", "added", name, false))),
  );
}
