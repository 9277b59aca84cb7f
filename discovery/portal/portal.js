// The portal: the list of agents, one agent beside it, and a chat with it. No library, no build step.
// Text that came from an agent or a model only ever becomes a text node.

import { change, follow, go, read, toAgent } from "./address.js";
import { Filters } from "./filters.js";
import { chosen } from "./fleet.js";
import { listen } from "./keys.js";
import { List } from "./list.js";
import { showNotices } from "./notices.js";
import { Panel } from "./panel.js";
import { Registry } from "./registry.js";
import { copy, h } from "./render.js";
import { statuses, summed, tick } from "./words.js";

const $ = (id) => document.getElementById(id);
const base = new URL(".", location.href);
const registry = new Registry(base, changed);
const list = new List(document.querySelector("#list > table"));
const filters = new Filters($("filters"));
const panel = new Panel($("panel"), registry);

// Many changes that arrive together are drawn once.
let waiting = false;
function changed() {
  if (waiting) return;
  waiting = true;
  const draw = () => {
    waiting = false;
    render();
  };
  if (document.hidden) setTimeout(draw, 100);
  else requestAnimationFrame(draw);
}

function render() {
  const view = read();
  const agents = [...registry.agents.values()];
  const { shown, counts } = chosen(agents, view);
  const narrowed = Boolean(view.q || Object.keys(view.filters).length);
  showSummary(agents, shown.length, narrowed);
  showNotices(registry);
  if (document.activeElement !== $("search")) $("search").value = view.q;
  $("filters").hidden = !agents.length;
  filters.show(counts, view.filters);
  for (const part of ["list", "panel"]) $(part).classList.toggle("old", Boolean(registry.away));
  $("empty").hidden = !registry.known || agents.length > 0 || Boolean(registry.away);
  $("nothing").hidden = !agents.length || shown.length > 0;
  $("nothing").firstElementChild.textContent = view.q ? `No agent matches “${view.q}”${Object.keys(view.filters).length ? " with these filters" : ""}.` : "No agent matches these filters.";
  for (const button of document.querySelectorAll("[data-sort]")) button.closest("th").setAttribute("aria-sort", button.dataset.sort === view.sort ? "ascending" : "none");
  panel.show(view);
  document.querySelector("main").classList.toggle("split", !$("panel").hidden);
  list.show(shown, { query: view.q, open: view.name });
  tick();
}

function showSummary(agents, count, narrowed) {
  const words = !registry.known ? (registry.away ? `The registry at ${base.host} cannot say: ${registry.away}.` : "Asking the registry…") : summed(agents);
  document.title = registry.known ? words : "Agents";
  const full = narrowed && agents.length ? `${words} · ${count.toLocaleString()} shown` : words;
  if ($("summary").textContent === full) return;
  const links = statuses(agents).map(([status, number], at) => [at ? ", " : ": ", h("a", { href: `#/?status=${encodeURIComponent(status)}` }, `${number.toLocaleString()} ${status}`)]);
  $("summary").replaceChildren(...(registry.known && agents.length ? [words.split(":")[0], ...links.flat(), full.slice(words.length)] : [full]));
}

const search = (q) => {
  $("search").value = q;
  change({ q }, { replace: true });
};

listen({
  filters,
  search,
  focused: () => list.focused,
  move: (step) => list.move(step, read().name),
  open: (name, tab) => go(toAgent(name, tab)),
  close: () => {
    const { name } = read();
    go();
    list.focus(name);
  },
});
$("search").addEventListener("input", () => search($("search").value));
$("clear").addEventListener("click", () => {
  $("search").value = "";
  change({ filters: {}, q: "" });
});
for (const button of document.querySelectorAll("[data-sort]")) button.addEventListener("click", () => change({ sort: button.dataset.sort }));
$("command").textContent = `MYAGENT_DISCOVERY_URL=${base.href.replace(/\/$/, "")} myagent run --config agent.yaml`;
$("copy-command").addEventListener("click", () => copy($("command").textContent, $("copy-command")));
document.addEventListener("click", follow);
addEventListener("hashchange", render);
// Ages move by themselves; what is far from the view is not worth a look.
setInterval(() => {
  if (document.hidden) return;
  tick();
  if (registry.away) showNotices(registry);
}, 1000);
registry.follow();
// Browsers have this for https and for localhost only; elsewhere the page needs the registry to open.
navigator.serviceWorker?.register("portal/worker.js", { scope: "./" }).catch(() => {});
