/** Workers, queues, requests in flight and dead letters. */

import { age, count, duration } from "../shared/amounts";
import { byId, h, setText } from "../shared/dom";
import type { Actions } from "./actions";
import { api } from "./api";
import type { DeadLetter, ModelRow, Overview, RequestRow, WorkerRow } from "./protocol";
import { type Shape, Table } from "./table";
import { lastSeen, memoryText, reasonText, redisText, statusWord, waitingText } from "./words";

const WORKERS: Shape<WorkerRow> = {
  keyOf: (row) => row.wid,
  empty: "No worker announces itself: no question is answered. `chatserver worker` starts one.",
  columns: [
    { label: "Model", kind: "name", text: (row) => row.model, more: (row) => `${row.engine} on ${row.host}` },
    { label: "Running", kind: "number", text: (row) => `${row.running} of ${row.slots}` },
    { label: "Tokens/s", kind: "number", text: (row) => row.tokens_per_s.toLocaleString("en") },
    { label: "Memory", kind: "number", text: (row) => memoryText(row.memory_mib) },
    { label: "Version", text: (row) => row.version, more: (row) => `protocol ${row.protocol}` },
    { label: "Last seen", text: lastSeen },
    { label: "Id", kind: "id", text: (row) => row.wid },
  ],
};

const QUEUES: Shape<ModelRow> = {
  keyOf: (row) => row.name,
  isOff: (row) => !row.workers && !row.in_flight,
  empty: "No model was ever served here.",
  columns: [
    { label: "Model", kind: "name", text: (row) => row.name },
    { label: "Workers", kind: "number", text: (row) => row.workers.toLocaleString("en") },
    { label: "Running", kind: "number", text: (row) => `${row.running} of ${row.slots}` },
    { label: "Tokens/s", kind: "number", text: (row) => row.tokens_per_s.toLocaleString("en") },
    { label: "Waiting", kind: "number", text: (row) => row.queued.toLocaleString("en") },
    { label: "Oldest", kind: "number", text: (row) => (row.queued ? duration(row.oldest_s) : "") },
    { label: "Who waits", kind: "wide", text: (row) => waitingText(row.classes) },
    { label: "Dead", kind: "number", text: (row) => (row.dead ? row.dead.toLocaleString("en") : "") },
  ],
};

export class ServingView {
  private workers = new Table(byId("workers-table"), "Workers", WORKERS);
  private queues = new Table(byId("queues-table"), "Queues", QUEUES);
  private requests: Table<RequestRow>;
  private dead: Table<DeadLetter>;

  /** `nameOf`: how a user is called. */
  constructor(actions: Actions, nameOf: (user: string) => string) {
    this.requests = new Table(byId("requests-table"), "Requests in flight", requestShape(actions, nameOf));
    this.dead = new Table(byId("dead-table"), "Dead letters", deadShape(actions, nameOf));
    const all = actions.button("Retry all", () => "dead letters", retryOf("all"));
    all.dataset.testid = "retry-all";
    byId("dead-head").append(all);
  }

  show(overview: Overview): void {
    this.showFigures(overview);
    this.workers.show(overview.workers);
    this.queues.show(overview.models);
    this.requests.show(overview.requests);
    this.dead.show(overview.dead);
    const more = overview.requests_in_flight - overview.requests.length;
    setText(byId("more-requests"), more > 0 ? `and ${count(more, "more request")}` : "");
    byId("dead-head").hidden = !overview.dead.length;
  }

  private showFigures({ redis, workers, models, requests_in_flight }: Overview): void {
    const sum = (numberOf: (model: ModelRow) => number) => models.reduce((all, model) => all + numberOf(model), 0);
    const dead = sum((model) => model.dead);
    setText(byId("redis-text"), redisText(redis));
    figure("workers", workers.length);
    figure("running", `${sum((model) => model.running)} of ${sum((model) => model.slots)}`);
    figure("rate", Math.round(sum((model) => model.tokens_per_s)));
    figure(
      "waiting",
      sum((model) => model.queued),
    );
    figure("dead", dead);
    for (const [section, number] of Object.entries({ workers: workers.length, requests: requests_in_flight, dead }))
      setText(byId(`number-${section}`), number ? number.toLocaleString("en") : "");
    byId("number-dead").classList.toggle("bad", dead > 0);
  }
}

function figure(name: string, value: number | string): void {
  setText(byId(`figure-${name}`), value.toLocaleString("en"));
}

function requestShape(actions: Actions, nameOf: (user: string) => string): Shape<RequestRow> {
  return {
    keyOf: (row) => row.rid,
    empty: "Nobody is asking anything at the moment.",
    columns: [
      { label: "User", kind: "name", text: (row) => nameOf(row.user) || "unknown" },
      { label: "Model", text: (row) => row.model },
      { label: "State", text: statusWord, more: (row) => (row.tries > 1 ? `try ${row.tries}` : "") },
      { label: "Age", kind: "number", text: (row) => duration(row.age_s) },
      { label: "Tokens", kind: "number", text: (row) => row.tokens.toLocaleString("en") },
      { label: "Id", kind: "id", text: (row) => row.rid, more: (row) => (row.wid ? `worker ${row.wid}` : "") },
    ],
    actions: (current) => {
      const { rid, user, model } = current();
      const cancel = async () => `The request is ${(await api.cancel(rid)).status}`;
      const question = () => ({
        title: "Cancel this request?",
        text: `${nameOf(user)} asked ${model} and keeps the text that there is.`,
        yes: "Cancel the request",
      });
      return [
        h(
          "span",
          { "data-testid": "cancel" },
          actions.button("Cancel", () => `the request ${rid}`, cancel, question),
        ),
      ];
    },
  };
}

function deadShape(actions: Actions, nameOf: (user: string) => string): Shape<DeadLetter> {
  return {
    keyOf: (row) => `${row.model} ${row.rid}`,
    empty: "No request was given up.",
    columns: [
      { label: "Reason", kind: "name", text: reasonText },
      { label: "User", text: (row) => nameOf(row.user) || "unknown" },
      { label: "Model", text: (row) => row.model },
      { label: "Given up", text: (row) => age(row.age_s) },
      { label: "Id", kind: "id", text: (row) => row.rid },
    ],
    actions: (current) => {
      const { rid } = current();
      const drop = async () => `${count((await api.drop(rid)).dropped.length, "dead letter")} discarded`;
      const question = () => ({
        title: "Discard this dead letter?",
        text: "The request and its question are forgotten for good.",
        yes: "Discard",
      });
      return [
        actions.button("Retry", () => `the request ${rid}`, retryOf(rid)),
        actions.button("Discard", () => `the request ${rid}`, drop, question),
      ];
    },
  };
}

function retryOf(rid: string): () => Promise<string> {
  return async () => {
    const { retried, unreadable } = await api.retry(rid);
    const told = `${count(retried.length, "request")} queued again`;
    return unreadable.length ? `${told}; ${count(unreadable.length, "request")} cannot be read and stay here` : told;
  };
}
