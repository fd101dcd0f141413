/** The API keys of all users, and taking one back. */

import { age } from "../shared/amounts";
import { byId } from "../shared/dom";
import type { Actions } from "./actions";
import { api } from "./api";
import type { ApiKey } from "./protocol";
import { Table } from "./table";

export class KeysView {
  private table: Table<ApiKey>;

  constructor(actions: Actions, nameOf: (user: string) => string) {
    this.table = new Table<ApiKey>(
      byId("keys-table"),
      "API keys",
      {
        keyOf: (key) => `${key.user} ${key.name}`,
        empty: "There is no key. `chatserver keys create NAME` makes one.",
        columns: [
          { label: "Name", kind: "name", text: (key) => key.name },
          { label: "User", text: (key) => nameOf(key.user) },
          { label: "Ends with", kind: "id", text: (key) => `…${key.ending}` },
          { label: "Made", text: (key) => ageOf(key.created) },
          { label: "Last use", text: (key) => (key.used ? ageOf(key.used) : "never") },
        ],
        actions: [
          {
            verb: () => "Revoke",
            object: (key) => `the key ${key.name} of ${nameOf(key.user)}`,
            call: async (key) => `The key ${(await api.revoke(key)).revoked} is revoked`,
            question: (key) => ({
              title: `Revoke ${key.name}?`,
              text: "Programs that use this key are refused from now on. Answers that run go on.",
              yes: "Revoke the key",
            }),
          },
        ],
      },
      actions,
    );
  }

  async refresh(): Promise<void> {
    this.table.show((await api.keys()).keys);
  }
}

function ageOf(then_s: number): string {
  return age(Date.now() / 1000 - then_s);
}
