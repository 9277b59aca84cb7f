// Blast radius: who uses this model, this tool, this MCP server, how they are, and whom to tell.

import { toAgent, toFilter } from "./address.js";
import { USES, registeredAs, trouble, users } from "./fleet.js";
import { h, plural } from "./render.js";
import { takes } from "./tools.js";
import { state, summed, toolName } from "./words.js";

export function uses({ kind, name }, agents) {
  const using = users(agents, kind, name);
  const server = kind === "mcp" && registeredAs(agents, name);
  const owners = counted(using.map((agent) => agent.owner || "nobody named"));
  return h(
    "div",
    { class: "body" },
    h("p", {}, using.length ? h("strong", {}, summed(using)) : `No agent says that it uses this ${USES[kind]}.`),
    using.length > 0 && h("p", { class: "quiet" }, "They are hit when it fails or changes. Whom to tell: ", owners.map(([owner, count]) => `${owner} (${count})`).join(", "), "."),
    server && h("p", {}, "It is registered itself: ", state(server.status), " ", h("a", { href: toAgent(server.name) }, server.name)),
    using.length > 0 && h("p", {}, h("a", { class: "button", href: toFilter(kind, name) }, `Show only ${using.length === 1 ? "it" : `these ${using.length}`} in the list`)),
    kind === "tool" ? contracts(name, using) : items(using),
  );
}

const counted = (words) => [...words.reduce((counts, word) => counts.set(word, (counts.get(word) || 0) + 1), new Map())].sort((a, b) => b[1] - a[1]);

function items(agents) {
  const item = (agent) => {
    const why = trouble(agent).words;
    return h("li", {}, state(agent.status), " ", h("a", { href: toAgent(agent.name) }, agent.name), h("span", { class: "quiet" }, ` ${agent.version}${agent.owner ? ` · ${agent.owner}` : ""}`), why && h("div", { class: "quiet" }, why));
  };
  return h("ul", { class: "plain agents" }, agents.map(item));
}

// One name may stand for different contracts: each with its agents, the most common one first.
function contracts(name, using) {
  const groups = new Map();
  for (const agent of using) {
    const tool = agent.tools.find((one) => toolName(one) === name);
    const key = JSON.stringify(tool.input_schema ?? null);
    if (!groups.has(key)) groups.set(key, { tool, agents: [] });
    groups.get(key).agents.push(agent);
  }
  const sorted = [...groups.values()].sort((a, b) => b.agents.length - a.agents.length);
  const many = sorted.length > 1;
  const group = ({ tool, agents }, at) => [
    many && h("h3", {}, `Contract ${at + 1}: ${plural(agents.length, "agent")}`),
    tool.description && h("p", { class: "quiet" }, tool.description),
    takes(tool, `contract ${at}`),
    items(agents),
  ];
  return h("div", {}, many && h("p", { class: "advice" }, `${sorted.length} different contracts go by this name.`), ...sorted.map(group));
}
