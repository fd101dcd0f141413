/**
 * The conversations of this user, as the server told them: the list of the sidebar, and the trees that were opened. A
 * change is shown at once and taken back with a message when the server refuses it. Questions that the server has not
 * acknowledged stand in their conversations as if it had (`outbox.ts`).
 *
 * Objects that `get` and `list` return are read-only.
 */

import type { ServerError } from "../shared/errors";
import { ApiError } from "../shared/http";
import type { ApiClient, Change, Page } from "./api";
import { type Outbox, type Unsent, withUnsent } from "./outbox";
import type { Ask } from "./protocol";
import { type Conversation, isOpen, type Message, pathOf, type Summary, titleFrom } from "./tree";

type Server = Pick<ApiClient, "list" | "get" | "change" | "remove" | "restore" | "title">;

export class Conversations {
  folders: string[] = [];
  /** The folder that the sidebar shows; none: all. */
  folder = "";
  /** Where the list goes on; null: it is all here. */
  private next: string | null = null;
  /** More than its newest page was read. */
  private isExtended = false;
  private summaries = new Map<string, Summary>();
  private trees = new Map<string, Conversation>();
  private pending = new Map<string, Change[]>();
  private removed = new Set<string>();
  /** Grows with each change made here, so that an answer of the server from before it is not believed. */
  private revision = 0;

  /** `changed` hears of every change; of which tree, unless it is the list alone. */
  constructor(
    private server: Server,
    private outbox: Outbox,
    private changed: (id?: string) => void,
    private failed: (words: string) => void,
  ) {}

  /** Pinned ones first, then newest first. */
  list(): Summary[] {
    return [...this.summaries.keys()]
      .filter((id) => !this.removed.has(id))
      .map((id) => this.overlaid(this.summaries.get(id) as Summary))
      .filter(({ folder }) => !this.folder || folder === this.folder)
      .sort((a, b) => Number(b.pinned) - Number(a.pinned) || b.updated_ms - a.updated_ms);
  }

  get hasMore(): boolean {
    return this.next !== null;
  }

  /** Undefined until it was loaded or begun here. */
  get(id: string): Conversation | undefined {
    const tree = this.removed.has(id) ? undefined : this.trees.get(id);
    return tree && this.overlaid(tree);
  }

  // ── from the server ─────────────────────────────────────────────────────────────────────────────────────────────

  /** The newest page of the list, and `openId` anew if the server knows more of it. A silent server changes nothing. */
  async refresh(openId: string | undefined): Promise<void> {
    const { revision } = this;
    try {
      const page = await this.server.list(this.folder);
      if (revision === this.revision) this.accept(page);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
    if (openId && this.isStale(openId)) await this.load(openId);
  }

  async loadMore(): Promise<void> {
    if (this.next === null) return;
    try {
      const { conversations, next } = await this.server.list(this.folder, this.next);
      for (const summary of conversations) this.summaries.set(summary.id, summary);
      this.next = next;
      this.isExtended = true;
      this.changed();
    } catch (error) {
      this.tell("Older conversations could not be read", error);
    }
  }

  showFolder(folder: string): void {
    this.folder = folder;
    this.next = null;
    this.isExtended = false;
    this.summaries.clear();
    this.changed();
    void this.refresh(undefined);
  }

  /** Reads a conversation with all its messages. False when there is none. */
  async load(id: string): Promise<boolean> {
    const { revision } = this;
    try {
      const fetched = await this.server.get(id);
      if (revision !== this.revision) return this.load(id);
      this.keep(this.merged(fetched));
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) {
        if (!this.trees.has(id)) this.tell("The conversation could not be read", error);
        return this.trees.has(id);
      }
      if (revision !== this.revision) return this.load(id);
      if (!this.keepUnsent(id)) this.forget(id);
    }
    this.changed(id);
    return this.trees.has(id);
  }

  /** The conversations of questions that are not acknowledged, also of those that begin one. */
  async loadUnsent(): Promise<void> {
    const ids = new Set(this.outbox.list().map(({ ask }) => ask.conversation));
    await Promise.all([...ids].filter((id) => !this.trees.has(id)).map((id) => this.load(id)));
  }

