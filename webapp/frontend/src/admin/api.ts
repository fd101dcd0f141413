/** The HTTP API of the admin page. */

import { askJson as ask } from "../shared/http";
import type { ApiKey, Group, Limits, Overview, People, Storage, UsageRow, User } from "./protocol";

export const api = {
  overview: () => ask<Overview>("GET", "/api/admin/overview"),
  cancel: (rid: string) => ask<{ status: string }>("POST", "/api/admin/requests/cancel", { rid }),
  retry: (rid: string) =>
    ask<{ retried: { rid: string; as: string }[]; unreadable: string[] }>("POST", "/api/admin/dead-letters/retry", {
      rid,
    }),
  drop: (rid: string) => ask<{ dropped: string[] }>("POST", "/api/admin/dead-letters/drop", { rid }),
  keys: () => ask<{ keys: ApiKey[] }>("GET", "/api/admin/keys"),
  revoke: ({ name, user }: ApiKey) => ask<{ revoked: string }>("POST", "/api/admin/keys/revoke", { name, user }),
  people: () => ask<People>("GET", "/api/admin/people"),
  changeUser: (id: string, changes: { role?: string; disabled?: boolean; group?: string }) =>
    ask<{ user: User }>("POST", "/api/admin/users/change", { id, ...changes }),
  invite: (role: string, group: string) => ask<{ path: string }>("POST", "/api/admin/invitations", { role, group }),
  withdraw: (handle: string) => ask<{ ok: true }>("POST", "/api/admin/invitations/withdraw", { handle }),
  groups: () => ask<{ groups: Group[] }>("GET", "/api/admin/groups"),
  setGroup: (name: string, changes: Partial<Limits>) =>
    ask<{ group: Group }>("POST", "/api/admin/groups/set", { name, ...changes }),
  removeGroup: (name: string) => ask<{ members: number }>("POST", "/api/admin/groups/remove", { name }),
  limits: () => ask<{ default: Limits; users: UsageRow[] }>("GET", "/api/admin/limits"),
  setLimits: (user: string, changes: Partial<Limits>) =>
    ask<{ limits: Limits }>("POST", "/api/admin/limits/set", { user, ...changes }),
  unsetLimits: (user: string) => ask<{ unset: boolean }>("POST", "/api/admin/limits/unset", { user }),
  storage: () => ask<Storage>("GET", "/api/admin/storage"),
};
