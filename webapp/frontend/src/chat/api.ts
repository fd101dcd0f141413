/** The HTTP API of conversations (docs/protocol.md). Throws ApiError. */

import { answerOf, askJson } from "../shared/http";
import type { Conversation, ConversationSettings, Feedback, Summary, Verdict } from "./tree";

export interface Page {
  conversations: Summary[];
  next: string | null;
  folders: string[];
}

/** What a change of a conversation may say. */
export interface Change {
  title?: string;
  folder?: string;
  pinned?: boolean;
  system?: string;
  settings?: ConversationSettings;
  model?: string;
  current_id?: string;
}

export interface Found {
  conversation_id: string;
  title: string;
  message_id: string;
  /** Of the message; `title`: the words stand in the conversation's title. */
  role: string;
  /** Pieces of text; those of the second kind are what was searched for. */
  snippet: [string, boolean][];
  created_ms: number;
}

export interface Imported {
  imported: number;
  skipped: { title: string; reason: string }[];
}

export type ExportFormat = "json" | "markdown" | "openai";

const ROOT = "/api/conversations";
const at = (id: string) => `${ROOT}/${encodeURIComponent(id)}`;

export const api = {
  list: (folder: string, before?: string) =>
    askJson<Page>("GET", `${ROOT}?${new URLSearchParams({ ...(folder && { folder }), ...(before && { before }) })}`),
  get: (id: string) => askJson<Conversation>("GET", at(id)),
  change: (id: string, change: Change) => askJson<Summary>("PATCH", at(id), change),
  remove: (id: string) => askJson<{ undo_until_ms: number }>("DELETE", at(id)),
  restore: (id: string) => askJson<Summary>("POST", `${at(id)}/restore`, {}),
  title: (id: string) => askJson<Summary>("POST", `${at(id)}/title`, {}),
  share: (id: string) => askJson<{ url: string }>("POST", `${at(id)}/share`, {}),
  endShare: (id: string) => answerOf("DELETE", `${at(id)}/share`),
  shared: (token: string) => askJson<Conversation>("GET", `/api/shared/${encodeURIComponent(token)}`),
  search: (text: string, signal: AbortSignal) =>
    askJson<{ results: Found[] }>("GET", `/api/search?${new URLSearchParams({ q: text })}`, undefined, signal),
  importFile: (file: Blob) => askJson<Imported>("POST", "/api/import", new Blob([file])),
  takeOver: (conversations: object[]) => askJson<{ taken: string[] }>("POST", `${ROOT}/take-over`, { conversations }),
  judge: (messageId: string, judgement: { verdict: Verdict; reason?: string; better?: string }) =>
    askJson<{ feedback: Feedback | null }>(
      "POST",
      `/api/messages/${encodeURIComponent(messageId)}/feedback`,
      judgement,
    ),
};

export type ApiClient = typeof api;

/** The address of a file with one conversation, or with all. */
export function exportAddress(format: ExportFormat, id?: string): string {
  return `${id ? at(id) : "/api"}/export?as=${format}`;
}
