// A conversation with an agent, through the agent's own face: the registry has no part in it.

import { h, isBuiltIn, problemOf } from "./render.js";
import { Turn, serverSentEvents } from "./turn.js";
import { faceOf, modelOf } from "./words.js";

export class Chat {
  constructor(agent) {
    this.agent = agent;
    this.session = null;
    this.key = "";
    this.running = null; // the turn under way, with what ends it
    this.input = h("textarea", { rows: 1, placeholder: `Ask ${agent.name}`, "aria-label": `Message to ${agent.name}`, onkeydown: (event) => this.onKey(event) });
    this.button = h("button", { type: "submit", class: "main" }, "Send");
    const honest = isBuiltIn(agent.model) ? "the small built-in model" : modelOf(agent);
    const intro = h("p", { class: "quiet" }, honest ? `Answers come from ${honest}.` : "Ask it something.", agent.description ? ` ${agent.description}` : "");
    this.log = h("div", { class: "log", role: "log", "aria-live": "polite", "aria-label": `Conversation with ${agent.name}` }, h("div", { class: "turn" }, intro));
    this.element = h("div", { class: "chat" }, this.log, h("form", { class: "ask", onsubmit: (event) => this.onSubmit(event) }, this.input, this.button));
    setInterval(() => this.running?.turn.tick(), 1000);
  }

  focus() {
    if (matchMedia("(hover: hover)").matches) this.input.focus({ preventScroll: true });
    this.log.scrollTop = this.log.scrollHeight;
  }

  onKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.running) this.onSubmit(event);
  }

  onSubmit(event) {
    event.preventDefault();
    if (this.running) return this.stop();
    const message = this.input.value.trim();
    if (!message) return;
    this.input.value = "";
    this.ask(message);
  }

  stop() {
    const { run, abort } = this.running;
    abort.abort();
    // Hanging up may leave the run going; where the agent can cancel it, ask it to.
    if (run) fetch(`${faceOf(this.agent)}/runs/${encodeURIComponent(run)}/cancel`, { method: "POST", headers: this.headers() }).catch(() => {});
  }

  headers() {
    return { "content-type": "application/json", accept: "text/event-stream", ...(this.key && { authorization: `Bearer ${this.key}` }) };
  }

  async ask(message) {
    this.log.querySelectorAll(".retry").forEach((button) => button.remove());
    const { session } = this;
    const turn = new Turn(message, { retry: () => this.ask(message), curl: () => this.curl(message, session) });
    this.log.append(turn.element);
    this.follow(true);
    const running = (this.running = { turn, run: null, abort: new AbortController() });
    this.button.textContent = "Stop";
    try {
      await this.stream(message, running);
      if (running.waits) turn.under.append(h("a", { href: `${faceOf(this.agent)}/`, rel: "noopener noreferrer", target: "_blank" }, "Decide on the agent's page"));
    } catch (error) {
      if (running.abort.signal.aborted) turn.end("Stopped.");
      else turn.fail(await this.explain(error), error.status === 401 ? this.keyForm(message) : null);
    } finally {
      this.running = null;
      this.button.textContent = "Send";
      this.follow();
    }
  }

  async stream(message, running) {
    const { turn, abort } = running;
    const body = JSON.stringify(this.session ? { message, session_id: this.session } : { message });
    const response = await fetch(`${faceOf(this.agent)}/chat/stream`, { method: "POST", headers: this.headers(), body, signal: abort.signal });
    const kind = response.headers.get("content-type") || "";
    if (!response.ok || !kind.startsWith("text/event-stream")) {
      const problem = response.ok ? { words: `it answered ${kind || "without a type"} instead of a stream` } : await problemOf(response);
      if (problem.code === "session_not_found") this.session = null;
      throw Object.assign(new Error(problem.words), { answered: true, status: response.status, hint: problem.hint });
    }
    for await (const { event, data } of serverSentEvents(response.body)) {
      if (event === "run_started") {
        this.session = data.session_id || this.session;
        running.run = data.run_id;
      }
      if (event === "approval_required") running.waits = true;
      turn.take(event, data);
      this.follow();
    }
    if (!turn.over) throw Object.assign(new Error("the connection ended before the answer did"), { answered: true });
  }

  async explain(error) {
    const tried = `POST ${faceOf(this.agent)}/chat/stream`;
    if (error.answered) {
      const locked = error.status === 401 || error.status === 403;
      return [`${tried}: ${error.message}`, error.hint || (locked ? "The agent wants one of the keys in its server.api_keys." : "The agent's own log says more.")];
    }
    if (location.protocol === "https:" && faceOf(this.agent).startsWith("http:")) return [`The browser does not let this https page call ${faceOf(this.agent)}.`, "Give the agent a public_url that begins with https."];
    const reachable = await fetch(`${faceOf(this.agent)}/livez`, { mode: "no-cors", signal: AbortSignal.timeout(3000) }).then(() => true, () => false);
    if (reachable) return [`${tried} was blocked by the browser: the agent is there, but it does not allow this page (${location.origin}).`, `Add "${location.origin}" to server.cors_origins in the agent's file and start it again.`];
    const containers = this.agent.public_endpoint ? "" : " If it runs in a container, set server.public_url to the address that a browser can reach.";
    return [`${tried} found nobody there.`, `Is the agent running, and can this browser reach that address?${containers}`];
  }

  keyForm(message) {
    const input = h("input", { type: "password", autocomplete: "off", placeholder: "API key of this agent", "aria-label": "API key of this agent" });
    const use = (event) => {
      event.preventDefault();
      this.key = input.value.trim();
      if (this.key) this.ask(message);
    };
    return h("form", { class: "key", onsubmit: use }, input, h("button", { type: "submit" }, "Use for this visit"));
  }

  curl(message, session) {
    const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
    const body = JSON.stringify(session ? { message, session_id: session } : { message });
    return `curl -N ${quoted(`${faceOf(this.agent)}/chat/stream`)} -H 'content-type: application/json' -d ${quoted(body)}`;
  }

  follow(always = false) {
    const below = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight;
    if (always || below < 160) this.log.scrollTop = this.log.scrollHeight;
  }
}
