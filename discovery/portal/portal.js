// The portal: the list of agents, one agent beside it, and a chat with it. No library, no build step.
// Text that came from an agent or a model only ever becomes a text node.

const POLL_MS = 2500;
const FULL_EVERY = 6; // heartbeats do not change the ETag, so every sixth poll asks for the list in full
const HEALTH_EVERY = 4;
const ORDER = ["down", "stale", "draining", "degraded", "registered", "up"]; // trouble first
const base = new URL(".", location.href);

const $ = (id) => document.getElementById(id);
const page = { agents: [], etag: null, heard: 0, away: null, skew: 0, query: "", sort: "name", polls: 0, loaded: false, token: "", locked: false };
const rows = new Map(); // name → {row, cells}
const chats = new Map(); // name → Chat

function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// ---- words ----

const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;
const modelName = (model) => (!model ? "" : typeof model === "string" ? model : [model.provider, model.name].filter(Boolean).join("/"));
const toolName = (tool) => (typeof tool === "string" ? tool : tool.name);
const isBuiltIn = (model) => /^(local|builtin|built-in|embedded)(\/|$)/i.test(modelName(model));
const isWeb = (url) => /^https?:\/\//i.test(url || "");
const faceOf = (agent) => (agent.public_endpoint || agent.endpoint).replace(/\/+$/, "");

function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
}
const secondsSince = (iso) => (Date.now() + page.skew - Date.parse(iso)) / 1000;
const ago = (iso) => (secondsSince(iso) < 3 ? "just now" : `${span(secondsSince(iso))} ago`);

function when(iso, future) {
  if (!iso) return h("span", {}, "–");
  const words = future ? `in ${span(-secondsSince(iso))}` : ago(iso);
  return h("time", { datetime: iso, title: new Date(iso).toLocaleString(), "data-future": Boolean(future) }, words);
}

async function copy(text, button) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy"; // no clipboard on a page that is not secure
  }
  setTimeout(() => (button.textContent = said), 1500);
}

// ---- the registry ----

