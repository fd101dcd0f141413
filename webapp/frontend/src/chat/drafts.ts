/** What was typed and not sent, one text per conversation. It survives a reload of this tab. */

const PREFIX = "chatserver.draft.";

export class Drafts {
  constructor(private storage: Pick<Storage, "getItem" | "setItem" | "removeItem">) {}

  /** Of a conversation; without an id, of the one that is not begun. */
  get(conversationId: string | undefined): string {
    return this.storage.getItem(keyOf(conversationId)) ?? "";
  }

  /** An empty text forgets the draft. A full storage loses it, not the page. */
  set(conversationId: string | undefined, text: string): void {
    try {
      if (text) this.storage.setItem(keyOf(conversationId), text);
      else this.storage.removeItem(keyOf(conversationId));
    } catch (error) {
      console.warn("the draft is not kept:", error);
    }
  }
}

function keyOf(conversationId: string | undefined): string {
  return PREFIX + (conversationId ?? "new");
}
