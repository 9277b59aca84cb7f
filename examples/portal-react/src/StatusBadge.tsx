// Status is shown as text and shape, not only as a colour.
const SHAPES: Record<string, string> = { up: "●", registered: "○", degraded: "◐", draining: "▽", stale: "▲", down: "■" };

export function StatusBadge({ status, reason }: { status: string; reason?: string | null }) {
  return (
    <span className={`status ${status}`} title={reason ?? undefined}>
      <span aria-hidden="true">{SHAPES[status] ?? "?"}</span> {status}
    </span>
  );
}
