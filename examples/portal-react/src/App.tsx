import { useDeferredValue, useState } from "react";
import { AgentTable } from "./AgentTable";
import type { Agent } from "./discovery";
import { useFleet } from "./useFleet";

const DISCOVERY_URL = (import.meta.env.VITE_DISCOVERY_URL ?? "http://127.0.0.1:9000").replace(/\/$/, "");

export function App() {
  const { state, agents, heard, problem } = useFleet(DISCOVERY_URL);
  const [query, setQuery] = useState("");
  const wanted = useDeferredValue(query).toLowerCase();
  const shown = agents.filter((agent) => text(agent).includes(wanted));

  return (
    <>
      <header>
        <h1>Our agents</h1>
        <p role="status">{state === "loading" ? "Asking the registry…" : `${shown.length} of ${agents.length}`}</p>
        <input type="search" placeholder="Search" aria-label="Search agents" value={query} onChange={(event) => setQuery(event.target.value)} />
      </header>
      {problem && (
        <p role="alert" className="problem">
          The registry at {DISCOVERY_URL} is away: {problem}.{" "}
          {heard ? `This is its list of ${new Date(heard).toLocaleTimeString()}.` : "It is asked again every few seconds."}
        </p>
      )}
      {state === "live" && agents.length === 0 && <p className="empty">No agents yet. Start one, and it appears here by itself.</p>}
      {agents.length > 0 && <AgentTable agents={shown} stale={state === "stale"} />}
    </>
  );
}

function text({ name, description, owner, tools }: Agent): string {
  const names = tools.map((tool) => (typeof tool === "string" ? tool : tool.name));
  return [name, description, owner, ...names].join(" ").toLowerCase();
}
