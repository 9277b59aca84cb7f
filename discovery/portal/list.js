// The list: one row an agent. All rows are there, for the browser's own search too; the style sheet has only those laid
// out that are near the view. A row is touched when its agent changed, and a cell lights up when its words did.

import { go, toAgent } from "./address.js";
import { fault, matched, trouble } from "./fleet.js";
import { h } from "./render.js";
import { modelOf, toolName, when } from "./words.js";

export class List {
  constructor(table) {
    this.table = table;
    this.body = table.tBodies[0];
    this.rows = new Map(); // name → row, in the order they are shown
    this.current = null; // the name that the keyboard stands on
  }

  show(agents, { query, open }) {
    const rows = new Map(agents.map((agent) => [agent.name, this.rows.get(agent.name) || newRow(agent.name)]));
    for (const [name, { row }] of this.rows) if (!rows.has(name)) row.remove();
    this.rows = rows;
    this.table.hidden = !agents.length;
    this.table.setAttribute("aria-rowcount", agents.length + 1);
    for (const agent of agents) fill(rows.get(agent.name), agent, query);
    this.arrange();
    this.mark(open);
  }

  // Rows that already stand in their place stay there: moving one would lose the focus in it.
  arrange() {
    const fresh = this.body.childElementCount === 0;
    const into = fresh ? document.createDocumentFragment() : this.body;
    let next = into.firstElementChild;
    for (const { row } of this.rows.values()) {
      if (row === next) next = next.nextElementSibling;
      else into.insertBefore(row, next);
    }
    if (!fresh || !this.rows.size) return;
    this.body.append(into);
    performance.mark("list"); // for the developer tools, and for who measures
  }

  // One stop of the Tab key for the whole list; the arrows go on from there.
  mark(open) {
    if (!this.rows.has(this.current)) this.current = this.rows.has(open) ? open : this.rows.keys().next().value;
    for (const [name, { row, link }] of this.rows) {
      row.classList.toggle("open", name === open);
      link.tabIndex = name === this.current ? 0 : -1;
      if (name === open) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  // The agent whose row has the focus.
  get focused() {
    const row = document.activeElement?.closest?.("#list tbody tr");
    return row ? row.querySelector("a").textContent : undefined;
  }

  move(step, open) {
    const names = [...this.rows.keys()];
    if (!names.length) return;
    const from = names.indexOf(this.focused ?? open);
    this.focus(names[Math.min(names.length - 1, Math.max(0, from + step))]);
  }

  focus(name) {
    const entry = this.rows.get(name);
    if (!entry) return;
    this.rows.get(this.current).link.tabIndex = -1;
    this.current = name;
    entry.link.tabIndex = 0;
    entry.row.scrollIntoView({ block: "nearest" });
    entry.link.focus({ preventScroll: true });
  }
}

function newRow(name) {
  const cell = (kind, ...content) => h("td", { class: kind, role: "cell" }, ...content);
  const entry = {
    state: h("span"),
    fault: h("small"),
    about: h("small"),
    why: h("small", { class: "why", hidden: true }),
    model: cell("model"),
    tools: cell("tools number"),
    version: cell("version"),
    owner: cell("owner"),
    seen: cell("seen number"),
    link: h("a", { href: toAgent(name) }, name),
  };
  const open = (event) => event.target.closest("a") || getSelection().toString() || go(toAgent(name));
  const cells = [cell("status", entry.state, entry.fault), cell("name", entry.link, entry.about, entry.why)];
  entry.row = h("tr", { role: "row", onclick: open }, ...cells, entry.model, entry.tools, entry.version, entry.owner, entry.seen);
  return entry;
}

function fill(entry, agent, query) {
  if (entry.agent === agent && entry.query === query) return;
  const wrong = trouble(agent).words;
  const why = wrong || (query && matched(agent, query));
  put(entry.state, agent.status, true);
  entry.state.className = `state ${agent.status}`;
  entry.state.title = agent.status_reason || "";
  put(entry.fault, fault(agent));
  put(entry.about, agent.description || agent.agent_type, true);
  put(entry.why, why || "");
  entry.why.hidden = !why;
  entry.why.classList.toggle("found", !wrong);
  put(entry.model, modelOf(agent) || "–", true);
  put(entry.tools, String(agent.tools.length), true);
  entry.tools.title = agent.tools.map(toolName).join(", ");
  const instances = agent.instances?.length || 1;
  put(entry.version, agent.version + (instances > 1 ? ` ×${instances}` : ""), true);
  put(entry.owner, agent.owner || "–", true);
  if (!entry.agent || entry.agent.last_seen !== agent.last_seen) entry.seen.replaceChildren(when(agent.last_seen));
  Object.assign(entry, { agent, query });
}

function put(node, text, flash = false) {
  if (node.textContent === text) return;
  const fresh = node.textContent === "";
  node.textContent = text;
  if (!flash || fresh) return;
  const cell = node.closest("td");
  cell.classList.remove("changed");
  void cell.offsetWidth; // restart the animation
  cell.classList.add("changed");
}
