// All about one agent: how it is and why, what is wrong and whose turn it is, what it is, what it can do.

import { toAgent, toFilter, toUses } from "./address.js";
import { endpoint, heartbeat, registeredAs, serverKeys, users } from "./fleet.js";
import { BUILT_IN, h, isBuiltIn, plural, pretty } from "./render.js";
import { toolItem } from "./tools.js";
import { ago, capital, modelOf, serversOf, state, webLink, when } from "./words.js";

const MANY_TOOLS = 12;

// `lately` is the element with the newest changes; `probe` whether the registry asks endpoints at all.
export function details(agent, { agents, lately, probe, guard }) {
  const body = h("div", { class: "body" });
  body.append(
    ...present([
      agent.description && h("p", {}, agent.description),
      standing(agent, probe, guard),
      isBuiltIn(agent.model) && h("p", { class: "honest" }, BUILT_IN),
      section("conflict", "Two processes claim this name", agent.conflict && conflict(agent)),
      section("checks", "Its own checks", checks(agent)),
      section("changes", "Latest changes", lately),
      section("facts", "About it", facts(agent, agents)),
      section("servers", "MCP servers that it uses", servers(agent, agents)),
      section("users", "Used by", usedBy(agent, agents)),
      section("tools", plural(agent.tools.length, "tool"), tools(agent, agents)),
      section("skills", "Skills", skills(agent)),
      section("instances", plural((agent.instances || []).length, "instance"), instances(agent)),
      section("metadata", "Metadata", metadata(agent)),
    ]),
  );
  return body;
}

const present = (items) => items.flat().filter(Boolean);
const list = (items) => h("ul", { class: "plain" }, items);
const section = (key, title, content) => content && h("section", { "data-part": key }, h("h3", {}, title), content);

// ---- how it is, why, and what comes next ----

function standing(agent, probe, guard) {
  const next = agent.next_transition_at && { stale: "down", down: "removed" }[agent.status];
  const then = next || "stale";
  const held = guard && heartbeat(agent) === "lost" && " It is held: while so many are silent at once, nothing is removed.";
  return h(
    "div",
    { class: `standing ${agent.status}`, "data-part": "standing" },
    h("p", { class: "reason" }, state(agent.status), ` ${agent.status_reason || ""}${agent.since ? " · " : ""}`, agent.since && h("span", { class: "quiet" }, "since ", when(agent.since, { path: "since" }))),
    agent.next_transition_at && h("p", { class: "quiet" }, next ? "Becomes " : "If it stays silent: ", h("strong", {}, then), " ", when(agent.next_transition_at, { future: true, path: "next_transition_at" }), next ? " unless it is heard of." : "."),
    h("div", { class: "signs" }, sign("Heartbeat", ...beat(agent)), sign("Endpoint", ...reached(agent, probe))),
    advice(agent, held),
  );
}

const sign = (word, mark, ...said) => h("p", {}, h("span", { class: "quiet" }, word), h("span", { class: `mark ${mark}` }, { good: "✓", bad: "✗", none: "–" }[mark]), h("span", {}, ...said));

function beat(agent) {
  const seen = when(agent.last_seen, { path: "last_seen" });
  if (heartbeat(agent) === "lost") return ["bad", h("strong", {}, "lost"), ", last heard ", seen];
  if (heartbeat(agent) === "none") return ["none", "sends none; registered or last heard ", seen];
  return ["good", "fine, last heard ", seen];
}

function reached(agent, probe) {
  const { reachability } = agent;
  if (!reachability) return ["none", probe ? "not asked yet" : "not asked: this registry does not probe endpoints (DISCOVERY_PROBE=on)"];
  const asked = [", asked ", when(reachability.checked_at, { path: "reachability.checked_at" })];
  const found = endpoint(agent);
  if (found === "unknown") return ["none", reachability.reason];
  if (found !== "fine") return ["bad", h("strong", {}, found), `: ${reachability.reason}`, ...asked];
  return ["good", `${reachability.reason}${reachability.latency_ms === null ? "" : `, in ${Math.round(reachability.latency_ms)} ms`}`, ...asked];
}

// The two faults are different faults, and different people mend them.
const ADVICE = {
  "lost fine": "It works, and callers reach it; it does not reach this registry. Look at its way here: its discovery.url and token, its log, the network between them.",
  "lost refused": "Most likely the process has ended or its machine is away. Look there first, and at what was changed last.",
  "lost faulty": "Something answers there, but not as this agent would: another program may have taken its port.",
  "lost unknown": "Is the process running, and does it reach this registry?",
  "fine refused": "It runs and reports, but nobody reaches it. Look at the address that it announces (server.service_url), its port, and the firewall before it.",
  "fine faulty": "It runs and answers, but not in a protocol that it says it speaks. Look at its log, and at what stands between it and its callers.",
  "none refused": "Nobody reaches it, and it sends no heartbeats that would say whether it still runs. Look for its process first.",
  "none faulty": "Something answers there, but not in a protocol that the agent says it speaks. Look at its log.",
};
const BEATS = { fine: "Heartbeat fine", lost: "Heartbeat lost", none: "No heartbeats" };

function advice(agent, held) {
  const [beats, there] = [heartbeat(agent), endpoint(agent)];
  const words = ADVICE[`${beats} ${there}`];
  if (!words && !held) return null;
  const fault = [BEATS[beats], there !== "unknown" && `endpoint ${there}`].filter(Boolean).join(", ");
  return h("p", { class: "advice" }, words && [h("strong", {}, `${fault}.`), ` ${words}`], held);
}

