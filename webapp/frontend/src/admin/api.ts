/** The HTTP API of the admin page. */

import { askJson as ask } from "../shared/http";
import type { ApiKey, Overview, Storage } from "./protocol";

export const api = {
  overview: () => ask<Overview>("GET", "/api/admin/overview"),
  cancel: (rid: string) => ask<{ status: string }>("POST", "/api/admin/requests/cancel", { rid }),
  retry: (rid: string) =>
    ask<{ retried: { rid: string; as: string }[]; unreadable: string[] }>("POST", "/api/admin/dead-letters/retry", {
      rid,
    }),
  drop: (rid: string) => ask<{ dropped: string[] }>("POST", "/api/admin/dead-letters/drop", { rid }),
  keys: () => ask<{ keys: ApiKey[] }>("GET", "/api/admin/keys"),
  revoke: (name: string) => ask<{ revoked: string }>("POST", "/api/admin/keys/revoke", { name }),
  storage: () => ask<Storage>("GET", "/api/admin/storage"),
};
