import { memo } from "react";
import type { Agent } from "./discovery";
import { StatusBadge } from "./StatusBadge";

export function AgentTable({ agents, stale }: { agents: Agent[]; stale: boolean }) {
  return (
    <table className={stale ? "stale" : undefined}>
      <thead>
        <tr>
          <th scope="col">Status</th>
          <th scope="col">Name</th>
          <th scope="col">Version</th>
          <th scope="col">Tools</th>
          <th scope="col">Owner</th>
        </tr>
      </thead>
      <tbody>
        {agents.map((agent) => (
          <Row key={agent.name} agent={agent} />
        ))}
      </tbody>
    </table>
  );
}

// An event replaces one agent's object, so only its row is rendered again.
const Row = memo(function Row({ agent }: { agent: Agent }) {
  return (
    <tr>
      <td>
        <StatusBadge status={agent.status} reason={agent.status_reason} />
      </td>
      <td>
        <strong>{agent.name}</strong>
        <small>{agent.description ?? agent.agent_type}</small>
      </td>
      <td>{agent.version}</td>
      <td>{agent.tools.length}</td>
      <td>{agent.owner ?? "–"}</td>
    </tr>
  );
});
