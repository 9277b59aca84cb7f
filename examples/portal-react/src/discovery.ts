// A client of the registry, without React: reads `GET /agents` once, then applies the events of `GET /events`.

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

/** `live`: the list is current. `stale`: it was current at `updatedAt`, and `problem` is the reason that it may be outdated. */
export interface Fleet {
  state: "loading" | "live" | "stale";
  agents: Agent[];
  updatedAt: number | null;
  problem: string | null;
}

interface Change {
  revision: number;
  name: string;
  agent: Agent | null;
}

const CHANGES = ["registered", "updated", "status", "removed", "conflict"];
const RETRY_MS = 3000;

export const INITIAL_FLEET: Fleet = { state: "loading", agents: [], updatedAt: null, problem: null };

/** Calls `onChange` with the fleet after every change, until the returned function is called. */
export function watch(url: string, onChange: (fleet: Fleet) => void): () => void {
  let fleet = INITIAL_FLEET;
  let revision = 0;
  let pendingLists = 0; // requests for the list that are not answered yet
  const queue: Change[] = []; // events that arrived meanwhile: the list may be older than they are
  let events: EventSource | undefined;
  let retry: ReturnType<typeof setTimeout> | undefined;
  const stopped = new AbortController();

  const show = (next: Partial<Fleet>) => {
    if (!stopped.signal.aborted) onChange((fleet = { ...fleet, ...next }));
  };

  async function loadList() {
    const signal = AbortSignal.any([stopped.signal, AbortSignal.timeout(5000)]);
    pendingLists += 1;
    try {
      const response = await fetch(`${url}/agents`, { signal });
      if (!response.ok) throw new Error(`it responded with ${response.status}`);
      const agents = (await response.json()) as Agent[];
      revision = Number(response.headers.get("x-registry-revision"));
      show({ state: "live", agents, updatedAt: Date.now(), problem: null });
    } finally {
      pendingLists -= 1;
      if (pendingLists === 0) queue.splice(0).forEach(apply);
    }
  }

  function apply(change: Change) {
    if (pendingLists > 0) {
      queue.push(change);
      return;
    }
    if (change.revision <= revision) return; // already in the list
    revision = change.revision;
    const others = fleet.agents.filter((agent) => agent.name !== change.name);
    const agents = change.agent ? [...others, change.agent].sort((a, b) => (a.name < b.name ? -1 : 1)) : others;
    show({ state: "live", agents, updatedAt: Date.now(), problem: null });
  }

  function fail(error: Error) {
    const unreachable = error.name === "TypeError"; // a browser gives no more detail, also if the registry does not allow this origin
    show({ state: "stale", problem: unreachable ? "it does not respond, or does not allow this page (DISCOVERY_CORS_ORIGINS)" : error.message });
    scheduleRetry();
  }

  function scheduleRetry() {
    events?.close();
    clearTimeout(retry);
    retry = setTimeout(start, RETRY_MS);
  }

  function start() {
    // The list comes first, so that the page works even if streams are blocked; it then reads the list periodically.
    loadList().then(openEvents).catch(fail);
  }

  function openEvents() {
    if (stopped.signal.aborted) return;
    events = new EventSource(`${url}/events`);
    events.addEventListener("reset", () => void loadList().catch(fail));
    for (const kind of CHANGES) {
      events.addEventListener(kind, ({ data }: MessageEvent<string>) => apply(JSON.parse(data) as Change));
    }
    events.onerror = scheduleRetry;
  }

  start();
  return () => {
    stopped.abort();
    clearTimeout(retry);
    events?.close();
  };
}