function conflict(agent) {
  const winner = (agent.instances || []).find((one) => one.conflict) || agent;
  const side = (one, word) => h("li", {}, h("strong", {}, word), " ", webLink(one.endpoint), h("div", { class: "quiet" }, "process ", h("code", {}, one.boot_id || "unnamed"), ", last heard ", when(one.last_seen)));
  return [
    list([side(winner, "Shown:"), side(winner.conflict, "Also running:")]),
    h("p", { class: "advice" }, "The newest process wins. Stop the other one, or give each an instance_id of its own if both are meant to run."),
  ];
}

function checks(agent) {
  const found = (agent.instances || []).flatMap((instance) => (instance.checks || []).map((check) => ({ ...check, instance })));
  if (!found.length) return null;
  const many = agent.instances.length > 1;
  return list(found.map((check) => h("li", {}, state(check.ok ? "up" : "down", check.ok ? "ok" : "failing"), ` ${check.name}${check.reason ? `: ${check.reason}` : ""}`, many && h("span", { class: "quiet" }, ` · ${check.instance.instance_id}`))));
}

// ---- what it is ----

function facts(agent, agents) {
  const rows = h("dl");
  const fact = (word, ...value) => present(value).length && rows.append(h("dt", {}, word), h("dd", {}, ...present(value)));
  const model = modelOf(agent);
  const filter = (key, value) => h("a", { href: toFilter(key, value), title: `Only these in the list` }, value);
  fact("Address", webLink(agent.endpoint));
  fact("For browsers", agent.public_endpoint && webLink(agent.public_endpoint));
  fact("Type", filter("type", agent.agent_type));
  fact("Version", agent.version);
  fact("Model", model && h("a", { href: toUses("model", model) }, model), model && h("span", { class: "quiet" }, ` · ${plural(users(agents, "model", model).length, "agent")} on it`));
  fact("Owner", agent.owner && filter("owner", agent.owner));
  fact("Tags", ...(agent.tags || []).flatMap((tag, at) => [at > 0 && ", ", filter("tag", tag)]));
  fact("Speaks", (agent.protocols || []).join(", "));
  for (const [word, url] of Object.entries(agent.links || {})) fact(capital(word), url && webLink(url));
  fact("Configuration", agent.config_fingerprint && h("code", {}, agent.config_fingerprint));
  return rows;
}

function servers(agent, agents) {
  const used = serversOf(agent);
  if (!used.length) return null;
  return list(
    used.map(({ name, url, key }) => {
      const known = registeredAs(agents, key);
      return h("li", {}, h("a", { href: toUses("mcp", key) }, name), url ? ` ${url}` : "", h("span", { class: "quiet" }, ` · ${plural(users(agents, "mcp", key).length, "agent")} on it`), known && [" ", state(known.status)]);
    }),
  );
}

function usedBy(agent, agents) {
  if (agent.agent_type !== "mcp_server") return null;
  const using = serverKeys(agents, agent).flatMap((key) => users(agents, "mcp", key));
  if (!using.length) return h("p", { class: "quiet" }, "No registered agent says that it uses this server.");
  return list([...new Set(using)].map((one) => h("li", {}, state(one.status), " ", h("a", { href: toAgent(one.name) }, one.name), h("span", { class: "quiet" }, one.owner ? ` · ${one.owner}` : ""))));
}

function tools(agent, agents) {
  if (!agent.tools.length) return h("p", { class: "quiet" }, "It answers without tools.");
  const items = agent.tools.map((tool) => toolItem(tool, agents));
  if (items.length <= MANY_TOOLS) return list(items);
  const rest = items.splice(MANY_TOOLS);
  return [list(items), h("details", { "data-key": "tools" }, h("summary", { class: "quiet" }, `and ${rest.length} more`), list(rest))];
}

function skills(agent) {
  const items = (agent.skills || []).map((skill) => (typeof skill === "string" ? { name: skill } : skill));
  return items.length ? list(items.map((skill) => h("li", {}, skill.name, h("span", { class: "quiet" }, skill.description ? ` ${skill.description}` : "")))) : null;
}

function instances(agent) {
  const item = (one, at) =>
    h(
      "li",
      {},
      h("div", {}, state(one.status), " ", h("strong", {}, one.instance_id), ` · ${one.version} · `, webLink(one.endpoint)),
      h("div", { class: "quiet" }, one.status_reason || "", one.last_seen && [" · last heard ", when(one.last_seen, { path: `instances.${at}.last_seen` })]),
      ["refused", "faulty"].includes(endpoint(one)) && h("div", { class: "wrong" }, `endpoint ${endpoint(one)}: ${one.reachability.reason}`),
      one.conflict && h("div", { class: "wrong" }, `another process claims it: ${one.conflict.endpoint}`),
      h("div", { class: "quiet" }, present([one.boot_id && `process ${one.boot_id}`, one.ttl_seconds && `lease ${one.ttl_seconds} s`, one.observed_address && `seen from ${one.observed_address}`, one.registered_at && `registered ${ago(one.registered_at)}`]).join(" · ")),
    );
  return agent.instances?.length ? list(agent.instances.map(item)) : null;
}

function metadata(agent) {
  const entries = Object.entries(agent.metadata || {}).filter(([key]) => key !== "mcp_servers");
  if (!entries.length) return null;
  const value = (what) => (what !== null && typeof what === "object" ? h("pre", {}, pretty(what)) : webLink(String(what)));
  return h("dl", {}, entries.flatMap(([key, what]) => [h("dt", {}, key), h("dd", {}, value(what))]));
}
