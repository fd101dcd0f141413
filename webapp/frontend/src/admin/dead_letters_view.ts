/** The requests that were given up: run again or discarded, one or all. */

import { age, count } from "../shared/amounts";
import { byId } from "../shared/dom";
import type { Action, Actions } from "./actions";
import { api } from "./api";
import type { DeadLetter } from "./protocol";
import { Table } from "./table";
import { reasonText } from "./words";

const RETRY: Action<DeadLetter> = {
  verb: () => "Retry",
  object: ({ rid }) => `the request ${rid}`,
  call: ({ rid }) => retry(rid),
};
const DISCARD: Action<DeadLetter> = {
  verb: () => "Discard",
  object: ({ rid }) => `the request ${rid}`,
  call: async ({ rid }) => `${count((await api.drop(rid)).dropped.length, "dead letter")} discarded`,
  question: () => ({
    title: "Discard this dead letter?",
    text: "The request and its question are forgotten for good.",
    yes: "Discard",
  }),
};

export class DeadLettersView {
  private table: Table<DeadLetter>;
  private retryAll = byId<HTMLButtonElement>("retry-all");

  constructor(actions: Actions, nameOf: (user: string) => string) {
    this.retryAll.onclick = () => void actions.run(() => retry("all"));
    this.table = new Table<DeadLetter>(
      byId("dead-table"),
      "Dead letters",
      {
        keyOf: (row) => `${row.model} ${row.rid}`,
        empty: "No request was given up.",
        columns: [
          { label: "Reason", kind: "name", text: reasonText },
          { label: "User", text: (row) => nameOf(row.user) || "unknown" },
          { label: "Model", text: (row) => row.model },
          { label: "Given up", text: (row) => age(row.age_s) },
          { label: "Id", kind: "id", text: (row) => row.rid },
        ],
        actions: [RETRY, DISCARD],
      },
      actions,
    );
  }

  show(letters: DeadLetter[]): void {
    this.table.show(letters);
    this.retryAll.hidden = letters.length < 2;
  }
}

async function retry(rid: string): Promise<string> {
  const { retried, unreadable } = await api.retry(rid);
  const told = `${count(retried.length, "request")} queued again`;
  return unreadable.length ? `${told}; ${count(unreadable.length, "request")} cannot be read and stay here` : told;
}
