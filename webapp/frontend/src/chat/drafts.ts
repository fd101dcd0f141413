/** What was typed or attached and not sent, one draft per conversation. It survives a reload of this tab. */

import type { Attachment } from "./attachments";

export interface Draft {
  typed: string;
  attachments: Attachment[];
}

const TYPED = "chatserver.draft.";
const ATTACHED = "chatserver.attached.";

export class Drafts {
  private stored = new Map<string, Attachment[]>();

  constructor(private storage: Pick<Storage, "getItem" | "setItem" | "removeItem">) {}

  /** Of a conversation; without an id, of the one that is not begun. */
  get(conversationId: string | undefined): Draft {
    const id = conversationId ?? "new";
    return { typed: this.storage.getItem(TYPED + id) ?? "", attachments: this.attachments(id) };
  }

  /** An empty draft is forgotten. A full storage loses it, not the page. */
  set(conversationId: string | undefined, { typed, attachments }: Draft): void {
    const id = conversationId ?? "new";
    try {
      this.keep(TYPED + id, typed);
      if (this.stored.get(id) === attachments) return; // as with every key that is typed
      this.keep(ATTACHED + id, attachments.length > 0 ? JSON.stringify(attachments) : "");
      this.stored.set(id, attachments);
    } catch (error) {
      console.warn("the draft is not kept:", error);
    }
  }

  private keep(key: string, text: string): void {
    if (text) this.storage.setItem(key, text);
    else this.storage.removeItem(key);
  }

  private attachments(id: string): Attachment[] {
    return JSON.parse(this.storage.getItem(ATTACHED + id) ?? "[]") as Attachment[];
  }
}
