// What can be said of a list of agents: what is wrong, which match, how many of each kind, who uses what. Pure.

import { modelOf, serversOf, toolName } from "./words.js";

// ---- what is wrong, and how urgent that is ----

// The two signs of life, told apart: what an agent says of itself, and what answers at its address.
export const heartbeat = (one) => (one.status === "stale" || one.status === "down" ? "lost" : one.status === "registered" ? "none" : "fine");
export function endpoint({ reachability }) {
  if (!reachability || /^not called/.test(reachability.reason)) return "unknown"; // the registry may not call every address
  if (reachability.ok) return "fine";
  return reachability.latency_ms === null ? "refused" : "faulty"; // nobody there, or one who answers wrongly
}
const unreached = (one) => ["refused", "faulty"].includes(endpoint(one));

const URGENCY = { down: 0, stale: 1, degraded: 4, draining: 5 };
const CALM = 9;

// The most urgent thing about an agent: `rank` sorts it, `words` say it in a line.
export function trouble(agent) {
  const silent = heartbeat(agent) === "lost";
  if (silent) return { rank: URGENCY[agent.status], words: agent.status_reason + (endpoint(agent) === "fine" ? "; its endpoint still answers" : "") };
  if (agent.conflict) return { rank: 2, words: "two processes claim this name" };
  if (unreached(agent)) return { rank: 3, words: `endpoint ${endpoint(agent)}: ${agent.reachability.reason}` };
  if (agent.status in URGENCY) return { rank: URGENCY[agent.status], words: agent.status_reason || "" };
  const instances = agent.instances || [];
  const unwell = instances.filter((one) => heartbeat(one) === "lost" || unreached(one) || one.conflict);
  return unwell.length ? { rank: 6, words: `${unwell.length} of ${instances.length} instances unwell` } : { rank: CALM, words: "" };
}

// The same in a word or two, where the status does not say it.
export function fault(agent) {
  if (agent.conflict) return "conflict";
  return heartbeat(agent) !== "lost" && unreached(agent) ? `endpoint ${endpoint(agent)}` : "";
}

// ---- filters ----

export const FACETS = [
  { key: "status", word: "Status", of: (agent) => [agent.status] },
  { key: "type", word: "Type", of: (agent) => [agent.agent_type] },
  { key: "owner", word: "Owner", of: (agent) => (agent.owner ? [agent.owner] : []) },
  { key: "tag", word: "Tag", of: (agent) => agent.tags || [] },
  { key: "tool", word: "Tool", of: (agent) => agent.tools.map(toolName) },
  { key: "model", word: "Model", of: (agent) => (agent.model ? [modelOf(agent)] : []) },
  { key: "mcp", word: "MCP server", of: (agent) => serversOf(agent).map((server) => server.key) },
];

const texts = new WeakMap(); // agent → its lines, in lower case
const folded = (text) => text.normalize("NFKC").toLowerCase();

function linesOf(agent) {
  if (!texts.has(agent)) {
    const line = (field, ...parts) => ({ field, text: folded(parts.filter(Boolean).join(" ")), said: parts[0] });
    const named = (field, items) => (items || []).map((one) => (typeof one === "string" ? line(field, one) : line(field, one.name, one.description)));
    texts.set(agent, [
      line("", agent.name, agent.description, agent.owner, modelOf(agent), agent.status),
      line("type", agent.agent_type),
      ...(agent.tags || []).map((tag) => line("tag", tag)),
      ...named("tool", agent.tools),
      ...named("skill", agent.skills),
      ...serversOf(agent).map((server) => line("MCP server", server.name, server.url)),
      line("address", agent.endpoint, agent.public_endpoint),
    ]);
  }
  return texts.get(agent);
}

const wordsOf = (query) => folded(query).split(/\s+/).filter(Boolean);
const found = (agent, words) => words.every((word) => linesOf(agent).some((line) => line.text.includes(word)));

// Why an agent was found where its row does not show it: "tool search_orders".
export function matched(agent, query) {
  const [row, ...others] = linesOf(agent);
  const hidden = wordsOf(query).filter((word) => !row.text.includes(word));
  const lines = hidden.map((word) => others.find((line) => line.text.includes(word))).filter(Boolean);
  return [...new Set(lines.map((line) => `${line.field} ${line.said}`))].join(", ");
}

const SORTS = {
  status: (agent) => trouble(agent).rank,
  name: () => 0,
  model: (agent) => modelOf(agent) || "￿", // those without one come last
  owner: (agent) => agent.owner || "￿",
};
export const SORTED_BY = Object.keys(SORTS);

// The agents that all filters hold for, in order, and for each filter how many a value would leave.
export function chosen(agents, { filters, q, sort }) {
  const words = wordsOf(q);
  const asked = FACETS.filter(({ key }) => filters[key]?.length);
  const counts = Object.fromEntries(FACETS.map(({ key }) => [key, new Map(filters[key]?.map((value) => [value, 0]))]));
  const shown = [];
  for (const agent of agents) {
    if (!found(agent, words)) continue;
    const missed = asked.filter(({ key, of }) => !of(agent).some((value) => filters[key].includes(value)));
    if (!missed.length) shown.push(agent);
    if (missed.length > 1) continue;
    // A filter does not count against its own values: they are alternatives.
    for (const { key, of } of missed.length ? missed : FACETS) {
      for (const value of new Set(of(agent))) counts[key].set(value, (counts[key].get(value) || 0) + 1);
    }
  }
  const by = new Map(shown.map((agent) => [agent, SORTS[sort](agent)]));
  const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  shown.sort((a, b) => order(by.get(a), by.get(b)) || order(a.name, b.name));
  return { shown, counts };
}

// ---- who uses what ----

export const USES = { model: "model", tool: "tool", mcp: "MCP server" };

export function users(agents, kind, name) {
  const { of } = FACETS.find(({ key }) => key === kind);
  return agents.filter((agent) => of(agent).includes(name)).sort((a, b) => trouble(a).rank - trouble(b).rank || (a.name < b.name ? -1 : 1));
}

const host = (url) => {
  try {
    return new URL(url).host;
  } catch {
    return "";
  }
};

// The registered agent that is this MCP server, if it is registered at all.
export function registeredAs(agents, key) {
  const answers = (agent) => agent.agent_type === "mcp_server" && (agent.name === key || [agent.endpoint, agent.public_endpoint].some((url) => url && host(url) === key));
  return agents.find(answers);
}

// How an MCP server is named by the agents that use it.
export function serverKeys(agents, server) {
  const keys = new Set(agents.flatMap((agent) => serversOf(agent).map((one) => one.key)));
  return [...keys].filter((key) => registeredAs([server], key));
}
