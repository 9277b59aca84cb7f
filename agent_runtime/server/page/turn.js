// One question with what became of it: the answer, the steps folded under it, and how it ended.
// The page of an agent and the portal of discovery have this file in common; a test compares the two.

import { copy, h, markdown, parsed, plural, pretty, result, words } from "./render.js";

const MARKS = { pending: "○", done: "✓", failed: "✗" };
const took = (ms) => (ms < 1 ? "under 1 ms" : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

export class Turn {
  constructor(message, { retry, curl }) {
    this.message = message;
    this.text = "";
    this.over = false;
    this.count = 0;
    this.calls = []; // tool calls without a result yet
    this.retry = retry;
    this.curl = curl;
    this.waiting = h("p", { class: "waiting" }, "Working…");
    this.answer = h("div", { class: "answer" }, this.waiting);
    this.label = h("summary", {}, "Steps");
    this.steps = h("details", { class: "steps", open: true, hidden: true }, this.label);
    this.under = h("div", { class: "under" });
    this.element = h("div", { class: "turn" }, h("div", { class: "question" }, message), this.answer, this.steps, this.under);
  }

  take(event, data) {
    if (event === "text") {
      this.text += data.delta || "";
      this.draw();
    } else if (event === "plan") this.plan(data.steps || []);
    else if (event === "thought") this.step("Thought", words(data));
    else if (event === "tool_call") this.call(data);
    else if (event === "tool_result") this.result(data);
    else if (event === "finished") this.finish(data);
    else if (event === "failed") this.fail([`The agent could not answer: ${data.message || words(data)}`, data.hint || ""]);
  }

  plan(steps) {
    const line = (step) => h("li", { class: step.status }, h("span", { class: "mark", "aria-hidden": "true" }, MARKS[step.status] || "○"), ` ${step.text}`, h("span", { class: step.status === "failed" ? "wrong" : "unseen" }, ` ${step.status}`));
    const list = h("ol", { class: "plan" }, steps.map(line));
    if (this.planned) this.planned.replaceWith(list);
    else this.step("Plan", list);
    this.planned = list;
  }

  call(data) {
    const title = h("span", {}, `Calls ${data.name}`);
    this.calls.push({ id: data.call_id, name: data.name, title, since: Date.now(), step: this.step(title, h("pre", {}, pretty(data.arguments))) });
  }

  result(data) {
    const at = this.calls.findIndex((call) => (data.call_id ? call.id === data.call_id : call.name === data.name));
    const call = at < 0 ? null : this.calls.splice(at, 1)[0];
    const name = data.name || call?.name || "a tool";
    const time = data.duration_ms === undefined ? "" : ` in ${took(data.duration_ms)}`;
    if (call) call.title.textContent = `${data.is_error ? "Failed:" : "Called"} ${name}${time}`;
    if (call && data.is_error) call.title.className = "wrong";
    (call ? call.step : this.step(`Result of ${name}`)).append(result(data.content));
  }

  // Once a second: how long what runs has been running.
  tick() {
    for (const call of this.calls) {
      const seconds = Math.floor((Date.now() - call.since) / 1000);
      if (seconds && !this.over) call.title.textContent = `Calls ${call.name}, ${seconds} s so far`;
    }
  }

  step(title, content) {
    this.steps.hidden = false;
    this.count += 1;
    this.label.textContent = plural(this.count, "step");
    const node = h("div", {}, title, content ? (typeof content === "string" ? h("div", { class: "prose" }, content) : content) : null);
    this.steps.append(node);
    return node;
  }

  draw() {
    if (this.frame || this.over) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.text && !this.over) this.answer.replaceChildren(...markdown(this.text));
    });
  }

  say(note) {
    this.under.replaceChildren(...(note ? [note] : []));
  }

  finish(data) {
    if (data.answer !== undefined && data.answer !== null) this.text = String(data.answer);
    const reason = String(data.stop_reason || "finished");
    const stopped = reason === "finished" ? "" : reason === "cancelled" ? "Stopped." : /approv/.test(reason) ? "It waits for an approval." : `It stopped early: ${reason.replaceAll("_", " ")}.`;
    const tokens = (data.usage?.input_tokens ?? 0) + (data.usage?.output_tokens ?? 0);
    this.end([stopped, tokens ? `${tokens.toLocaleString()} tokens` : ""].filter(Boolean).join(" · "));
  }

  end(note) {
    this.over = true;
    this.steps.open = false;
    if (this.text) this.answer.replaceChildren(...markdown(this.text));
    else if (this.waiting.isConnected) this.waiting.replaceWith(h("p", { class: "quiet" }, note ? "No answer." : "It answered with nothing."));
    const button = h("button", { type: "button" }, "Copy as curl");
    button.addEventListener("click", () => copy(this.curl(), button));
    const again = this.retry && h("button", { type: "button", class: "retry", onclick: this.retry }, "Ask again");
    this.under.replaceChildren(...(note ? [note] : []), ...(again ? [again] : []), button);
  }

  fail([what, then], form) {
    this.end("");
    if (!this.text) this.answer.replaceChildren();
    this.answer.append(h("div", { class: "notice bad", role: "alert" }, h("p", {}, what), then ? h("p", { class: "quiet" }, then) : null, form));
  }
}

// Every event until the connection ends or breaks; which of the two it was, the last event tells.
export async function* serverSentEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      if (done) return;
      const blocks = (rest + value).replace(/\r\n|\r(?!$)/g, "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = { event: "message", data: [] };
        for (const line of block.split("\n")) {
          const [, name, value] = /^(\w+): ?(.*)$/.exec(line) || [];
          if (name === "data") fields.data.push(value);
          else if (name) fields[name] = value;
        }
        if (fields.data.length) yield { ...fields, data: parsed(fields.data.join("\n")) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
