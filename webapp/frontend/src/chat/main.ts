/**
 * The chat page. Wires storage, socket and page together and holds the one piece of page state: which conversation is
 * open (also in the address, `#/c/<id>`, so that a reload or a second tab shows the same).
 */

import { byId, setText } from "../shared/dom";
import { newId, tabId } from "../shared/ids";
import { withAttachments } from "./attachments";
import { Composer } from "./composer";
import { Connection } from "./connection";
import {
  branchBefore,
  type Conversation,
  Conversations,
  conversationIdOf,
  type Message,
  titleFrom,
} from "./conversations";
import { type Draft, Drafts } from "./drafts";
import { ModelPicker } from "./model_picker";
import { Models } from "./models";
import { loadPreferences, samplingOf, savePreferences, thinkingOf } from "./preferences";
import { describeTooLarge, type Limits } from "./prompt";
import { isOpen, isThinking, type Live, Requests } from "./requests";
import { Settings } from "./settings";
import { Shortcuts } from "./shortcuts";
import { Sidebar } from "./sidebar";
import { Transcript } from "./transcript";
import { describeContext, describeEnd, describeWaiting } from "./words";

const BANNER_AFTER_MS = 800;
const NOTHING: Draft = { typed: "", attachments: [] };

class ChatPage {
  private activeId: string | undefined;
  private tab = tabId();
  private limits = limitsOf(byId("composer").dataset);
  private painter = new Painter((ids) => this.paint(ids));
  private conversations = new Conversations(
    localStorage,
    () => this.painter.all(),
    (isFull) => this.showStorageFull(isFull),
  );
  private connection = new Connection(
    {
      status: (event) => this.requests.onStatus(event),
      tokens: (event) => this.requests.onTokens(event),
      rewind: (event) => this.requests.onRewind(event),
      done: (event) => this.requests.onDone(event),
    },
    (connected) => this.onConnection(connected),
  );
  private requests = new Requests(this.connection, this.conversations, this.tab, this.limits, (live, ended) =>
    this.onAnswer(live, ended),
  );
  private models = new Models(() => this.painter.all());
  private picker = new ModelPicker(this.models, (name) => this.chooseModel(name));
  private sidebar = new Sidebar({
    open: (id) => this.open(id, true),
    rename: (id, title) => this.conversations.change(id, (c) => (c.title = title)),
    remove: (id) => this.remove(id),
  });
  private transcript = new Transcript(
    {
      regenerate: (message) => this.regenerate(message),
      edit: (message, text) => this.edit(message, text),
      openReasoning: ({ id }, open) => this.openReasoning(id, open),
    },
    { liveOf: (id) => this.requests.get(id) },
  );
  private drafts = new Drafts(sessionStorage);
  private composer = new Composer(
    {
      send: (draft) => this.send(draft),
      stop: () => this.stop(),
      drafted: (draft) => this.drafts.set(this.activeId, draft),
    },
    this.limits.bytes,
  );
  private bannerTimer: ReturnType<typeof setTimeout> | undefined;

  start(): void {
    new Settings(
      () => this.showStorageFull(true),
      () => this.models.find(this.model),
    );
    this.addShortcuts();
    window.addEventListener("hashchange", () => this.open(idInAddress(), false));
    window.addEventListener("storage", (event) => this.onOtherTab(event.key));
    window.addEventListener("pagehide", () => this.requests.saveAll());
    document.addEventListener("visibilitychange", () => document.hidden && this.requests.saveAll());
    const conversations = this.conversations.list();
    for (const conversation of conversations) this.requests.follow(conversation, true);
    const asked = modelInAddress();
    if (asked) savePreferences({ model: asked });
    this.open(idInAddress() ?? (asked ? undefined : conversations.find((c) => c.messages.some(isOpen))?.id), false);
    this.onConnection(false);
    this.connection.open();
    void this.models.refresh();
    setInterval(() => this.tick(), 1_000);
  }

  // ── what the user does ──────────────────────────────────────────────────────────────────────────────────────────

  private open(id: string | undefined, focus: boolean): void {
    const conversation = id ? this.conversations.get(id) : undefined;
    this.activeId = conversation?.id;
    const address = conversation ? `#/c/${conversation.id}` : "#/";
    if (location.hash !== address) history[focus ? "pushState" : "replaceState"](null, "", address);
    this.composer.write(this.drafts.get(this.activeId));
    document.title = conversation ? `${conversation.title} · ChatServer` : "ChatServer";
    if (focus || !matchMedia("(pointer: coarse)").matches) this.composer.focus();
    this.painter.all();
  }

