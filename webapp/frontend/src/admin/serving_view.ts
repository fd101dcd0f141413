/** Workers, queues, requests in flight. */

import { count, duration } from "../shared/amounts";
import { byId, setText } from "../shared/dom";
import type { Actions } from "./actions";
import { api } from "./api";
import type { ModelRow, Overview, RequestRow, WorkerRow } from "./protocol";
import { type Shape, Table } from "./table";
import { lastSeen, memoryText, modelText, redisText, statusWord, waitingText } from "./words";

const WORKERS: Shape<WorkerRow> = {
  keyOf: (row) => row.wid,
  empty: "No worker announces itself, so no question is answered. `chatserver worker` starts one.",
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
  private workers: Table<WorkerRow>;
  private queues: Table<ModelRow>;
  private requests: Table<RequestRow>;

  /** `nameOf`: how a user is called. */
  constructor(actions: Actions, nameOf: (user: string) => string) {
    this.workers = new Table(byId("workers-table"), "Workers", WORKERS, actions);
    this.queues = new Table(byId("queues-table"), "Queues", QUEUES, actions);
    this.requests = new Table(byId("requests-table"), "Requests in flight", requestShape(nameOf), actions);
  }

  show(overview: Overview): void {
    showFigures(overview);
    this.workers.show(overview.workers);
    this.queues.show(overview.models);
    this.requests.show(overview.requests);
    const more = overview.requests_in_flight - overview.requests.length;
    setText(byId("more-requests"), more > 0 ? `and ${count(more, "more request")}` : "");
  }
}

function showFigures({ redis, workers, models, requests_in_flight }: Overview): void {
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

function figure(name: string, value: number | string): void {
  setText(byId(`figure-${name}`), value.toLocaleString("en"));
}

function requestShape(nameOf: (user: string) => string): Shape<RequestRow> {
  return {
    keyOf: (row) => row.rid,
    empty: "Nobody is asking anything at the moment.",
    columns: [
      { label: "User", kind: "name", text: (row) => nameOf(row.user) || "unknown" },
      { label: "Model", text: modelText },
      { label: "State", text: statusWord, more: (row) => (row.tries > 1 ? `try ${row.tries}` : "") },
      { label: "Age", kind: "number", text: (row) => duration(row.age_s) },
      { label: "Tokens", kind: "number", text: (row) => row.tokens.toLocaleString("en") },
      { label: "Id", kind: "id", text: (row) => row.rid, more: (row) => (row.wid ? `worker ${row.wid}` : "") },
    ],
    actions: [
      {
        verb: () => "Cancel",
        object: ({ rid }) => `the request ${rid}`,
        call: async ({ rid }) => `The request is ${(await api.cancel(rid)).status}`,
        question: ({ user, model }) => ({
          title: "Cancel this request?",
          text: `${nameOf(user) || "Somebody"} asked ${model || "in the arena"}. The text that there is stays.`,
          yes: "Cancel the request",
        }),
      },
    ],
  };
}