  // ── changes of the user ─────────────────────────────────────────────────────────────────────────────────────────

  /** Shown at once; taken back if the server refuses. */
  async change(id: string, change: Change): Promise<void> {
    this.pending.set(id, [...(this.pending.get(id) ?? []), change]);
    this.revision++;
    this.changed(id);
    try {
      this.summaries.set(id, await this.server.change(id, change));
      const tree = this.trees.get(id);
      if (tree) this.trees.set(id, { ...tree, ...change });
    } catch (error) {
      this.tell("The change was not kept", error);
    } finally {
      this.pending.set(id, this.pending.get(id)?.filter((one) => one !== change) ?? []);
      this.revision++;
      this.changed(id);
    }
  }

  /** The model reads the beginning and names the conversation; that may take a while. */
  async askTitle(id: string): Promise<void> {
    try {
      const summary = await this.server.title(id);
      this.summaries.set(id, summary);
      const tree = this.trees.get(id);
      if (tree) this.trees.set(id, { ...tree, title: summary.title });
      this.revision++;
      this.changed(id);
    } catch (error) {
      this.tell("The conversation keeps its title", error);
    }
  }

  /** Shows the path that ends with a message, on all devices if the server knows the message. */
  show(id: string, messageId: string): void {
    const tree = this.trees.get(id);
    if (!tree?.messages.find((message) => message.id === messageId)?.local) {
      void this.change(id, { current_id: messageId });
      return;
    }
    this.keep({ ...tree, current_id: messageId });
    this.changed(id);
  }

  /** Until when it can be restored; undefined when it is still there. */
  async remove(id: string): Promise<number | undefined> {
    this.removed.add(id);
    this.outbox.removeAllOf(id);
    this.revision++;
    this.changed(id);
    try {
      return (await this.server.remove(id)).undo_until_ms;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return 0; // it was never sent
      this.removed.delete(id);
      this.tell("The conversation was not deleted", error);
      this.changed(id);
      return undefined;
    }
  }

  async restore(id: string): Promise<void> {
    try {
      const summary = await this.server.restore(id);
      this.removed.delete(id);
      this.summaries.set(id, summary);
    } catch (error) {
      this.tell("The conversation could not be restored", error);
    }
    this.revision++;
    this.changed(id);
    await this.load(id);
  }

  // ── questions and answers ───────────────────────────────────────────────────────────────────────────────────────

  /** Puts a question, or one more answer, into the outbox and its conversation, which it may begin. */
  add(unsent: Unsent): void {
    const { conversation: id } = unsent.ask;
    this.outbox.put(unsent);
    this.revision++;
    const tree = this.trees.get(id);
    if (tree) {
      const messages = withUnsent(tree.messages, this.outbox.list(id));
      this.keep({ ...tree, messages, current_id: unsent.ask.id, updated_ms: Date.now() });
    } else this.keepUnsent(id);
    this.changed(id);
  }

  acknowledged(
    id: string,
    { id: messageId, question }: Pick<Ask, "id" | "question">,
    omitted: number | undefined,
  ): void {
    this.outbox.remove(messageId);
    this.revision++;
    if (question) this.changeMessage(id, question.id, (message) => delete message.local);
    this.changeMessage(id, messageId, (message) => {
      for (const key of ["sending", "local", "problem", "retry_at_ms"] as const) delete message[key];
      if (omitted) message.extra = { ...message.extra, omitted };
    });
  }

  /** The question stays in the outbox, to be sent again when the user says so; the server may have written it down. */
  refused(id: string, messageId: string, problem: ServerError): void {
    const unsent = this.outbox.get(messageId);
    if (!unsent) return;
    const retry_at_ms = problem.retry_after_s ? Date.now() + problem.retry_after_s * 1000 : undefined;
    this.outbox.put({ ...unsent, problem, ...(retry_at_ms && { retry_at_ms }) });
    this.revision++;
    this.changeMessage(id, messageId, (message) => {
      message.state = "unsent";
      delete message.sending;
      message.problem = problem;
      if (retry_at_ms) message.retry_at_ms = retry_at_ms;
    });
    void this.load(id);
  }

