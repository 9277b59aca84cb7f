// The registry as this page knows it: its list, kept true by its events, or by asking again where it has none.

import { problemOf } from "./render.js";
import { serverSentEvents } from "./turn.js";
import { clock } from "./words.js";

const ASK_MS = 5000; // how long an answer may take
const POLL_MS = 2500; // between two questions to a registry without events, or to one that is away
const WHOLE_MS = 30_000; // heartbeats change neither the ETag nor the stream: so often the list is read in full
const SILENT_MS = 25_000; // the stream says something every 10 s; after this much silence it is dead
const KEEP_MS = 10_000; // between two copies of the list in this browser

const pause = (ms) => new Promise((done) => setTimeout(done, ms * (0.8 + 0.4 * Math.random())));
const shown = () => (document.hidden ? new Promise((done) => document.addEventListener("visibilitychange", done, { once: true })) : null);

export class Registry {
  // `changed()` is called after whatever may show.
  constructor(base, changed) {
    Object.assign(this, { base, changed, agents: new Map(), revision: 0, etag: null, lastId: null });
    this.heard = null; // when it answered last, in this browser's time
    this.away = null; // why it cannot be asked now
    this.locked = null; // what it said to a reader without the right token
    this.guard = null; // the mass silence that it holds still for
    this.health = {};
    this.token = "";
    this.streams = true; // until it says that it has no such route
    this.live = false;
    this.wholeAt = this.keptAt = 0;
  }

  get known() {
    return this.heard !== null;
  }

  // The token lives in this page and nowhere else: a reload forgets it.
  use(token) {
    this.token = token;
    this.locked = null;
    this.unlock?.();
  }

  ask(path, headers = {}, signal = AbortSignal.timeout(ASK_MS)) {
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    return fetch(new URL(path, this.base), { headers, cache: "no-store", signal });
  }

  // Read the list and follow it for as long as the page is open.
  async follow() {
    document.addEventListener("visibilitychange", () => document.hidden && this.abort?.abort());
    for (;;) {
      try {
        await this.list();
        this.askHealth();
        await this.stream();
      } catch (error) {
        this.lost(error);
      }
      this.live = false;
      this.changed();
      if (this.locked) await new Promise((done) => (this.unlock = done));
      else await pause(this.streams && !this.away ? POLL_MS / 4 : POLL_MS);
      await shown();
    }
  }

  lost(error) {
    if (error.name === "AbortError") return; // the page itself hung up
    this.away = error.name === "TypeError" || error.name === "TimeoutError" ? "it does not answer" : error.message;
    if (!this.known && !this.locked) this.recall();
  }

  async list() {
    const headers = {};
    if (this.etag && Date.now() - this.wholeAt < WHOLE_MS) headers["if-none-match"] = this.etag;
    const response = await this.ask("agents", headers);
    if (response.status === 401 || response.status === 403) await this.lock(response);
    const revision = Number(response.headers.get("x-registry-revision")) || 0;
    // A list that was on its way while an event arrived is older than what is shown.
    const newer = !this.live || revision >= this.revision;
    if (response.status !== 304) {
      if (!response.ok) throw new Error((await problemOf(response)).words);
      const agents = await response.json();
      if (!Array.isArray(agents)) throw new Error("something else answers in its place");
      if (newer) this.agents = new Map(agents.map((one) => [one.name, one]));
      this.etag = newer ? response.headers.get("etag") : null;
      this.wholeAt = Date.now();
    }
    if (newer) this.revision = revision;
    const date = Date.parse(response.headers.get("date") || "");
    if (date) clock.skew = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
    this.answered();
  }

  answered() {
    this.heard = Date.now();
    this.away = null;
    this.keep();
    this.changed();
  }

  async lock(response) {
    const said = (await problemOf(response)).words;
    this.locked = { words: said };
    if (this.token) this.locked.refused = response.status === 401 ? "This token is not known to the registry." : said;
    this.token = "";
    this.forget();
    throw new Error("it asks for a token");
  }

  // Returns when the stream ended, at once where there is none.
  async stream() {
    if (!this.streams) return;
    this.abort = new AbortController();
    const { signal } = this.abort;
    let timer = setTimeout(() => this.abort.abort(), ASK_MS);
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.abort.abort(), SILENT_MS);
      this.heard = Date.now();
    };
    const refresh = setInterval(() => document.hidden || this.renew(), WHOLE_MS);
    try {
      const response = await this.ask("events", { accept: "text/event-stream", ...(this.lastId && { "last-event-id": this.lastId }) }, signal);
      if (response.status === 404) this.streams = false;
      if (!response.ok || !response.headers.get("content-type")?.startsWith("text/event-stream")) return;
      alive();
      const watched = new TransformStream({ transform: (chunk, out) => (alive(), out.enqueue(chunk)) });
      for await (const { event, data, id } of serverSentEvents(response.body.pipeThrough(watched))) {
        this.lastId = id || this.lastId;
        await this.take(event, data);
      }
    } finally {
      clearTimeout(timer);
      clearInterval(refresh);
    }
  }

  async take(event, data) {
    if (event === "reset") {
      this.live = false;
      await this.list();
    } else if (event === "guard") {
      this.guard = data.active ? data : null;
      this.renew(); // what comes next for the silent ones has moved
    } else if (data.revision > this.revision && data.name) {
      this.revision = data.revision;
      this.etag = null; // it stood for the list before this
      if (data.agent) this.agents.set(data.name, data.agent);
      else this.agents.delete(data.name);
      this.keep();
    }
    this.live = true;
    this.changed();
  }

  async renew() {
    try {
      await this.list();
      this.askHealth();
    } catch {
      this.abort.abort(); // the loop finds out what is wrong, and says it
    }
  }

  // One agent anew: its heartbeats, which no event tells of.
  async look(name) {
    if (this.away || this.locked || document.hidden) return;
    const { revision } = this;
    const response = await this.ask(`agents/${encodeURIComponent(name)}`).catch(() => null);
    if (!response?.ok) return;
    const agent = await response.json().catch(() => null);
    if (!agent?.name || revision !== this.revision || !this.agents.has(name)) return;
    this.agents.set(name, agent);
    this.changed();
  }

  async askHealth() {
    try {
      const response = await this.ask("health");
      if (!response.ok) return;
      this.health = await response.json();
      const { guard } = this.health;
      if (!guard) this.guard = null;
      else this.guard ??= guard;
      this.changed();
    } catch {
      // The list says it when the registry is away.
    }
  }

  // ---- the last good list, for when the registry is away; not that of a registry with tokens, which is not everyone's to read ----

  get drawer() {
    return `portal ${this.base.href}`;
  }

  keep() {
    if (this.token || Date.now() - this.keptAt < KEEP_MS) return;
    this.keptAt = Date.now();
    const brief = (tool) => (typeof tool === "string" ? tool : { name: tool.name, description: tool.description });
    const agents = [...this.agents.values()].map((agent) => ({ ...agent, tools: agent.tools.map(brief) }));
    try {
      localStorage.setItem(this.drawer, JSON.stringify({ at: this.heard, agents }));
    } catch {
      this.forget(); // no room, or a browser that keeps nothing
    }
  }

  recall() {
    try {
      const { at, agents } = JSON.parse(localStorage.getItem(this.drawer));
      Object.assign(this, { heard: at, agents: new Map(agents.map((one) => [one.name, one])) });
    } catch {
      // There is none.
    }
  }

  forget() {
    try {
      localStorage.removeItem(this.drawer);
    } catch {
      // Nothing was kept.
    }
  }
}
