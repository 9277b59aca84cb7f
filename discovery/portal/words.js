// What is said of agents and of time, in words that all of the page shares.

import { h, modelName, plural, span } from "./render.js";

export const clock = { skew: 0 }; // the registry's clock less this browser's, in milliseconds
export const TROUBLE_FIRST = ["down", "stale", "draining", "degraded", "registered", "up"];

export const toolName = (tool) => (typeof tool === "string" ? tool : tool.name);
export const faceOf = (agent) => (agent.public_endpoint || agent.endpoint).replace(/\/+$/, "");
export const speaks = (agent) => (agent.protocols?.length ? agent.protocols.includes("chat") : agent.agent_type !== "mcp_server");
export const isWeb = (url) => /^https?:\/\//i.test(url || "");
export const capital = (word) => word[0].toUpperCase() + word.slice(1);
export const webLink = (url, text = url) => (isWeb(url) ? h("a", { href: url, rel: "noopener noreferrer", target: "_blank" }, text) : text);

// The MCP servers that an agent says it uses. Two agents use the same one where the address is the same.
export function serversOf(agent) {
  const said = agent.metadata?.mcp_servers;
  const items = Array.isArray(said) ? said.map((one) => (typeof one === "string" ? { name: one } : one)) : [];
  return items.filter((one) => typeof one?.name === "string").map(({ name, url }) => ({ name, url, key: url || name }));
}

// How many are in which state, the well ones first: "3 agents: 2 up, 1 down".
export function statuses(agents) {
  const counts = new Map();
  for (const { status } of agents) counts.set(status, (counts.get(status) || 0) + 1);
  return [...counts].sort((a, b) => TROUBLE_FIRST.indexOf(b[0]) - TROUBLE_FIRST.indexOf(a[0]));
}
export function summed(agents) {
  const parts = statuses(agents).map(([status, count]) => `${count.toLocaleString()} ${status}`);
  return `${plural(agents.length, "agent").replace(/^\d+/, (n) => Number(n).toLocaleString())}${parts.length ? `: ${parts.join(", ")}` : ""}`;
}

export const state = (status, text = status) => h("span", { class: `state ${status}` }, text);
export const modelOf = (agent) => modelName(agent.model);

// ---- time ----

export const secondsSince = (iso) => (Date.now() + clock.skew - Date.parse(iso)) / 1000;

export function ago(iso) {
  const seconds = secondsSince(iso);
  return seconds < 3 ? "just now" : `${span(seconds)} ago`;
}

function until(iso) {
  const seconds = Math.round(-secondsSince(iso));
  if (seconds <= 0) return "any moment now";
  return seconds < 60 || seconds >= 600 ? `in ${span(seconds)}` : `in ${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, "0")} s`;
}

// A moment that stays true: `tick` says it anew every second, `refresh` when the agent was heard of again.
export function when(iso, { future = false, path } = {}) {
  if (!iso) return h("span", {}, "–");
  const title = new Date(iso).toLocaleString();
  return h("time", { datetime: iso, title, "data-future": future, "data-path": path }, future ? until(iso) : ago(iso));
}

export function tick(root = document) {
  for (const time of root.querySelectorAll("time")) {
    const words = time.hasAttribute("data-future") ? until(time.dateTime) : ago(time.dateTime);
    if (time.textContent !== words) time.textContent = words;
  }
}

export function refresh(root, agent) {
  for (const time of root.querySelectorAll("time[data-path]")) {
    const iso = time.dataset.path.split(".").reduce((at, key) => at?.[key], agent);
    if (!iso || iso === time.dateTime) continue;
    time.dateTime = iso;
    time.title = new Date(iso).toLocaleString();
  }
}