  private send(draft: Draft): boolean {
    const text = withAttachments(draft.typed, draft.attachments);
    if (this.refuses(text)) return false;
    const question = questionOf(text);
    if (!this.active) {
      const conversation: Conversation = {
        id: newId(),
        title: titleFrom(draft.typed || (draft.attachments[0]?.name ?? "")),
        model: this.model,
        system: "",
        updated_ms: Date.now(),
        messages: [],
      };
      this.conversations.create(conversation);
      this.drafts.set(undefined, NOTHING);
      this.open(conversation.id, true);
    }
    const sent = this.ask((messages) => [...messages, question]);
    if (sent) this.drafts.set(this.activeId, NOTHING);
    return sent;
  }

  /** The last question is asked anew in its place. An earlier one begins a conversation: what followed it stays. */
  private edit(message: Message, text: string): boolean {
    const conversation = this.active;
    if (!conversation || !this.model || this.refuses(text)) return false;
    const question = questionOf(text);
    if (conversation.messages.findLast(({ role }) => role === "user")?.id === message.id)
      return this.ask((messages) => [...until(messages, message.id), question]);
    const branch = branchBefore(message.id, conversation, newId);
    this.conversations.create(branch);
    this.open(branch.id, true);
    return this.ask((messages) => [...messages, question]);
  }

  /** Says so when the server would not take a message of this size. */
  private refuses(text: string): boolean {
    const why = describeTooLarge(text, loadPreferences().system, this.limits);
    this.composer.refuse(why);
    return why !== "";
  }

  private regenerate(message: Message): void {
    this.ask((messages) => until(messages, message.id));
  }

  /** Adds an empty answer after the turns that `edit` leaves, and submits it. False while another answer runs. */
  private ask(edit: (messages: Message[]) => Message[]): boolean {
    const id = this.activeId;
    if (!id || !this.model || this.requests.of(id)) return false;
    const preferences = loadPreferences();
    const answer: Message = {
      id: newId(),
      role: "assistant",
      content: "",
      state: "queued",
      created_ms: Date.now(),
      model: this.model,
      writer: this.tab,
      unsent: {
        system: preferences.system,
        sampling: samplingOf(preferences),
        ...thinkingOf(preferences, this.models.find(this.model)),
      },
    };
    this.conversations.change(id, (conversation) => {
      conversation.messages = [...edit(conversation.messages), answer];
      conversation.model = this.model;
      conversation.system = preferences.system;
      conversation.updated_ms = Date.now();
    });
    this.requests.begin(id, answer);
    this.painter.now();
    this.transcript.toEnd();
    this.composer.focus();
    return true;
  }

  private openReasoning(id: string, open: boolean): void {
    if (this.activeId) this.conversations.changeMessage(this.activeId, id, (message) => (message.reasoningOpen = open));
  }

  private addShortcuts(): void {
    const { transcript, composer } = this;
    const copy = (what: "answer" | "code") => {
      this.say(transcript.copyLast(what) ? `Copied the last ${what}` : `There is no ${what} to copy`);
    };
    new Shortcuts(
      [
        { key: "n", does: "New chat", run: () => this.open(undefined, true) },
        { key: "m", does: "Write in the message box", run: () => composer.focus() },
        { key: "c", does: "Copy the last answer", run: () => copy("answer") },
        { key: "k", does: "Copy the last block of code", run: () => copy("code") },
      ],
      () => composer.stop() || composer.leave(),
    );
  }

  private stop(): void {
    const live = this.activeId ? this.requests.of(this.activeId) : undefined;
    if (live) void this.requests.cancel(live.id);
  }

  private remove(id: string): void {
    this.requests.abandon(id);
    this.conversations.remove(id);
    if (id === this.activeId) this.open(undefined, true);
  }

  private chooseModel(name: string): void {
    savePreferences({ model: name });
    if (this.activeId) this.conversations.change(this.activeId, (c) => (c.model = name));
    this.painter.all();
  }

  // ── what happens around ─────────────────────────────────────────────────────────────────────────────────────────

  private onConnection(connected: boolean): void {
    clearTimeout(this.bannerTimer);
    const banner = byId("connection");
    if (connected) {
      banner.hidden = true;
      this.requests.reattachAll();
      if (this.models.state === "unreachable") void this.models.refresh();
    } else if (banner.hidden) {
      this.bannerTimer = setTimeout(() => (banner.hidden = false), BANNER_AFTER_MS);
    }
  }

