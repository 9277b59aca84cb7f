import { useDeferredValue, useState } from "react";
import { AgentTable } from "./AgentTable";
import type { Agent } from "./discovery";
import { useFleet } from "./useFleet";

const DISCOVERY_URL = (import.meta.env.VITE_DISCOVERY_URL ?? "http://127.0.0.1:9000").replace(/\/$/, "");

export function App() {
  const { state, agents, updatedAt, problem } = useFleet(DISCOVERY_URL);
  const [query, setQuery] = useState("");
  const searched = useDeferredValue(query).toLowerCase();
  const shown = agents.filter((agent) => text(agent).includes(searched));

  return (
    <>
      <header>
        <h1>Our agents</h1>
        <p role="status">{state === "loading" ? "Loading…" : `${shown.length} of ${agents.length}`}</p>
        <input type="search" placeholder="Search" aria-label="Search agents" value={query} onChange={(event) => setQuery(event.target.value)} />
      </header>
      {problem && (
        <p role="alert" className="problem">
          The registry at {DISCOVERY_URL} is not available: {problem}.{" "}
          {updatedAt ? `The list is from ${new Date(updatedAt).toLocaleTimeString()}.` : "The page tries again every few seconds."}
        </p>
      )}
      {state === "live" && agents.length === 0 && <p className="empty">No agents yet. Start one, and it appears here.</p>}
      {agents.length > 0 && <AgentTable agents={shown} stale={state === "stale"} />}
    </>
  );
}

function text({ name, description, owner, tools }: Agent): string {
  const names = tools.map((tool) => (typeof tool === "string" ? tool : tool.name));
  return [name, description, owner, ...names].join(" ").toLowerCase();
}
