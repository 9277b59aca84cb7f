// Tools and what they take, said in words; the JSON Schema itself is folded under them.

import { toUses } from "./address.js";
import { users } from "./fleet.js";
import { h } from "./render.js";
import { toolName } from "./words.js";

const DEEPEST = 4;

export function toolItem(tool, agents) {
  const name = toolName(tool);
  const others = users(agents, "tool", name).length - 1;
  const also = others > 0 && h("span", { class: "quiet" }, ` · ${others} more ${others === 1 ? "agent has" : "agents have"} it`);
  return h("li", {}, h("a", { href: toUses("tool", name) }, h("code", {}, name)), also, tool.description && h("div", { class: "quiet" }, tool.description), takes(tool));
}

// What a tool takes: its arguments in one line, and each of them under it.
export function takes(tool, key = toolName(tool)) {
  const schema = tool.input_schema;
  if (!schema) return null;
  const names = Object.keys(schema.properties || {});
  if (!names.length) return h("div", { class: "quiet" }, "takes no arguments");
  const required = new Set(schema.required);
  const line = names.map((name) => (required.has(name) ? name : `${name}?`)).join(", ");
  const raw = h("details", { "data-key": `json ${key}` }, h("summary", { class: "quiet" }, "as JSON Schema"), h("pre", {}, JSON.stringify(schema, null, 2)));
  return h("details", { "data-key": `takes ${key}` }, h("summary", { class: "quiet" }, "takes ", h("code", {}, line)), fields(schema, schema, 1), raw);
}

function fields(schema, root, depth) {
  const required = new Set(schema.required);
  const item = ([name, said]) => {
    const one = resolved(said, root);
    const inner = one.type === "array" ? resolved(one.items, root) : one;
    return h(
      "li",
      {},
      h("code", {}, name),
      ` ${typeOf(one, root)}${required.has(name) ? "" : ", optional"}${one.default === undefined || one.default === null ? "" : `, else ${JSON.stringify(one.default)}`}`,
      one.description && h("div", { class: "quiet" }, one.description),
      inner.properties && depth < DEEPEST ? fields(inner, root, depth + 1) : null,
    );
  };
  return h("ul", { class: "fields" }, Object.entries(schema.properties).map(item));
}

// A reference into the schema's own definitions, as far as it can be followed.
function resolved(schema, root, depth = 0) {
  const path = typeof schema?.$ref === "string" && schema.$ref.startsWith("#/") && schema.$ref.slice(2).split("/");
  if (!path || depth >= DEEPEST) return schema !== null && typeof schema === "object" ? schema : {};
  const target = path.reduce((at, key) => at?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], root);
  return resolved({ ...target, ...schema, $ref: target?.$ref }, root, depth + 1);
}

function typeOf(schema, root, depth = 0) {
  if (depth > DEEPEST) return "…";
  const inner = (one) => typeOf(resolved(one, root), root, depth + 1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return `one of ${schema.enum.map((value) => JSON.stringify(value)).join(", ")}`;
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return [...new Set(choices.map(inner))].join(" or ");
  if (schema.type === "array") return schema.items ? `list of ${inner(schema.items)}` : "list";
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type || (schema.properties ? "object" : "anything");
  const bounds = [["minimum", "at least"], ["maximum", "at most"], ["minLength", "at least"], ["maxLength", "at most"]];
  const said = bounds.filter(([key]) => schema[key] !== undefined).map(([key, word]) => ` ${word} ${schema[key]}${key.endsWith("Length") ? " characters" : ""}`);
  return `${type}${schema.format ? ` (${schema.format})` : ""}${said.join(",")}`;
}
