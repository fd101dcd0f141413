/** Groups of users: what each member may use, and who is in which group. */

import { count } from "../shared/amounts";
import { byId, h } from "../shared/dom";
import type { Actions } from "./actions";
import { api } from "./api";
import type { Group } from "./protocol";
import { type Shape, Table } from "./table";
import { groupLimitsText, limitsOf } from "./words";

const GROUPS: Shape<Group> = {
  keyOf: (group) => group.name,
  empty: "There is no group.",
  columns: [
    { label: "Name", kind: "name", text: (group) => group.name },
    { label: "Members", kind: "number", text: (group) => `${group.num_members}` },
    { label: "Each member has", kind: "wide", text: groupLimitsText },
  ],
  actions: [
    {
      verb: () => "Remove",
      object: (group) => `the group ${group.name}`,
      call: async ({ name }) => {
        const { members } = await api.removeGroup(name);
        return `${name} is removed; ${count(members, "user")} in no group now`;
      },
      question: (group) => ({
        title: `Remove the group ${group.name}?`,
        text: "Its members stay, and have the defaults.",
        yes: "Remove",
      }),
    },
  ],
};

export class GroupsView {
  private table: Table<Group>;

  constructor(private actions: Actions) {
    this.table = new Table(byId("groups-table"), "Groups", GROUPS, actions);
    onSubmit("set-group", (form) => this.set(form));
    onSubmit("move-user", (form) => this.move(form));
  }

  async refresh(): Promise<void> {
    const { groups } = await api.groups();
    this.table.show(groups);
    byId("group-names").replaceChildren(...groups.map(({ name }) => h("option", { value: name })));
  }

  private async set(form: HTMLFormElement): Promise<void> {
    const entered = new FormData(form);
    await this.actions.run(async () => {
      const { group } = await api.setGroup(String(entered.get("name")), limitsOf(entered));
      form.reset();
      return `Each member of ${group.name} has ${groupLimitsText(group)}`;
    });
  }

  private async move(form: HTMLFormElement): Promise<void> {
    const entered = new FormData(form);
    await this.actions.run(async () => {
      const { user } = await api.changeUser(String(entered.get("user")), { group: String(entered.get("group")) });
      form.reset();
      return user.group ? `${user.name} is in the group ${user.group} now` : `${user.name} is in no group now`;
    });
  }
}

function onSubmit(id: string, act: (form: HTMLFormElement) => Promise<void>): void {
  const form = byId<HTMLFormElement>(id);
  form.onsubmit = (event) => {
    event.preventDefault();
    void act(form);
  };
}