// The token lives in this page and nowhere else: a reload forgets it.
function ask(path, headers = {}) {
  if (page.token) headers.authorization = `Bearer ${page.token}`;
  return fetch(new URL(path, base), { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
}

function lock(response, problem) {
  page.locked = true;
  $("api").hidden = true; // a link sends no token
  const refused = page.token && (response.status === 401 ? "This token is not known to the registry." : problem.words);
  page.token = "";
  const input = h("input", { type: "password", autocomplete: "off", placeholder: "Read token", "aria-label": "Read token of this registry" });
  const use = (event) => {
    event.preventDefault();
    page.token = input.value.trim().replace(/[^\x21-\x7e]/g, "");
    if (!page.token) return;
    page.locked = false;
    page.polls = 0;
    $("token")?.remove();
    poll();
  };
  const form = h("form", { class: "key", onsubmit: use }, input, h("button", { type: "submit" }, "Use for this visit"));
  $("token")?.remove();
  $("notices").append(h("div", { id: "token", class: "notice", role: "note" }, h("p", { role: refused ? "alert" : undefined }, refused || "This registry shows its list to those who have a read token."), form));
  input.focus();
}

async function poll() {
  if (page.locked) return;
  const headers = {};
  if (page.etag && page.polls % FULL_EVERY) headers["if-none-match"] = page.etag;
  if (page.polls++ % HEALTH_EVERY === 0) askHealth();
  try {
    const response = await ask("agents", headers);
    if (response.status !== 304) {
      if (!response.ok) {
        const problem = await problemOf(response);
        if ((response.status === 401 || response.status === 403) && !page.locked) lock(response, problem);
        throw new Error(page.locked ? "it asks for a token" : problem.words);
      }
      const agents = await response.json();
      if (!Array.isArray(agents)) throw new Error("something else answers in its place");
      page.agents = agents;
      page.etag = response.headers.get("etag");
    }
    const date = Date.parse(response.headers.get("date") || "");
    if (date) page.skew = Math.abs(date - Date.now()) > 2000 ? date - Date.now() : 0;
    page.heard = Date.now();
    page.loaded = true;
    page.away = null;
  } catch (error) {
    page.away = error.name === "TypeError" || error.name === "TimeoutError" ? "it does not answer" : error.message;
  }
  render();
}

async function pollForever() {
  for (;;) {
    if (!document.hidden) await poll();
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

async function askHealth() {
  try {
    const health = await (await ask("health")).json();
    notice("open", health.open_to_network && "Open to the network: anyone who reaches this machine can read and change this list (DISCOVERY_ALLOW_ANONYMOUS).");
    const broken = (health.checks || []).find((check) => !check.ok);
    notice("storage", broken && `New registrations are refused for now: ${broken.reason || broken.name}`, true);
  } catch {
    // The list says it when the registry is away.
  }
}

function notice(key, words, bad = false) {
  const id = `notice-${key}`;
  if (!words) return void $(id)?.remove();
  if ($(id)?.textContent === words) return;
  $(id)?.remove();
  $("notices").append(h("div", { id, class: bad ? "notice bad" : "notice", role: bad ? "alert" : "note" }, words));
}

async function problemOf(response) {
  const body = await response.text().catch(() => "");
  let problem = {};
  try {
    problem = JSON.parse(body);
  } catch {
    // A proxy's page: the status says more than its HTML.
  }
  const detail = typeof problem.detail === "string" ? problem.detail : problem.title;
  return { code: problem.code, hint: problem.hint, words: `${response.status} ${response.statusText || ""}`.trim() + (detail ? `: ${detail}` : "") };
}

// ---- the list ----

function visible() {
  const words = page.query.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (agent) =>
    [agent.name, agent.description, agent.agent_type, agent.owner, agent.status, modelName(agent.model), ...(agent.tags || []), ...agent.tools.map(toolName)].join(" ").toLowerCase();
  const found = words.length ? page.agents.filter((agent) => words.every((word) => text(agent).includes(word))) : [...page.agents];
  if (page.sort === "status") found.sort((a, b) => ORDER.indexOf(a.status) - ORDER.indexOf(b.status) || (a.name < b.name ? -1 : 1));
  return found;
}

function summary() {
  if (!page.loaded) return page.away ? `The registry at ${base.host} cannot say: ${page.away}.` : "Asking the registry…";
  const counts = new Map();
  for (const agent of page.agents) counts.set(agent.status, (counts.get(agent.status) || 0) + 1);
  const parts = [...counts].sort((a, b) => ORDER.indexOf(b[0]) - ORDER.indexOf(a[0])).map(([status, count]) => `${count} ${status}`);
  return plural(page.agents.length, "agent") + (parts.length ? `: ${parts.join(", ")}` : "");
}

function render() {
  const shown = visible();
  put($("summary"), summary());
  document.title = page.loaded ? summary() : "Agents";
  notice("away", page.away && page.loaded && `The registry is away (${page.away}). This is its list from ${span((Date.now() - page.heard) / 1000)} ago; it is asked again every few seconds.`, true);
  $("list").classList.toggle("old", Boolean(page.away));
  $("empty").hidden = !page.loaded || page.agents.length > 0;
  $("nothing").hidden = !page.agents.length || shown.length > 0;
  put($("nothing"), `No agent matches “${page.query}”.`);
  document.querySelector("#list > table").hidden = !shown.length;
  renderRows(shown);
  renderPanel();
  tick();
}

function renderRows(shown) {
  const body = document.querySelector("#list tbody");
  const names = new Set(shown.map((agent) => agent.name));
  for (const [name, { row }] of rows) {
    if (!names.has(name)) {
      row.remove();
      rows.delete(name);
    }
  }
  shown.forEach((agent, at) => {
    const entry = rows.get(agent.name) || newRow(agent.name);
    const { row, cells } = entry;
    put(cells.state, agent.status, true);
    cells.state.className = `state ${agent.status}`;
    cells.state.title = agent.status_reason || "";
    put(cells.about, agent.description || agent.agent_type, true);
    put(cells.model, modelName(agent.model) || "–", true);
    put(cells.tools, String(agent.tools.length), true);
    cells.tools.title = agent.tools.map(toolName).join(", ");
    const more = (agent.instances || []).length;
    put(cells.version, agent.version + (more > 1 ? ` ×${more}` : ""), true);
    put(cells.owner, agent.owner || "–", true);
    if (cells.seen.firstChild?.dateTime !== agent.last_seen) cells.seen.replaceChildren(when(agent.last_seen));
    row.classList.toggle("open", agent.name === opened().name);
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] || null);
  });
}

function newRow(name) {
  const cells = { state: h("span"), about: h("small"), model: h("td", { class: "model" }), tools: h("td", { class: "tools number" }), version: h("td", { class: "version" }), owner: h("td", { class: "owner" }), seen: h("td", { class: "seen number" }) };
  const link = h("a", { href: address(name) }, name);
  const row = h("tr", { onclick: (event) => event.target.closest("a") || go(name) }, h("td", { class: "status" }, cells.state), h("td", { class: "name" }, link, cells.about), cells.model, cells.tools, cells.version, cells.owner, cells.seen);
  const entry = { row, cells, link };
  rows.set(name, entry);
  return entry;
}

function put(node, text, flash = false) {
  if (node.textContent === text) return;
  const fresh = node.textContent === "";
  node.textContent = text;
  if (!flash || fresh) return;
  const cell = node.closest("td") || node;
  cell.classList.remove("changed");
  void cell.offsetWidth; // restart the animation
  cell.classList.add("changed");
}

function tick() {
  for (const time of document.querySelectorAll("time")) {
    const words = time.hasAttribute("data-future") ? `in ${span(-secondsSince(time.dateTime))}` : ago(time.dateTime);
    if (time.textContent !== words) time.textContent = words;
  }
}

// ---- one agent, and the address bar ----

const address = (name, chat) => `#/agents/${encodeURIComponent(name)}${chat ? "/chat" : ""}`;
function opened() {
  const match = /^#\/agents\/([^/]+)(\/chat)?$/.exec(location.hash);
  try {
    return match ? { name: decodeURIComponent(match[1]), chat: Boolean(match[2]) } : {};
  } catch {
    return {};
  }
}
function go(name, chat) {
  location.hash = name ? address(name, chat) : "#/";
}

// What the panel was built from: it is left alone while nothing of that changes.
let shownPanel = null;
let shownView = null;

function renderPanel() {
  const { name, chat } = opened();
  const panel = $("panel");
  const agent = page.agents.find((one) => one.name === name) || chats.get(name)?.agent;
  panel.hidden = !name || !page.loaded;
  document.querySelector("main").classList.toggle("split", !panel.hidden);
  if (panel.hidden) return void (shownPanel = null);
  const listed = page.agents.some((one) => one.name === name);
  const basis = JSON.stringify([location.hash, listed, agent], (key, value) => (key === "last_seen" || key === "next_transition_at" ? undefined : value));
  if (basis === shownPanel) return refreshTimes(agent);
  const kept = shownView === location.hash ? panel.querySelector(".body")?.scrollTop || 0 : 0;
  shownPanel = basis;
  shownView = location.hash;
  if (!agent) return panel.replaceChildren(head(name, null), h("div", { class: "body" }, h("p", {}, "No agent of this name is registered. It was removed, or never was.")));
  const conversation = chat && speaks(agent) ? chatWith(agent) : null;
  if (conversation && panel.contains(conversation.element)) {
    panel.querySelector(".head").replaceWith(head(name, agent, listed, true));
    return; // the conversation stays as it is, caret and scrolling included
  }
  panel.replaceChildren(head(name, agent, listed, Boolean(conversation)), conversation ? conversation.element : details(agent));
  if (conversation) conversation.focus();
  else panel.querySelector(".body").scrollTop = kept;
}

function refreshTimes(agent) {
  if (!agent) return;
  for (const [key, iso] of [["last_seen", agent.last_seen], ["next_transition_at", agent.next_transition_at]]) {
    const time = document.querySelector(`#panel [data-time=${key}] time`);
    if (time && iso && time.dateTime !== iso) time.replaceWith(when(iso, key === "next_transition_at"));
  }
}

const speaks = (agent) => (agent.protocols?.length ? agent.protocols.includes("chat") : agent.agent_type !== "mcp_server");

function head(name, agent, listed, chatting) {
  const buttons = [];
  if (agent && speaks(agent)) {
    buttons.push(h("button", { type: "button", "aria-pressed": String(!chatting), onclick: () => go(name) }, "Details"));
    buttons.push(h("button", { type: "button", "aria-pressed": String(Boolean(chatting)), onclick: () => go(name, true) }, "Chat"));
  }
  const status = agent && h("span", { class: `state ${listed ? agent.status : "gone"}` }, listed ? agent.status : "no longer listed");
  return h("div", { class: "head" }, h("h2", {}, name), status, buttons, h("button", { type: "button", class: "close", "aria-label": "Close", title: "Close (Esc)", onclick: () => go() }, "✕"));
}

function details(agent) {
  const facts = h("dl");
  const fact = (word, value, attributes = {}) => value && facts.append(h("dt", {}, word), h("dd", attributes, ...[value].flat()));
  const link = (url) => (isWeb(url) ? h("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, url) : url);
  fact("Status", agent.status_reason);
  fact("Since", agent.since && when(agent.since));
  fact("Last seen", agent.last_seen && when(agent.last_seen), { "data-time": "last_seen" });
  const next = { stale: "down", down: "removed" }[agent.status] || "stale";
  fact("If silent", agent.next_transition_at && [`${next} `, when(agent.next_transition_at, true)], { "data-time": "next_transition_at" });
  fact("Address", link(agent.endpoint));
  fact("For browsers", agent.public_endpoint && link(agent.public_endpoint));
  fact("Type", agent.agent_type);
  fact("Version", agent.version);
  fact("Model", modelName(agent.model));
  fact("Owner", agent.owner);
  fact("Tags", (agent.tags || []).join(", "));
  fact("Speaks", (agent.protocols || []).join(", "));
  for (const [word, url] of Object.entries(agent.links || {})) fact(word[0].toUpperCase() + word.slice(1), url && link(url));
  return h(
    "div",
    { class: "body" },
    agent.description && h("p", {}, agent.description),
    isBuiltIn(agent.model) && h("p", { class: "honest" }, BUILT_IN),
    facts,
    checksOf(agent),
    h("h3", {}, plural(agent.tools.length, "tool")),
    agent.tools.length ? h("ul", { class: "plain" }, agent.tools.map(toolItem)) : h("p", { class: "quiet" }, "It answers without tools."),
    instancesOf(agent),
  );
}

const BUILT_IN = "The built-in model answers. It is small: it needs no key and no download, is good for trying things out, and will get harder questions wrong. Give the agent a larger model for real work.";

function checksOf(agent) {
  const checks = (agent.instances || []).flatMap((instance) => instance.checks || []);
  if (!checks.length) return null;
  const item = (check) => h("li", {}, h("span", { class: `state ${check.ok ? "up" : "down"}` }, check.ok ? "ok" : "failing"), ` ${check.name}${check.reason ? `: ${check.reason}` : ""}`);
  return [h("h3", {}, "Its own checks"), h("ul", { class: "plain" }, checks.map(item))];
}

function toolItem(tool) {
  const schema = typeof tool === "object" && tool.input_schema;
  return h("li", {}, h("code", {}, toolName(tool)), tool.description ? h("span", { class: "quiet" }, ` ${tool.description}`) : null, schema ? h("details", {}, h("summary", { class: "quiet" }, "Arguments"), h("pre", {}, JSON.stringify(schema, null, 2))) : null);
}

function instancesOf(agent) {
  if ((agent.instances || []).length < 2) return null;
  const item = (one) => h("li", {}, h("span", { class: `state ${one.status}` }, one.status), ` ${one.instance_id} · ${one.version} · ${one.endpoint}`, h("div", { class: "quiet" }, one.status_reason || ""));
  return [h("h3", {}, plural(agent.instances.length, "instance")), h("ul", { class: "plain" }, agent.instances.map(item))];
}

// ---- the chat ----

function chatWith(agent) {
  if (!chats.has(agent.name)) chats.set(agent.name, new Chat(agent));
  const chat = chats.get(agent.name);
  chat.agent = agent;
  return chat;
}

class Chat {
  constructor(agent) {
    this.agent = agent;
    this.session = null;
    this.key = "";
    this.running = null; // the AbortController of the turn under way
    this.input = h("textarea", { rows: 1, placeholder: `Ask ${agent.name}`, "aria-label": `Message to ${agent.name}`, onkeydown: (event) => this.onKey(event) });
    this.button = h("button", { type: "submit", class: "main" }, "Send");
    const honest = isBuiltIn(agent.model) ? "the small built-in model" : modelName(agent.model);
    const intro = h("p", { class: "quiet" }, honest ? `Answers come from ${honest}.` : "Ask it something.", agent.description ? ` ${agent.description}` : "");
    this.log = h("div", { class: "log", role: "log", "aria-live": "polite", "aria-label": `Conversation with ${agent.name}` }, h("div", { class: "turn" }, intro));
    this.element = h("div", { class: "chat" }, this.log, h("form", { class: "ask", onsubmit: (event) => this.onSubmit(event) }, this.input, this.button));
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
    const { run } = this;
    this.running?.abort();
    // Hanging up may leave the run going; where the agent can cancel it, ask it to.
    if (run) fetch(`${faceOf(this.agent)}/runs/${encodeURIComponent(run)}/cancel`, { method: "POST", headers: this.headers() }).catch(() => {});
  }

  headers() {
    return { "content-type": "application/json", accept: "text/event-stream", ...(this.key && { authorization: `Bearer ${this.key}` }) };
  }

  async ask(message) {
    this.log.querySelectorAll(".retry").forEach((button) => button.remove());
    const { session } = this;
    const turn = new Turn(message, () => this.ask(message), () => this.curl(message, session));
    this.log.append(turn.element);
    this.follow(true);
    this.running = new AbortController();
    this.run = null;
    this.button.textContent = "Stop";
    try {
      await this.stream(message, turn);
    } catch (error) {
      if (this.running.signal.aborted) turn.end("Stopped.");
      else turn.fail(await this.explain(error), error.status === 401 ? this.keyForm(message) : null);
    } finally {
      this.running = null;
      this.run = null;
      this.button.textContent = "Send";
      this.follow();
    }
  }

  async stream(message, turn) {
    const body = JSON.stringify(this.session ? { message, session_id: this.session } : { message });
    const response = await fetch(`${faceOf(this.agent)}/chat/stream`, { method: "POST", headers: this.headers(), body, signal: this.running.signal });
    const kind = response.headers.get("content-type") || "";
    if (!response.ok || !kind.startsWith("text/event-stream")) {
      const problem = response.ok ? { words: `it answered ${kind || "without a type"} instead of a stream` } : await problemOf(response);
      if (problem.code === "session_not_found") this.session = null;
      throw Object.assign(new Error(problem.words), { answered: true, status: response.status, hint: problem.hint });
    }
    for await (const { event, data } of serverSentEvents(response.body)) {
      if (event === "run_started") {
        this.session = data.session_id || this.session;
        this.run = data.run_id;
      }
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

class Turn {
  constructor(message, retry, curl) {
    this.text = "";
    this.over = false;
    this.count = 0;
    this.calls = []; // tool calls without a result yet
    this.retry = retry;
    this.curl = curl;
    this.waiting = h("p", { class: "waiting" }, "Working…");
    this.answer = h("div", { class: "answer" }, this.waiting);
    this.label = h("summary", {}, "Steps");
    this.steps = h("details", { class: "steps", open: true, hidden: true }, this.label);
    this.under = h("div", { class: "under" });
    this.element = h("div", { class: "turn" }, h("div", { class: "question" }, message), this.answer, this.steps, this.under);
  }

  take(event, data) {
    if (event === "text") {
      this.text += data.delta || "";
      this.draw();
    } else if (event === "plan" || event === "thought") {
      this.step(event === "plan" ? "Plan" : "Thought", words(data));
    } else if (event === "tool_call") {
      const pre = h("pre", {}, pretty(data.arguments));
      const title = h("span", {}, `Calls ${data.name}`);
      this.calls.push({ id: data.call_id, name: data.name, title, step: this.step(title, pre) });
    } else if (event === "tool_result") {
      const at = Math.max(0, this.calls.findIndex((call) => (data.call_id ? call.id === data.call_id : call.name === data.name)));
      const [call] = this.calls.splice(at, 1);
      const took = data.duration_ms === undefined ? "" : ` in ${data.duration_ms < 1000 ? `${Math.round(data.duration_ms)} ms` : `${(data.duration_ms / 1000).toFixed(1)} s`}`;
      if (call) call.title.textContent = `${data.is_error ? "Failed:" : "Called"} ${data.name}${took}`;
      if (call && data.is_error) call.title.className = "wrong";
      (call ? call.step : this.step(`Result of ${data.name}`)).append(result(data.content));
    } else if (event === "finished") {
      if (data.answer !== undefined && data.answer !== null) this.text = String(data.answer);
      const stopped = data.stop_reason && data.stop_reason !== "finished" ? `It stopped early: ${String(data.stop_reason).replaceAll("_", " ")}.` : "";
      const tokens = data.usage?.total_tokens ?? ((data.usage?.input_tokens ?? data.usage?.prompt_tokens ?? 0) + (data.usage?.output_tokens ?? data.usage?.completion_tokens ?? 0));
      this.end([stopped, tokens ? `${tokens} tokens` : ""].filter(Boolean).join(" · "));
    } else if (event === "failed") {
      this.fail([`The agent could not answer: ${data.message || words(data)}`, data.hint || ""]);
    }
  }

  step(title, content) {
    this.steps.hidden = false;
    this.count += 1;
    this.label.textContent = plural(this.count, "step");
    const node = h("div", {}, title, content ? (typeof content === "string" ? h("div", { class: "prose" }, content) : content) : null);
    this.steps.append(node);
    return node;
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.text) this.answer.replaceChildren(...markdown(this.text));
    });
  }

  end(words) {
    this.over = true;
    this.steps.open = false;
    if (this.text) this.answer.replaceChildren(...markdown(this.text));
    else this.waiting.replaceWith(h("p", { class: "quiet" }, words ? "No answer." : "It answered with nothing."));
    const button = h("button", { type: "button" }, "Copy as curl");
    button.addEventListener("click", () => copy(this.curl(), button));
    this.under.replaceChildren(...(words ? [words] : []), h("button", { type: "button", class: "retry", onclick: this.retry }, "Ask again"), button);
  }

  fail([what, then], form) {
    this.end("");
    if (!this.text) this.answer.replaceChildren();
    this.answer.append(h("div", { class: "notice bad", role: "alert" }, h("p", {}, what), then ? h("p", { class: "quiet" }, then) : null, form));
  }
}

const words = (data) => (typeof data === "string" ? data : data.text ?? data.content ?? data.delta ?? (Array.isArray(data.steps) ? data.steps.map((step, at) => `${at + 1}. ${typeof step === "string" ? step : words(step)}`).join("\n") : pretty(data)));

function pretty(value) {
  if (typeof value !== "string") return JSON.stringify(value, null, 2) ?? "";
  try {
    return JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    return value;
  }
}

function result(content) {
  const text = typeof content === "string" ? content : JSON.stringify(content);
  if (/^\s*\|.*\|\s*$/m.test(text)) return h("div", {}, ...markdown(text));
  try {
    const list = JSON.parse(text);
    if (Array.isArray(list) && list.length && list.every((one) => one && typeof one === "object" && !Array.isArray(one))) {
      const names = [...new Set(list.slice(0, 50).flatMap(Object.keys))].slice(0, 12);
      const cell = (value) => (value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value));
      return table(names, list.slice(0, 50).map((one) => names.map((name) => cell(one[name]))), list.length > 50 ? `and ${list.length - 50} more` : "");
    }
  } catch {
    // not JSON: shown as it is
  }
  return h("pre", {}, pretty(text));
}

async function* serverSentEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).replace(/\r\n|\r(?!$)/g, "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        let event = "message";
        const data = [];
        for (const line of block.split("\n")) {
          if (line.startsWith("event:")) event = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        }
        if (data.length) yield { event, data: parsed(data.join("\n")) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : { text: String(value) };
  } catch {
    return { text };
  }
}

// ---- Markdown, as far as answers use it, into nodes ----

const cellsOf = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
const isRule = (line) => /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(line || "") && line.includes("-");

function table(names, lines, note) {
  const figure = names.map((_, at) => lines.length > 0 && lines.every((line) => /^[-+£$€]?\s?[\d.,]+\s?%?$|^$/.test(line[at] ?? "")));
  const kind = (text, at) => (figure[at] ? "figure" : (text ?? "").length < 13 ? "short" : null);
  const cell = (tag, text, at) => h(tag, { class: kind(text, at) }, ...(tag === "td" ? inline(text ?? "") : [text]));
  return h("div", { class: "rows", tabindex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name, at) => cell("th", name, at)))), h("tbody", {}, lines.map((line) => h("tr", {}, names.map((_, at) => cell("td", line[at], at)))))), note ? h("p", { class: "quiet" }, note) : null);
}