  /** Here alone: the server learns of answers from their journal. */
  changeMessage(id: string, messageId: string, edit: (message: Message) => void): void {
    const tree = this.trees.get(id);
    if (!tree?.messages.some((message) => message.id === messageId)) return;
    const messages = tree.messages.map((message) => {
      if (message.id !== messageId) return message;
      const copy = { ...message };
      edit(copy);
      return copy;
    });
    this.keep({ ...tree, messages });
    this.changed(id);
  }

  // ── what is known ───────────────────────────────────────────────────────────────────────────────────────────────

  private accept({ conversations, next, folders }: Page): void {
    const oldest = conversations.at(-1)?.updated_ms ?? Infinity;
    const isListed = new Set(conversations.map(({ id }) => id));
    for (const { id, pinned, updated_ms } of this.summaries.values()) {
      const isOlder = next !== null && !pinned && updated_ms < oldest;
      if (!isListed.has(id) && !isOlder && this.outbox.list(id).length === 0) this.summaries.delete(id);
    }
    if (!this.isExtended) this.next = next;
    for (const summary of conversations) this.summaries.set(summary.id, summary);
    this.folders = folders;
    this.changed();
  }

  private isStale(id: string): boolean {
    const [listed, tree] = [this.summaries.get(id), this.trees.get(id)];
    if (!listed || !tree) return true;
    return listed.updated_ms !== tree.updated_ms || listed.running !== tree.messages.some(isOpen);
  }

  private merged(fetched: Conversation): Conversation {
    const known = this.trees.get(fetched.id);
    const unsents = this.outbox.list(fetched.id);
    const messages = fetched.messages.map((message) => mergedMessage(message, known));
    return {
      ...fetched,
      current_id: known && unsents.length > 0 ? known.current_id : fetched.current_id,
      messages: withUnsent(messages, unsents),
    };
  }

  private keep(tree: Conversation): void {
    this.trees.set(tree.id, tree);
    const { messages, current_id, system, settings, shared_as, ...summary } = tree;
    if (!this.folder || summary.folder === this.folder)
      this.summaries.set(tree.id, { ...summary, running: messages.some(isOpen) });
  }

  /** A conversation of which the server knows nothing yet. False when nothing waits to be sent to it. */
  private keepUnsent(id: string): boolean {
    const unsents = this.outbox.list(id);
    const [first, last] = [unsents[0], unsents.at(-1)];
    if (!first || !last) return false;
    const { ask, created_ms } = first;
    this.keep({
      id,
      title: ask.title ?? titleFrom(ask.question?.content ?? ""),
      model: ask.model,
      folder: "",
      pinned: false,
      created_ms,
      updated_ms: last.created_ms,
      running: true,
      system: ask.system ?? "",
      settings: {
        ...(ask.sampling && { sampling: ask.sampling }),
        ...(ask.thinking !== undefined && { thinking: ask.thinking }),
      },
      shared_as: null,
      current_id: last.ask.id,
      messages: withUnsent([], unsents),
    });
    return true;
  }

  private forget(id: string): void {
    this.trees.delete(id);
    this.summaries.delete(id);
  }

  private overlaid<T extends Summary>(known: T): T {
    return Object.assign({ ...known }, ...(this.pending.get(known.id) ?? []));
  }

  private tell(what: string, error: unknown): void {
    if (!(error instanceof ApiError)) throw error;
    this.failed(`${what}: ${error.message}`);
  }
}

/** An answer whose end was heard here may still be open on the server, for the second that its archivist needs. */
function mergedMessage(fetched: Message, tree: Conversation | undefined): Message {
  const known = tree?.messages.find(({ id }) => id === fetched.id);
  if (!known) return fetched;
  if (isOpen(fetched) && !isOpen(known) && known.state !== "unsent") return known;
  const { thought_ms } = known;
  return { ...fetched, ...(thought_ms !== undefined && { thought_ms }) };
}

/** The message that a new question follows: the last one that the server knows. null: it is the first one. */
export function endOf(conversation: Conversation): string | null {
  return pathOf(conversation).findLast(({ local }) => !local)?.id ?? null;
}
