// What is open beside the list: an agent's details, its history, a chat with it, or who uses something.

import { go, toAgent } from "./address.js";
import { Chat } from "./chat.js";
import { details } from "./detail.js";
import { USES } from "./fleet.js";
import { History } from "./history.js";
import { h } from "./render.js";
import { uses } from "./uses.js";
import { refresh, speaks, state } from "./words.js";

const LOOK_MS = 5000;
// They move with every heartbeat: their times are brought up to date, the rest is left alone.
const RESTLESS = new Set(["last_seen", "next_transition_at", "checked_at"]);

export class Panel {
  constructor(element, registry) {
    this.element = element;
    this.registry = registry;
    this.history = new History(registry);
    this.chats = new Map(); // name → Chat
    this.basis = this.path = null;
    setInterval(() => this.agent && registry.look(this.agent.name), LOOK_MS);
  }

  show({ name, tab, uses: asked, path }) {
    const { registry } = this;
    const listed = registry.agents.get(name);
    const agent = listed || this.chats.get(name)?.agent;
    this.agent = listed;
    this.element.hidden = !(name || asked) || !registry.known;
    if (this.element.hidden) return void (this.basis = null);
    if (this.unchanged(path, listed, agent, asked)) return agent && refresh(this.element, agent);
    if (asked) return this.draw(path, head(asked.name, h("span", { class: "quiet" }, USES[asked.kind])), uses(asked, [...registry.agents.values()]));
    const chatting = tab === "chat" && agent && speaks(agent);
    const top = head(name, agent && state(listed ? agent.status : "gone", listed ? agent.status : "no longer listed"), tabs(name, agent, agent && (tab !== "chat" || chatting) ? tab : "details"));
    if (chatting) return this.chat(path, top, agent);
    return this.draw(path, top, this.body(name, agent, tab));
  }

  body(name, agent, tab) {
    const { registry, history } = this;
    if (agent && tab !== "history") return details(agent, { agents: [...registry.agents.values()], lately: history.lately(agent), probe: registry.health.probe, guard: registry.guard });
    const gone = agent ? null : h("p", {}, "No agent of this name is registered. It was removed, or never was.");
    return h("div", { class: "body" }, gone, history.whole(name, agent));
  }

  // A view of one agent is drawn again when that agent changed; one of many when any did.
  unchanged(path, listed, agent, asked) {
    const { revision, guard, health, known } = this.registry;
    const still = (key, value) => (RESTLESS.has(key) ? undefined : value);
    const basis = JSON.stringify([path, Boolean(listed), asked ? revision : agent, guard, health.probe, known], still);
    if (basis === this.basis) return true;
    this.basis = basis;
    return false;
  }

  // The conversation stays as it is, caret and scrolling included.
  chat(path, top, agent) {
    if (!this.chats.has(agent.name)) this.chats.set(agent.name, new Chat(agent));
    const chat = this.chats.get(agent.name);
    chat.agent = agent;
    this.path = path;
    if (this.element.contains(chat.element)) return this.element.querySelector(".head").replaceWith(top);
    this.element.replaceChildren(top, chat.element);
    return chat.focus();
  }

  // What was unfolded, focused and scrolled to stays so while the same view is drawn again.
  draw(path, top, body) {
    const { element } = this;
    const again = path === this.path;
    const unfolded = again ? [...element.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key) : [];
    const scrolled = (again && element.querySelector(".body")?.scrollTop) || 0;
    const places = () => [...element.querySelectorAll("a, button, summary")];
    const focused = again ? places().indexOf(document.activeElement) : -1;
    this.path = path;
    element.replaceChildren(top, body);
    for (const one of element.querySelectorAll("details[data-key]")) one.open = unfolded.includes(one.dataset.key);
    element.querySelector(".body").scrollTop = scrolled;
    places()[focused]?.focus({ preventScroll: true });
  }
}

function tabs(name, agent, tab) {
  if (!agent) return null;
  const words = { details: "Details", history: "History", ...(speaks(agent) && { chat: "Chat" }) };
  const link = ([key, word]) => h("a", { class: "button", href: toAgent(name, key === "details" ? "" : key), "aria-current": key === tab && "page" }, word);
  return h("nav", { class: "tabs", "aria-label": "Views of this agent" }, Object.entries(words).map(link));
}

function head(title, ...more) {
  const close = h("button", { type: "button", class: "close", "aria-label": "Close", title: "Close (Esc)", onclick: () => go() }, "✕");
  return h("div", { class: "head" }, h("h2", {}, title), ...more, close);
}
