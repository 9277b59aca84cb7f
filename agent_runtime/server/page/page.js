// The page to talk to one agent. No library, no build step; text of the agent's only ever becomes a text node.

import { Approvals } from "./approvals.js";
import { BUILT_IN, h, isBuiltIn, parsed, plural, problemOf } from "./render.js";
import { Turn, serverSentEvents } from "./turn.js";

const base = new URL(".", location.href);
const TRIES = 8; // to pick a broken stream up again, a little later each time
const $ = (id) => document.getElementById(id);
const page = { about: null, session: recall("session"), key: recall("key") || "", running: null };

// What a reload must not lose; a browser that keeps nothing does without.
function recall(name) {
  try {
    return sessionStorage.getItem(base.pathname + name);
  } catch {
    return null;
  }
}
function keep(name, value) {
  try {
    if (value) sessionStorage.setItem(base.pathname + name, value);
    else sessionStorage.removeItem(base.pathname + name);
  } catch {
    // The page works without.
  }
}

function ask(path, options = {}) {
  const headers = { ...(options.body && { "content-type": "application/json" }), ...(page.key && { authorization: `Bearer ${page.key}` }), ...options.headers };
  return fetch(new URL(path, base), { cache: "no-store", ...options, headers });
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// ---- the conversation ----

async function begin(message) {
  if (page.running) return;
  const { session } = page;
  const turn = add(message, session);
  await follow(turn, () => ask("chat/stream", { method: "POST", body: body(message, session), signal: page.running.abort.signal }));
}

function add(message, session) {
  $("log").querySelectorAll(".retry").forEach((button) => button.remove());
  const turn = new Turn(message, { retry: () => begin(message), curl: () => curl(message, session) });
  $("log").append(turn.element);
  scroll(true);
  return turn;
}

const body = (message, session) => JSON.stringify(session ? { message, session_id: session } : { message });

// Read the stream that `first` opens to the end of its run, however often the connection breaks.
async function follow(turn, first, run = null) {
  page.running = { turn, run, last: 0, abort: new AbortController() };
  const { running } = page;
  $("send").textContent = "Stop";
  try {
    let response = await first();
    for (let tries = 0; ; ) {
      await read(response, turn, () => (tries = 0));
      if (turn.over) break;
      response = null;
      while (!response) {
        if (running.abort.signal.aborted || !running.run || ++tries > TRIES) throw told("the connection ended before the answer did");
        turn.say("The connection broke; picking it up again…");
        await pause(Math.min(250 * 2 ** tries, 5000));
        response = await ask(`runs/${running.run}/events`, { headers: { "last-event-id": String(running.last) }, signal: running.abort.signal }).catch(() => null);
      }
    }
  } catch (error) {
    if (running.abort.signal.aborted) turn.end("Stopped.");
    else turn.fail(explained(error), error.status === 401 ? keyForm(() => begin(turn.message)) : null);
  } finally {
    if (page.running === running) page.running = null;
    keep("active", null);
    $("send").textContent = "Send";
    approvals.poll();
    scroll();
  }
}

async function read(response, turn, heard) {
  const kind = response.headers.get("content-type") || "";
  if (!response.ok || !kind.startsWith("text/event-stream")) {
    const problem = response.ok ? { words: `it answered ${kind || "without a type"} instead of a stream` } : await problemOf(response);
    throw told(problem.words, response.status, problem.hint);
  }
  for await (const { event, data, id } of serverSentEvents(response.body)) {
    heard();
    if (id) page.running.last = Number(id);
    if (event === "run_started") started(data, turn);
    else turn.say("");
    turn.take(event, data);
    if (event === "approval_required") approvals.poll();
    scroll();
  }
}

function started(data, turn) {
  page.running.run = data.run_id;
  if (page.about?.remembers !== false) {
    page.session = data.session_id || page.session;
    keep("session", page.session);
  }
  keep("active", JSON.stringify({ run: data.run_id, message: turn.message }));
}

async function stop() {
  const { running } = page;
  if (!running) return;
  running.turn.say("Stopping…");
  const answer = running.run && (await ask(`runs/${running.run}/cancel`, { method: "POST" }).catch(() => null));
  // The stream itself then says that the run was cancelled; where it does not, hanging up is all that is left.
  setTimeout(() => running.turn.over || running.abort.abort(), answer?.ok ? 3000 : 0);
}

const told = (words, status, hint) => Object.assign(new Error(words), { told: true, status, hint });

function explained(error) {
  if (!error.told) return ["The agent does not answer.", `Is it still running at ${base.host}? What was asked is kept: ask again when it is back.`];
  if (error.status === 401) return ["This agent requires an API key.", "It is one of the keys in server.api_keys of the agent's file."];
  return [`The agent could not answer: ${error.message}`, error.hint || "The agent's own log says more."];
}

function curl(message, session) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const key = page.key ? ` -H "authorization: Bearer $KEY"` : "";
  return `curl -N ${quoted(new URL("chat/stream", base).href)}${key} -H 'content-type: application/json' -d ${quoted(body(message, session))}`;
}

function scroll(always = false) {
  const log = $("log");
  if (always || log.scrollHeight - log.scrollTop - log.clientHeight < 160) log.scrollTop = log.scrollHeight;
}

// ---- what is there already when the page is opened again ----

