// The address bar holds what is looked at, so that a view can be sent to a colleague and Back goes back:
// #/agents/NAME/history?status=down&status=stale&q=refund&sort=name

import { FACETS, SORTED_BY, USES } from "./fleet.js";

const TABS = ["history", "chat"];

// A link without a `?` keeps the filters that are set.
export const toAgent = (name, tab) => `#/agents/${encodeURIComponent(name)}${tab ? `/${tab}` : ""}`;
export const toUses = (kind, name) => `#/uses/${kind}/${encodeURIComponent(name)}`;
export const toFilter = (key, value) => `#/?${new URLSearchParams([[key, value]])}`;
export const toAll = () => "#/?";

export function read(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  const asked = new URLSearchParams(query);
  const filters = {};
  for (const { key } of FACETS) if (asked.has(key)) filters[key] = asked.getAll(key);
  const sort = SORTED_BY.includes(asked.get("sort")) ? asked.get("sort") : SORTED_BY[0];
  return { ...viewed(path), path, filters, sort, q: asked.get("q") || "" };
}

function viewed(path) {
  try {
    const [, first, ...rest] = path.split("/").map(decodeURIComponent);
    if (first === "agents" && rest[0]) return { name: rest[0], tab: TABS.includes(rest[1]) ? rest[1] : "details" };
    if (first === "uses" && rest[0] in USES && rest[1]) return { uses: { kind: rest[0], name: rest[1] } };
  } catch {
    // Not percent-encoded as it should be: no view.
  }
  return {};
}

// Change some of it. What is typed letter by letter replaces the entry, or Back would go letter by letter.
export function change({ filters, q, sort }, { replace = false } = {}) {
  const now = read();
  const next = { filters: filters ?? now.filters, q: q ?? now.q, sort: sort ?? now.sort };
  const query = new URLSearchParams(FACETS.flatMap(({ key }) => (next.filters[key] || []).map((value) => [key, value])));
  if (next.q) query.set("q", next.q);
  if (next.sort !== SORTED_BY[0]) query.set("sort", next.sort);
  const hash = `#${now.path || "/"}${query.size ? `?${query}` : ""}`;
  if (hash === location.hash) return;
  if (replace) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function go(to = "#/") {
  const query = location.hash.split("?")[1];
  location.hash = to.includes("?") || !query ? to : `${to}?${query}`;
}

// Links of the page go through `go`, those that open elsewhere (a new tab, say) do not.
export function follow(event) {
  const link = event.target.closest?.("a[href^='#/']");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
}
