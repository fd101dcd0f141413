/**
 * Conversations that earlier versions of the page kept in the browser, one localStorage key each. They stay there until
 * the server has taken them over, which the user orders with a button.
 */

import { ApiError } from "../shared/http";
import type { ApiClient } from "./api";

const PREFIX = "chatserver.conversation.";
/** Of one request: far below what the server reads at once. */
const BATCH_CHARACTERS = 150_000;

export interface KeptConversation {
  id: string;
  messages: object[];
}

export class KeptConversations {
  constructor(private storage: Storage) {}

  /** Those that can be read; any other is left alone. */
  list(): KeptConversation[] {
    return this.ids().flatMap((id) => parse(this.storage.getItem(PREFIX + id)) ?? []);
  }

  /** Moves all that the server takes; how many stayed. Throws ApiError; what was taken before is gone from here. */
  async moveTo(server: Pick<ApiClient, "takeOver">): Promise<number> {
    for (const batch of batches(this.list())) {
      for (const id of await takenOf(server, batch)) this.storage.removeItem(PREFIX + id);
    }
    return this.list().length;
  }

  private ids(): string[] {
    const keys = Array.from({ length: this.storage.length }, (_, i) => this.storage.key(i) ?? "");
    return keys.filter((key) => key.startsWith(PREFIX)).map((key) => key.slice(PREFIX.length));
  }
}

/** A conversation that is too large for the server stays, and does not keep the others here. */
async function takenOf(server: Pick<ApiClient, "takeOver">, batch: KeptConversation[]): Promise<string[]> {
  try {
    return (await server.takeOver(batch)).taken;
  } catch (error) {
    if (error instanceof ApiError && error.status === 413) return [];
    throw error;
  }
}

function parse(raw: string | null): KeptConversation | undefined {
  try {
    const value = JSON.parse(raw ?? "") as KeptConversation;
    return Array.isArray(value.messages) && value.messages.length > 0 ? value : undefined;
  } catch {
    return undefined;
  }
}

function batches(conversations: KeptConversation[]): KeptConversation[][] {
  const made: KeptConversation[][] = [];
  let size = Infinity;
  for (const conversation of conversations) {
    const characters = JSON.stringify(conversation).length;
    if (size + characters > BATCH_CHARACTERS) {
      made.push([]);
      size = 0;
    }
    made.at(-1)?.push(conversation);
    size += characters;
  }
  return made;
}