async function restore() {
  const active = parsed(recall("active") || "null");
  let last = null;
  if (page.session && page.about.remembers) {
    const response = await ask(`sessions/${encodeURIComponent(page.session)}`).catch(() => null);
    if (response?.ok) last = replay(await response.json());
  }
  if (!active.run) return;
  const response = await ask(`runs/${active.run}/events`).catch(() => null);
  if (!response?.ok) return keep("active", null);
  const turn = add(active.message, page.session);
  await follow(turn, async () => response, active.run);
  if (last?.message === turn.message && last.text === turn.text) last.element.remove(); // it ended meanwhile, and was remembered
}

function replay(messages) {
  let turn = null;
  for (const message of messages) {
    if (message.role === "user") {
      turn?.end("");
      turn = add(message.content, page.session);
    } else if (message.role === "tool") turn?.take("tool_result", { call_id: message.tool_call_id, content: message.content });
    else if (message.tool_calls?.length) message.tool_calls.forEach((call) => turn?.take("tool_call", { call_id: call.id, name: call.name, arguments: call.arguments }));
    else turn?.take("text", { delta: message.content });
  }
  turn?.end("");
  return turn;
}

// ---- what is known of the agent ----

async function introduce() {
  const response = await ask("page/agent").catch(() => null);
  if (!response?.ok) return notice(response);
  $("notices").replaceChildren();
  const { about } = Object.assign(page, { about: await response.json() });
  document.title = about.name;
  $("name").textContent = about.name;
  $("input").placeholder = `Ask ${about.name}`;
  const standsIn = about.answering && about.answering !== about.model;
  $("model").textContent = `${standsIn ? about.answering : about.model}${standsIn ? `, standing in for ${about.model}` : ""} · ${about.version}`;
  $("show-tools").textContent = plural(about.tools.length, "tool");
  $("show-tools").hidden = false;
  const away = about.checks.filter((check) => !check.ok).map((check) => `${check.name}${check.reason ? `: ${check.reason}` : ""}`);
  if (away.length) $("notices").append(h("div", { class: "notice", role: "note" }, `It can do less than usual. ${away.join(" · ")}`));
  $("intro").replaceChildren(
    ...(about.description ? [h("p", { class: "lead" }, about.description)] : []),
    ...(isBuiltIn(about.model) ? [h("p", { class: "honest" }, BUILT_IN)] : []),
    h("p", { class: "quiet" }, about.remembers ? "It remembers this conversation." : "It answers each question by itself: earlier ones are not remembered."),
  );
  renderTools();
  approvals.poll();
  await restore();
}

function notice(response) {
  const [what, then] = explained(response ? told(`it answered ${response.status}`, response.status) : new Error());
  const again = response?.status === 401 ? keyForm(introduce) : h("button", { type: "button", onclick: introduce }, "Try again");
  $("notices").replaceChildren(h("div", { class: "notice bad", role: "alert" }, h("p", {}, what), h("p", { class: "quiet" }, then), again));
}

function keyForm(then) {
  const input = h("input", { type: "password", autocomplete: "off", placeholder: "API key of this agent", "aria-label": "API key of this agent" });
  const use = (event) => {
    event.preventDefault();
    page.key = input.value.trim();
    keep("key", page.key);
    if (page.key) then();
  };
  return h("form", { class: "key", onsubmit: use }, input, h("button", { type: "submit" }, "Use in this tab"));
}

function renderTools() {
  const { tools } = page.about;
  const item = (tool) => h("li", {}, h("code", {}, tool.name), h("p", { class: "quiet" }, tool.description), h("details", {}, h("summary", { class: "quiet" }, "Arguments"), h("pre", {}, JSON.stringify(tool.input_schema, null, 2))));
  const close = h("button", { type: "button", "aria-label": "Close", title: "Close (Esc)", onclick: () => showTools(false) }, "✕");
  const list = tools.length ? h("ul", { class: "plain" }, tools.map(item)) : h("p", { class: "quiet" }, "It answers without tools. Its owner adds them under tools: in the agent file.");
  $("panel").replaceChildren(h("div", { class: "head" }, h("h2", {}, plural(tools.length, "tool")), close), h("div", { class: "body" }, list));
}

function showTools(open = $("panel").hidden) {
  if (!page.about) return;
  $("panel").hidden = !open;
  $("show-tools").setAttribute("aria-expanded", String(open));
  document.querySelector("main").classList.toggle("split", open);
  if (!open) $("show-tools").focus();
}

function renew() {
  if (page.running) return;
  page.session = null;
  keep("session", null);
  $("log").replaceChildren($("intro"));
  $("input").focus();
}

// ---- hands on the keyboard ----

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (page.running) return void stop();
  const message = $("input").value.trim();
  if (!message) return;
  $("input").value = "";
  begin(message);
});
$("input").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!page.running) $("ask").requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, textarea");
  if (event.key === "Escape") {
    if (typing && typing !== $("input")) typing.blur();
    else if (page.running) stop();
    else if (!$("panel").hidden) showTools(false);
    else typing?.blur();
    return;
  }
  const action = typing ? null : { "/": () => $("input").focus(), t: () => showTools(), n: renew }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
$("show-tools").addEventListener("click", () => showTools());
$("new").addEventListener("click", renew);
setInterval(() => page.running?.turn.tick(), 1000);

// After a decision the run goes on; what it then says is a turn of its own.
async function decided(response, words) {
  if (!(response.headers.get("content-type") || "").startsWith("text/event-stream")) return;
  while (page.running) await pause(200);
  const turn = add(words, page.session);
  turn.retry = null;
  await follow(turn, async () => response);
}

const approvals = new Approvals($("approvals"), ask, decided);
if (matchMedia("(hover: hover)").matches) $("input").focus();
introduce();
