// Calls of tools that wait for a person: a card each, with the call in full and three buttons.

import { h, pretty, problemOf, span } from "./render.js";

const EVERY_MS = 3000;
const WORDS = { approve: "Approved", deny: "Denied", edit: "Approved as edited" };

export class Approvals {
  // `ask(path, options)` fetches from the agent; `decided(response, words)` gets the stream of the run that goes on.
  constructor(element, ask, decided) {
    this.element = element;
    this.ask = ask;
    this.decided = decided;
    this.cards = new Map(); // id → element
    this.there = true; // until the agent says that it has no such route
  }

  async poll() {
    clearTimeout(this.timer);
    try {
      const response = await this.ask("approvals");
      if (response.status === 404 || response.status === 405) return void (this.there = false);
      if (response.ok) this.show(await response.json());
    } catch {
      // The agent is away: the conversation says so.
    }
    if (this.there) this.timer = setTimeout(() => (document.hidden ? this.later() : this.poll()), EVERY_MS);
  }

  later() {
    document.addEventListener("visibilitychange", () => this.poll(), { once: true });
  }

  show(pending) {
    if (!Array.isArray(pending)) return;
    const ids = new Set(pending.map((one) => one.id));
    for (const [id, card] of this.cards) {
      if (ids.has(id)) continue;
      card.remove();
      this.cards.delete(id);
    }
    for (const one of pending) {
      if (this.cards.has(one.id)) continue;
      const card = this.card(one);
      this.cards.set(one.id, card);
      this.element.append(card);
    }
    this.element.hidden = !this.cards.size;
  }

  card(one) {
    const call = h("pre", {}, pretty(one.arguments));
    const more = h("div", { class: "more" });
    const problem = h("p", { class: "wrong", role: "alert", hidden: true });
    const card = h("article", { class: "approval" });
    const say = (words) => {
      problem.textContent = words;
      problem.hidden = !words;
    };
    const send = async (decision) => {
      card.querySelectorAll("button").forEach((button) => (button.disabled = true));
      say("");
      const refused = await this.send(one, decision);
      card.querySelectorAll("button").forEach((button) => (button.disabled = false));
      if (refused) say(refused);
    };
    const age = Math.max(0, (Date.now() - Date.parse(one.created_at)) / 1000);
    const button = (label, onclick, kind) => h("button", { type: "button", class: kind, onclick }, label);
    const approve = button("Approve", () => send({ decision: "approve" }), "main");
    card.append(
      h("h2", {}, "Approve this call?"),
      h("p", {}, "The agent wants to call ", h("code", {}, one.tool), age >= 5 ? h("span", { class: "quiet" }, ` · asked ${span(age)} ago`) : null),
      call,
      h("div", { class: "choices" }, approve, button("Deny", () => more.replaceChildren(...denial(send))), button("Edit", () => more.replaceChildren(...edit(one, send, say)))),
      more,
      problem,
    );
    return card;
  }

  async send({ id, tool }, decision) {
    try {
      const headers = { accept: "text/event-stream" };
      const response = await this.ask(`approvals/${encodeURIComponent(id)}`, { method: "POST", headers, body: JSON.stringify(decision) });
      if (!response.ok) return (await problemOf(response)).words;
      this.cards.get(id)?.remove();
      this.cards.delete(id);
      this.element.hidden = !this.cards.size;
      this.decided(response, `${WORDS[decision.decision]}: ${tool}`);
    } catch {
      return "The agent does not answer; nothing was decided. Try again.";
    }
    return "";
  }
}

function denial(send) {
  const reason = h("input", { type: "text", "aria-label": "Reason", placeholder: "Why not? The agent reads this", autocomplete: "off" });
  const submit = (event) => {
    event.preventDefault();
    send({ decision: "deny", ...(reason.value.trim() && { reason: reason.value.trim() }) });
  };
  const form = h("form", { class: "line", onsubmit: submit }, reason, h("button", { type: "submit" }, "Deny the call"));
  setTimeout(() => reason.focus());
  return [form];
}

function edit(one, send, say) {
  const text = pretty(one.arguments);
  const area = h("textarea", { "aria-label": "Arguments as JSON", rows: Math.min(12, text.split("\n").length + 1), spellcheck: "false" });
  area.value = text;
  const submit = (event) => {
    event.preventDefault();
    let changed;
    try {
      changed = JSON.parse(area.value);
    } catch (error) {
      return say(`This is no JSON: ${error.message}`);
    }
    if (changed === null || typeof changed !== "object" || Array.isArray(changed)) return say("The arguments must be a JSON object.");
    return send({ decision: "edit", arguments: changed });
  };
  setTimeout(() => area.focus());
  return [h("form", { onsubmit: submit }, area, h("button", { type: "submit" }, "Approve as edited"))];
}