  private onOtherTab(key: string | null): void {
    const id = conversationIdOf(key);
    const conversation = id ? this.conversations.get(id) : undefined;
    if (conversation) this.requests.follow(conversation, false);
    if (this.activeId && !this.conversations.get(this.activeId)) this.open(undefined, false);
    this.painter.all();
  }

  private onAnswer(live: Live, ended: boolean): void {
    this.painter.one(live.id);
    if (ended || live.phase !== "running" || live.cursor.length === 0) this.painter.all();
    if (ended && live.conversationId === this.activeId) {
      const message = this.active?.messages.find((m) => m.id === live.id);
      if (message) this.say(describeEnd(message));
    }
  }

  /** The time that an answer waits goes on. */
  private tick(): void {
    const live = this.activeId && !document.hidden ? this.requests.of(this.activeId) : undefined;
    if (live) this.painter.one(live.id);
  }

  private showStorageFull(isFull: boolean): void {
    byId("storage-full").hidden = !isFull;
  }

  // ── drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────

  private paint(messageIds: Set<string> | "all"): void {
    const conversation = this.active;
    const live = conversation && this.requests.of(conversation.id);
    if (messageIds === "all") {
      this.picker.show(conversation?.model ?? loadPreferences().model, live?.phase === "running");
      this.sidebar.show(this.conversations.list(), this.activeId, (id) => this.requests.of(id) !== undefined);
      this.transcript.show(conversation);
    } else if (conversation) {
      for (const id of messageIds) this.transcript.refresh(conversation, id);
    }
    setText(byId("context"), describeContext(conversation?.messages ?? []));
    this.sayWaiting(conversation, live);
    this.composer.show(live !== undefined, live?.cancelling ?? false, !this.model, live?.cursor.length ?? 0);
  }

  private sayWaiting(conversation: Conversation | undefined, live: Live | undefined): void {
    const message = conversation?.messages.find((m) => m.id === live?.id);
    if (!message) return;
    this.say(describeWaiting(message, live) || (live && isThinking(live) ? "Thinking" : "Answering"));
  }

  private say(text: string): void {
    setText(byId("status"), text);
  }

  private get active(): Conversation | undefined {
    return this.activeId ? this.conversations.get(this.activeId) : undefined;
  }

  private get model(): string {
    return this.picker.value;
  }
}

/** Collects changes and paints them at most once per frame; a slow paint waits longer before the next. */
class Painter {
  private pending: Set<string> | "all" = new Set();
  private scheduled = false;
  private notBefore_ms = 0;

  constructor(private paint: (messageIds: Set<string> | "all") => void) {}

  all(): void {
    this.pending = "all";
    this.schedule();
  }

  /** For what the user just did: a key pressed right after must find the page changed. */
  now(): void {
    this.pending = "all";
    this.run();
  }

  one(messageId: string): void {
    if (this.pending !== "all") this.pending.add(messageId);
    this.schedule();
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    const wait_ms = this.notBefore_ms - performance.now();
    if (wait_ms > 0) setTimeout(() => requestAnimationFrame(() => this.run()), wait_ms);
    else requestAnimationFrame(() => this.run());
  }

  private run(): void {
    const { pending } = this;
    this.scheduled = false;
    if (pending !== "all" && pending.size === 0) return;
    this.pending = new Set();
    const start_ms = performance.now();
    this.paint(pending);
    const now_ms = performance.now();
    this.notBefore_ms = now_ms + 4 * (now_ms - start_ms);
  }
}

function until(messages: Message[], id: string): Message[] {
  const index = messages.findIndex((message) => message.id === id);
  return index < 0 ? messages : messages.slice(0, index);
}

/** `/?model=NAME`: a new conversation with it. Once: a reload keeps what was chosen since. */
function modelInAddress(): string | undefined {
  const name = new URLSearchParams(location.search).get("model") ?? undefined;
  if (name) history.replaceState(null, "", location.pathname + location.hash);
  return name;
}

function questionOf(content: string): Message {
  return { id: newId(), role: "user", content, state: "finished", created_ms: Date.now() };
}

/** How much the server takes in one message, as it wrote it into the page. */
function limitsOf({ maxCharacters, maxBytes, maxMessages }: DOMStringMap): Limits {
  return { characters: Number(maxCharacters), bytes: Number(maxBytes), messages: Number(maxMessages) };
}

function idInAddress(): string | undefined {
  return /^#\/c\/(.+)$/.exec(location.hash)?.[1];
}

new ChatPage().start();
