// What the page of an agent and the portal of discovery have in common, word for word; a test compares the two files.
// Text that came from an agent or a model only ever becomes a text node.

export const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

export function h(tag, properties = {}, ...children) {
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

export async function copy(text, button) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy"; // no clipboard on a page that is not secure
  }
  setTimeout(() => (button.textContent = said), 1500);
}

export function pretty(value) {
  if (typeof value !== "string") return JSON.stringify(value, null, 2) ?? "";
  try {
    return JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    return value;
  }
}

export function result(content) {
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

export async function problemOf(response) {
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

// ---- Markdown, as far as answers use it, into nodes ----

export const cellsOf = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

export const isRule = (line) => /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(line || "") && line.includes("-");

export function table(names, lines, note) {
  const figure = names.map((_, at) => lines.length > 0 && lines.every((line) => /^[-+£$€]?\s?[\d.,]+\s?%?$|^$/.test(line[at] ?? "")));
  const kind = (text, at) => (figure[at] ? "figure" : (text ?? "").length < 13 ? "short" : null);
  const cell = (tag, text, at) => h(tag, { class: kind(text, at) }, ...(tag === "td" ? inline(text ?? "") : [text]));
  return h("div", { class: "rows", tabindex: 0 }, h("table", {}, h("thead", {}, h("tr", {}, names.map((name, at) => cell("th", name, at)))), h("tbody", {}, lines.map((line) => h("tr", {}, names.map((_, at) => cell("td", line[at], at)))))), note ? h("p", { class: "quiet" }, note) : null);
}

export function markdown(text) {
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

export function inline(text) {
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

export const words = (data) => (typeof data === "string" ? data : data.text ?? data.content ?? data.delta ?? (Array.isArray(data.steps) ? data.steps.map((step, at) => `${at + 1}. ${typeof step === "string" ? step : words(step)}`).join("\n") : pretty(data)));

export const BUILT_IN = "The built-in model answers. It is small: it needs no key and no download, is good for trying things out, and will get harder questions wrong. Give the agent a larger model for real work.";

export const isBuiltIn = (model) => /^(local|builtin|built-in|embedded)(\/|$)/i.test(modelName(model));

export const modelName = (model) => (!model ? "" : typeof model === "string" ? model : [model.provider, model.name].filter(Boolean).join("/"));

export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
}

export function parsed(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : { text: String(value) };
  } catch {
    return { text };
  }
}
