/** The people with accounts, and inviting more. The page shows neither where nobody signs in. */

import { age } from "../shared/amounts";
import { byId, copyButton, h, setText } from "../shared/dom";
import type { Actions } from "./actions";
import { api } from "./api";
import type { Invitation, User } from "./protocol";
import { type Shape, Table } from "./table";

const USERS: Shape<User> = {
  keyOf: (user) => user.id,
  isOff: (user) => user.disabled,
  empty: "There is no user yet.",
  columns: [
    { label: "Name", kind: "name", text: (user) => user.display_name || user.name, more: (user) => user.name },
    { label: "Role", text: (user) => (user.role === "admin" ? "Administrator" : "User") },
    { label: "Group", text: (user) => user.group },
    { label: "State", text: (user) => (user.disabled ? "Disabled" : "Active") },
    { label: "Here last", text: (user) => (user.seen_ms ? ageOf(user.seen_ms) : "never") },
  ],
  actions: [
    {
      verb: (user) => (user.role === "admin" ? "Make a user" : "Make an administrator"),
      object: (user) => `of ${user.name}`,
      call: async (user) => {
        const { user: now } = await api.changeUser(user.id, { role: user.role === "admin" ? "user" : "admin" });
        return `${now.name} is ${now.role === "admin" ? "an administrator" : "a user"} now`;
      },
      question: (user) =>
        user.role === "admin"
          ? undefined
          : {
              title: `Make ${user.name} an administrator?`,
              text: "Administrators see all requests and jobs, and change users, keys and limits.",
              yes: "Make an administrator",
            },
    },
    {
      verb: (user) => (user.disabled ? "Enable" : "Disable"),
      object: (user) => user.name,
      call: async (user) => {
        const { user: now } = await api.changeUser(user.id, { disabled: !user.disabled });
        return `${now.name} is ${now.disabled ? "disabled" : "enabled"}`;
      },
      question: (user) =>
        user.disabled
          ? undefined
          : {
              title: `Disable ${user.name}?`,
              text: "They are signed out, and their keys are refused. What they wrote stays.",
              yes: "Disable",
            },
    },
  ],
};

export class PeopleView {
  private users: Table<User>;
  private invitations: Table<Invitation>;
  private names = new Map<string, string>();

  constructor(private actions: Actions) {
    this.users = new Table(byId("users-table"), "Users", USERS, actions);
    const nameOf = (user: string) => this.nameOf(user);
    this.invitations = new Table(byId("invitations-table"), "Open invitations", invitationShape(nameOf), actions);
    byId<HTMLFormElement>("invite").onsubmit = (event) => {
      event.preventDefault();
      void this.invite(event.target as HTMLFormElement);
    };
  }

  /** How a user is called; as the queue knows them where there is no account. */
  nameOf(user: string): string {
    return this.names.get(user) ?? user;
  }

  async refresh(): Promise<void> {
    const { accounts, users, invitations } = await api.people();
    this.names = new Map(users.map((user) => [user.id, user.display_name || user.name]));
    for (const element of document.querySelectorAll<HTMLElement>("[data-people]")) element.hidden = !accounts;
    this.users.show(users);
    this.offerToMove(users);
    this.invitations.show(invitations);
  }

  /** The users of the form that moves one to a group; who is chosen there stays chosen. */
  private offerToMove(users: User[]): void {
    const choice = byId<HTMLSelectElement>("move-user-name");
    const chosen = choice.value;
    choice.replaceChildren(...users.map(({ id, name }) => h("option", { value: id, selected: id === chosen }, name)));
  }

  private async invite(form: HTMLFormElement): Promise<void> {
    const entered = new FormData(form);
    await this.actions.run(async () => {
      const { path } = await api.invite(String(entered.get("role")), String(entered.get("group")));
      showOnce(location.origin + path);
      form.reset();
      return "The invitation is made; its link is shown once";
    });
  }
}

function invitationShape(nameOf: (user: string) => string): Shape<Invitation> {
  return {
    keyOf: (invitation) => invitation.handle,
    empty: "No invitation is open.",
    columns: [
      { label: "For", kind: "name", text: ({ role }) => (role === "admin" ? "An administrator" : "A user") },
      { label: "Group", text: (invitation) => invitation.group },
      { label: "Made by", text: (invitation) => nameOf(invitation.made_by) },
      { label: "Made", text: (invitation) => ageOf(invitation.created_ms) },
      { label: "Ends", text: (invitation) => new Date(invitation.expires_ms).toLocaleDateString("en-GB") },
    ],
    actions: [
      {
        verb: () => "Withdraw",
        object: (invitation) => `the invitation made ${ageOf(invitation.created_ms)}`,
        call: async ({ handle }) => {
          await api.withdraw(handle);
          return "The invitation is withdrawn";
        },
      },
    ],
  };
}

function ageOf(then_ms: number): string {
  return age((Date.now() - then_ms) / 1000);
}

function showOnce(link: string): void {
  const place = byId("invitation-link");
  place.hidden = false;
  setText(byId("invitation-address"), link);
  place.querySelector("button")?.remove();
  place.append(copyButton("Copy the link", () => link));
}
