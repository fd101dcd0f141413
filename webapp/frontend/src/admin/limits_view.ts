/** What users may use and have used today, and limits of their own. */

import { byId, h, setText } from "../shared/dom";
import type { Actions } from "./actions";
import { api } from "./api";
import type { UsageRow } from "./protocol";
import { Table } from "./table";
import { limitsOf, limitsText, limitText, reservedText, storedFilesText, storedText, tokensText, whose } from "./words";

export class LimitsView {
  private table: Table<UsageRow>;

  constructor(
    private actions: Actions,
    nameOf: (user: string) => string,
  ) {
    this.table = new Table<UsageRow>(
      byId("limits-table"),
      "Limits and usage",
      {
        keyOf: (row) => row.user,
        empty: "Nobody has limits of their own.",
        columns: [
          { label: "User", kind: "name", text: (row) => nameOf(row.user) },
          { label: "Tokens today", kind: "number", text: tokensText, more: reservedText },
          { label: "A day", kind: "number", text: (row) => limitText(row.tokens_per_day) },
          { label: "In flight", kind: "number", text: (row) => (row.counted ? `${row.requests_in_flight}` : "") },
          { label: "At once", kind: "number", text: (row) => limitText(row.most_in_flight) },
          { label: "Weight", kind: "number", text: (row) => row.weight.toLocaleString("en") },
          { label: "Whose", text: whose },
          { label: "Stored", kind: "number", text: storedText, more: storedFilesText },
        ],
        actions: [
          {
            verb: () => "Change",
            object: (row) => `the limits of ${nameOf(row.user)}`,
            call: async (row) => this.fillIn(row),
          },
          {
            verb: () => "Use the default",
            object: (row) => `for ${nameOf(row.user)}`,
            call: (row) => unset(row.user),
            applies: (row) => row.own,
          },
        ],
      },
      actions,
    );
    byId<HTMLFormElement>("set-limits").onsubmit = (event) => {
      event.preventDefault();
      void this.set(event.target as HTMLFormElement);
    };
  }

  async refresh(): Promise<void> {
    const { default: standard, users } = await api.limits();
    setText(byId("default-limits"), `Everybody else: ${limitsText(standard)}.`);
    byId("limited-users").replaceChildren(...users.map(({ user }) => h("option", { value: user })));
    this.table.show(users);
  }

  private async set(form: HTMLFormElement): Promise<void> {
    const entered = new FormData(form);
    await this.actions.run(async () => {
      const { limits } = await api.setLimits(String(entered.get("user")), limitsOf(entered));
      form.reset();
      return `The limits are set: ${limitsText(limits)}`;
    });
  }

  private fillIn(row: UsageRow): string {
    const form = byId<HTMLFormElement>("set-limits");
    const field = (name: string) => form.elements.namedItem(name) as HTMLInputElement;
    field("user").value = row.user;
    field("tokens_per_day").value = row.tokens_per_day?.toString() ?? "";
    field("in_flight").value = row.most_in_flight?.toString() ?? "";
    field("weight").value = row.weight.toString();
    field("tokens_per_day").focus();
    return "";
  }
}

async function unset(user: string): Promise<string> {
  await api.unsetLimits(user);
  return "The default applies again";
}