function markdown(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const out = [];
  let at = 0;
  const take = (test) => {
    const from = at;
    while (at < lines.length && test(lines[at])) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    if (!line.trim()) at += 1;
    else if (/^\s*```/.test(line)) {
      at += 1;
      out.push(h("pre", {}, take((one) => !/^\s*```/.test(one)).join("\n")));
      at += 1;
    } else if (line.includes("|") && isRule(lines[at + 1])) {
      const names = cellsOf(line);
      at += 2;
      out.push(table(names, take((one) => one.includes("|")).map(cellsOf)));
    } else if (/^#{1,6}\s/.test(line)) {
      out.push(h("h3", {}, ...inline(line.replace(/^#+\s+/, ""))));
      at += 1;
    } else if (/^\s*([-*+]|\d+[.)])\s+/.test(line)) {
      const ordered = /^\s*\d/.test(line);
      const items = take((one) => /^\s*([-*+]|\d+[.)])\s+/.test(one) && /^\s*\d/.test(one) === ordered);
      out.push(h(ordered ? "ol" : "ul", ordered ? { start: parseInt(line, 10) || 1 } : {}, items.map((one) => h("li", {}, ...inline(one.replace(/^\s*([-*+]|\d+[.)])\s+/, ""))))));
    } else {
      const from = at;
      at += 1;
      take((one) => one.trim() && !/^\s*(```|#{1,6}\s|[-*+]\s|\d+[.)]\s)/.test(one) && !one.includes("|"));
      const nodes = lines.slice(from, at).flatMap((one, index) => (index ? [h("br"), ...inline(one)] : inline(one)));
      out.push(h("p", {}, ...nodes));
    }
  }
  return out;
}

function inline(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(/`([^`]+)`|\*\*([^*]+)\*\*|(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/g)) {
    nodes.push(text.slice(from, match.index));
    const [, code, strong, soft, label, url] = match;
    if (code) nodes.push(h("code", {}, code));
    else if (strong) nodes.push(h("strong", {}, strong));
    else if (soft) nodes.push(h("em", {}, soft));
    else nodes.push(h("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, label));
    from = match.index + match[0].length;
  }
  nodes.push(text.slice(from));
  return nodes.filter((node) => node !== "");
}

// ---- hands on the keyboard ----

function move(step) {
  const links = visible().map((agent) => rows.get(agent.name).link);
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const from = at >= 0 ? at : links.findIndex((link) => link.closest("tr").classList.contains("open"));
  const to = links[Math.min(links.length - 1, Math.max(0, from + step))];
  to.focus();
  to.closest("tr").scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, textarea");
  if (event.key === "Escape") {
    if (typing) {
      if (typing === $("search")) search("");
      typing.blur();
    } else {
      const { name } = opened();
      go();
      rows.get(name)?.link.focus();
    }
    return;
  }
  if (typing) {
    if (typing === $("search") && (event.key === "ArrowDown" || event.key === "Enter")) move(1), event.preventDefault();
    return;
  }
  const focused = document.activeElement.closest?.("tr")?.querySelector("td.name a")?.textContent;
  const actions = {
    "/": () => $("search").focus(),
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: () => $("list").contains(event.target) || event.target === document.body ? move(1) : null,
    ArrowUp: () => $("list").contains(event.target) || event.target === document.body ? move(-1) : null,
    c: () => (focused || opened().name) && go(focused || opened().name, true),
  };
  const action = actions[event.key];
  if (!action || action() === null) return;
  event.preventDefault();
});

function search(query) {
  $("search").value = page.query = query;
  render();
}

$("search").addEventListener("input", () => search($("search").value));
document.querySelectorAll("[data-sort]").forEach((button) =>
  button.addEventListener("click", () => {
    page.sort = button.dataset.sort;
    document.querySelectorAll("[data-sort]").forEach((one) => one.closest("th").setAttribute("aria-sort", one === button ? "ascending" : "none"));
    render();
  }),
);
$("command").textContent = `MYAGENT_DISCOVERY_URL=${base.href.replace(/\/$/, "")} myagent run --config agent.yaml`;
$("copy-command").addEventListener("click", () => copy($("command").textContent, $("copy-command")));
addEventListener("hashchange", render);
document.addEventListener("visibilitychange", () => document.hidden || poll());
setInterval(tick, 1000);
pollForever();
