// The registry, without React: read `GET /agents` once, then fold what `GET /events` says into it.

export interface Agent {
  name: string;
  endpoint: string;
  version: string;
  agent_type: string;
  status: string;
  status_reason?: string | null;
  description?: string | null;
  owner?: string | null;
  last_seen?: string | null;
  tools: (string | { name: string; description?: string | null })[];
}

/** `live`: the list is true now. `stale`: it was true at `heard`, and `problem` says why it may not be any more. */
export interface Fleet {
  state: "loading" | "live" | "stale";
  agents: Agent[];
  heard: number | null;
  problem: string | null;
}

interface Change {
  revision: number;
  name: string;
  agent: Agent | null;
}

const CHANGES = ["registered", "updated", "status", "removed", "conflict"];
const RETRY_MS = 3000;

export const nothingYet: Fleet = { state: "loading", agents: [], heard: null, problem: null };

/** Calls `changed` with the fleet after every change, until the returned function is called. */
export function watch(url: string, changed: (fleet: Fleet) => void): () => void {
  let fleet = nothingYet;
  let revision = 0;
  let reading = 0; // lists that are on their way
  const later: Change[] = []; // what came meanwhile: a list may be older than it
  let events: EventSource | undefined;
  let retry: ReturnType<typeof setTimeout> | undefined;
  const stopped = new AbortController();

  const show = (next: Partial<Fleet>) => {
    if (!stopped.signal.aborted) changed((fleet = { ...fleet, ...next }));
  };

  async function list() {
    const signal = AbortSignal.any([stopped.signal, AbortSignal.timeout(5000)]);
    reading += 1;
    try {
      const response = await fetch(`${url}/agents`, { signal });
      if (!response.ok) throw new Error(`it answered ${response.status}`);
      const agents = (await response.json()) as Agent[];
      revision = Number(response.headers.get("x-registry-revision"));
      show({ state: "live", agents, heard: Date.now(), problem: null });
    } finally {
      reading -= 1;
      if (reading === 0) later.splice(0).forEach(fold);
    }
  }

  function fold(change: Change) {
    if (reading > 0) {
      later.push(change);
      return;
    }
    if (change.revision <= revision) return; // the list knew it already
    revision = change.revision;
    const others = fleet.agents.filter((agent) => agent.name !== change.name);
    const agents = change.agent ? [...others, change.agent].sort((a, b) => (a.name < b.name ? -1 : 1)) : others;
    show({ state: "live", agents, heard: Date.now(), problem: null });
  }

  function lost(error: Error) {
    const unreachable = error.name === "TypeError"; // all that a browser says, also where the registry refuses this origin
    show({ state: "stale", problem: unreachable ? "it does not answer, or does not allow this page (DISCOVERY_CORS_ORIGINS)" : error.message });
    again();
  }

  function again() {
    events?.close();
    clearTimeout(retry);
    retry = setTimeout(start, RETRY_MS);
  }

  function start() {
    // The list comes first, so that there is one even where streams are blocked; then it is simply read again and again.
    list().then(follow).catch(lost);
  }

  function follow() {
    if (stopped.signal.aborted) return;
    events = new EventSource(`${url}/events`);
    events.addEventListener("reset", () => void list().catch(lost));
    for (const kind of CHANGES) {
      events.addEventListener(kind, ({ data }: MessageEvent<string>) => fold(JSON.parse(data) as Change));
    }
    events.onerror = again;
  }

  start();
  return () => {
    stopped.abort();
    clearTimeout(retry);
    events?.close();
  };
}
