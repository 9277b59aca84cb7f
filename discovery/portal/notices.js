// What a person must know before reading the list: the registry is away, wants a token, stands open, holds still.

import { h, plural, span } from "./render.js";
import { when } from "./words.js";

const $ = (id) => document.getElementById(id);

export function showNotices(registry) {
  const { health, guard, away, known, locked, heard } = registry;
  const age = span((Date.now() - (heard ?? Date.now())) / 1000);
  notice("away", away && known && !locked && `The registry is away (${away}). This is its list from ${age} ago; it is asked again every few seconds.`, true);
  notice("guard", guard && guarded(guard, registry.agents.size), true, JSON.stringify(guard));
  notice("open", health.open_to_network && "Open to the network: anyone who reaches this machine can read and change this list (DISCOVERY_ALLOW_ANONYMOUS).");
  const broken = (health.checks || []).find((check) => !check.ok);
  notice("storage", broken && `New registrations are refused for now: ${broken.reason || broken.name}`, true);
  token(registry);
}

function guarded({ silent, until }, size) {
  const count = Array.isArray(silent) ? silent.length : silent;
  const said = `Mass silence: ${count ? `${count.toLocaleString()} of ${plural(size, "agent")}` : "many agents"} fell silent at once. Look at the network and the host before the agents.`;
  return [h("strong", {}, said), " They show as stale, and nothing is removed", until ? [" until they are heard of again, or until this ends ", when(until, { future: true }), "."] : " until they are heard of again.", " ", h("a", { href: "#/?status=stale" }, "Show them")].flat();
}

// `basis` is what the content was made from; it is left alone while that stays.
function notice(key, content, bad = false, basis = content) {
  const id = `notice-${key}`;
  const there = $(id);
  if (!content) return void there?.remove();
  if (there?.dataset.basis === basis) return;
  const fresh = h("div", { id, class: bad ? "notice bad" : "notice", role: bad ? "alert" : "note", "data-basis": basis }, ...[content].flat());
  if (!there) return void $("notices")[key === "away" ? "prepend" : "append"](fresh);
  // Replaced in place and without another alert: only its age moved.
  there.replaceChildren(...fresh.childNodes);
  there.dataset.basis = basis;
}

function token(registry) {
  const { locked } = registry;
  $("api").hidden = Boolean(locked || registry.token); // a link sends no token
  const there = $("token");
  if (!locked) return void there?.remove();
  if (there?.locked === locked) return;
  const input = h("input", { type: "password", autocomplete: "off", placeholder: "Read token", "aria-label": "Read token of this registry" });
  const use = (event) => {
    event.preventDefault();
    const given = input.value.trim().replace(/[^\x21-\x7e]/g, "");
    if (given) registry.use(given);
  };
  const words = locked.refused || "This registry shows its list to those who have a read token.";
  const fresh = h("div", { id: "token", class: "notice", role: "note" }, h("p", { role: locked.refused ? "alert" : undefined }, words), h("form", { class: "key", onsubmit: use }, input, h("button", { type: "submit" }, "Use for this visit")));
  fresh.locked = locked;
  there?.remove();
  $("notices").append(fresh);
  input.focus();
}
