/**
 * The chat page. Wires server, socket and page together and holds the one piece of page state: which conversation is
 * open (also in the address, `#/c/<id>`, so that a reload or a second tab shows the same).
 */

import { byId, setText } from "../shared/dom";
import { ApiError } from "../shared/http";
import { newId, tabId } from "../shared/ids";
import { api, type Found } from "./api";
import { splitAttachments, withAttachments } from "./attachments";
import { Composer } from "./composer";
import { Connection } from "./connection";
import { Conversations, endOf } from "./conversations";
import { type Draft, Drafts } from "./drafts";
import { Files } from "./files";
import { FolderDialog } from "./folder_dialog";
import { feedbackOf, type Judgement, JudgementDialog } from "./judgement";
import { KeptConversations } from "./kept";
import { ModelPicker } from "./model_picker";
import { Models } from "./models";
import { NextList } from "./next_list";
import { type NextQuestion, NextQuestions } from "./next_questions";
import { OpenedReasonings } from "./opened";
import { conversationOf, Outbox } from "./outbox";
import { Painter } from "./painter";
import { type Choices, choicesOf, loadPreferences, savePreferences, settingsOf, thinkingOf } from "./preferences";
import { describeTooLarge, type Limits } from "./prompt";
import type { Ask } from "./protocol";
import { isThinking, type Live, Requests } from "./requests";
import { Search } from "./search";
import { Settings, type Subject } from "./settings";
import { ShareDialog } from "./share_dialog";
import { Shortcuts } from "./shortcuts";
import { Sidebar } from "./sidebar";
import { Toast } from "./toast";
import { Transcript } from "./transcript";
import { type Conversation, leafOf, type Message, pathOf, type Summary } from "./tree";
import { describeContext, describeEnd, describeWaiting } from "./words";

const BANNER_AFTER_MS = 800;
const REFRESH_MS = 4_000;
const UNDO_MS = 10_000;
const NOTHING: Draft = { typed: "", attachments: [] };

class ChatPage {
  private activeId: string | undefined;
  private tab = tabId();
  private limits = limitsOf(byId("composer").dataset);
  private painter = new Painter((ids) => this.paint(ids));
  private toast = new Toast();
  private outbox = new Outbox(localStorage, (isFull) => this.showStorageFull(isFull));
  private conversations = new Conversations(
    api,
    this.outbox,
    (id) => this.onConversation(id),
    (words) => this.toast.show(words),
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
  private requests = new Requests(
    this.connection,
    this.conversations,
    this.outbox,
    this.tab,
    this.limits,
    (live, ended) => this.onAnswer(live, ended),
  );
  private models = new Models(() => this.painter.all());
  private picker = new ModelPicker(this.models, (name) => this.chooseModel(name));
  private shareDialog = new ShareDialog(api);
  private folderDialog = new FolderDialog((id, folder) => void this.conversations.change(id, { folder }));
  private files = new Files(
    api,
    new KeptConversations(localStorage),
    (words) => this.toast.show(words),
    () => void this.conversations.refresh(this.activeId),
  );
  private sidebar = new Sidebar({
    open: (id) => this.open(id, true),
    rename: (id, title) => void this.conversations.change(id, { title }),
    askTitle: (summary) => this.askTitle(summary),
    pin: (id, pinned) => void this.conversations.change(id, { pinned }),
    move: (summary) => this.folderDialog.open(summary, this.conversations.folders),
    export: (summary) => this.files.open(summary),
    share: (summary) => void this.shareDialog.open(summary),
    remove: (summary) => void this.remove(summary),
    more: () => void this.conversations.loadMore(),
    showFolder: (folder) => this.conversations.showFolder(folder),
  });
  private search = new Search(api, (found) => this.openFound(found));
  private judgementDialog = new JudgementDialog((message, judgement) => void this.judge(message, judgement));
  private reasonings = new OpenedReasonings(sessionStorage);
  private transcript = new Transcript(
    {
      regenerate: (message) => this.answerAgain(message),
      retry: (message) => this.retry(message),
      goOn: (message) => this.answerAgain(message, message.id),
      edit: (message, text) => this.edit(message, text),
      showVersion: (id) => this.showVersion(id),
      judge: (message, judgement) => void this.judge(message, judgement),
      openJudgement: (message) => this.judgementDialog.open(message),
      openReasoning: ({ id }, open) => this.reasonings.set(id, open),
    },
    { liveOf: (id) => this.requests.get(id), isReasoningOpen: (id) => this.reasonings.has(id) },
  );
  private drafts = new Drafts(sessionStorage);
  private nextQuestions = new NextQuestions(localStorage);
  private nextList = new NextList((question) => this.takeBack(question));
  private composer = new Composer(
    {
      send: (draft) => this.send(draft),
      stop: () => this.stop(),
      drafted: (draft) => this.drafted(draft),
    },
    this.limits.bytes,
  );
  private bannerTimer: ReturnType<typeof setTimeout> | undefined;
  /** Until the conversations were read once, nothing of another tab is sent from here. */
  private starting = true;

  async start(): Promise<void> {
    new Settings(
      () => this.showStorageFull(true),
      () => this.models.find(this.model),
      () => this.subject(),
    );
    this.addShortcuts();
    this.keepFresh();
    const asked = modelInAddress();
    if (asked) savePreferences({ model: asked });
    this.open(idInAddress(), false);
    this.onConnection(false);
    this.connection.open();
    void this.models.refresh();
    setInterval(() => this.tick(), 1_000);
    await this.conversations.refresh(undefined);
    await this.conversations.loadUnsent();
    this.starting = false;
    if (!asked) this.openRunning();
  }

  /** Whoever comes back to a bare address finds the answer that runs. */
  private openRunning(): void {
    const { typed, attachments } = this.drafts.get(undefined);
    const running = this.conversations.list().find((summary) => summary.running);
    if (running && !this.activeId && !typed && attachments.length === 0) this.open(running.id, false);
  }

  /** What other tabs and devices do is seen when this page is looked at. */
  private keepFresh(): void {
    const look = () => document.hidden || void this.lookAgain();
    window.addEventListener("hashchange", () => this.open(idInAddress(), false));
    window.addEventListener("storage", (event) => this.onOtherTab(event));
    window.addEventListener("pageshow", (event) => event.persisted && look());
    window.addEventListener("online", look);
    document.addEventListener("visibilitychange", look);
    setInterval(() => document.hidden || void this.conversations.refresh(this.activeId), REFRESH_MS);
  }

  private async lookAgain(): Promise<void> {
    await this.conversations.refresh(undefined);
    if (this.activeId) await this.conversations.load(this.activeId);
  }

  // ── what the user does ──────────────────────────────────────────────────────────────────────────────────────────

  private open(id: string | undefined, focus: boolean): void {
    this.activeId = id;
    const address = id ? `#/c/${id}` : "#/";
    if (location.hash !== address) history[focus ? "pushState" : "replaceState"](null, "", address);
    this.composer.write(this.drafts.get(id));
    if (focus || !matchMedia("(pointer: coarse)").matches) this.composer.focus();
    this.painter.all();
    if (id) void this.loadOpen(id);
  }

  private async loadOpen(id: string): Promise<void> {
    if (this.conversations.get(id)?.messages.every(({ local }) => local)) return; // it is being sent
    if (!(await this.conversations.load(id)) && id === this.activeId) this.open(undefined, false);
  }

  private openFound({ conversation_id, message_id, role }: Found): void {
    this.sidebar.close();
    this.open(conversation_id, true);
    if (role !== "title") void this.pointOut(conversation_id, message_id);
  }

  /** Shows the path that leads through a message. */
  private async pointOut(id: string, messageId: string): Promise<void> {
    if (!this.conversations.get(id)) await this.conversations.load(id);
    const conversation = this.conversations.get(id);
    if (!conversation) return;
    if (!pathOf(conversation).some((message) => message.id === messageId)) this.showVersion(messageId);
    this.transcript.pointOut(messageId);
  }

  private send(draft: Draft): boolean {
    const text = withAttachments(draft.typed, draft.attachments);
    if (!this.model || this.refuses(text)) return false;
    const { active } = this;
    if (this.activeId && !active) return false; // it is still being read
    if (active && this.isBusy(active.id)) return this.askNext(active.id, text);
    const sent = active ? this.askIn(active, endOf(active), text) : this.begin(draft, text);
    if (sent) this.drafts.set(this.activeId, NOTHING);
    return sent;
  }

  private begin(draft: Draft, text: string): boolean {
    const id = newId();
    const { system } = loadPreferences();
    const name = draft.typed ? undefined : draft.attachments[0]?.name;
    this.drafts.set(undefined, NOTHING);
    this.ask(id, loadPreferences(), {
      parent: null,
      question: { id: newId(), content: text },
      ...(system.trim() && { system }),
      ...(name && { title: name }),
    });
    this.open(id, true);
    return true;
  }

  /** A new version of the question; the one before stays. */
  private edit(message: Message, text: string): boolean {
    const { active } = this;
    if (!active || !this.model || this.refuses(text)) return false;
    return this.askIn(active, message.parent_id, text);
  }

  private askIn(conversation: Conversation, parent: string | null, content: string): boolean {
    if (this.requests.of(conversation.id)) return false;
    this.ask(conversation.id, choicesOf(conversation), { parent, question: { id: newId(), content } });
    return true;
  }

  /** One more version of an answer, which may begin with the text of another one. */
  private answerAgain({ parent_id }: Message, continues?: string): void {
    const { active } = this;
    if (!active || !this.model || this.requests.of(active.id)) return;
    this.ask(active.id, choicesOf(active), { parent: parent_id, ...(continues && { continues }) });
  }

  /** A question that was refused is asked as it was; to one that was answered, there is one more answer. */
  private retry(message: Message): void {
    const ask = this.outbox.get(message.id)?.ask;
    if (ask) this.sendOff(ask);
    else this.answerAgain(message);
  }

  private ask(conversation: string, choices: Choices, what: Omit<Ask, "conversation" | "id" | "model">): void {
    const ask: Ask = {
      conversation,
      id: newId(),
      model: this.model,
      sampling: choices.sampling,
      ...thinkingOf(choices, this.models.find(this.model)),
      ...what,
    };
    this.sendOff(ask);
    this.painter.now();
    this.transcript.toEnd();
    this.composer.focus();
  }

  private sendOff(ask: Ask): void {
    this.conversations.add({ ask, created_ms: Date.now(), tab: this.tab });
  }

  /** Says so when the server would not take a message of this size. */
  private refuses(text: string): boolean {
    const system = this.active ? this.active.system : loadPreferences().system;
    const why = describeTooLarge(text, system, this.limits);
    this.composer.refuse(why);
    return why !== "";
  }

  private showVersion(id: string): void {
    const { active } = this;
    const leaf = active && leafOf(active.messages, id);
    if (leaf) this.conversations.show(active.id, leaf);
  }

  private async judge({ id }: Message, judgement: Judgement): Promise<void> {
    const { activeId } = this;
    if (!activeId) return;
    const before = this.active?.messages.find((message) => message.id === id)?.feedback ?? null;
    const show = (feedback: Message["feedback"]) =>
      this.conversations.changeMessage(activeId, id, (message) => (message.feedback = feedback));
    show(feedbackOf(judgement));
    try {
      await api.judge(id, judgement);
      this.say(judgement.verdict === "none" ? "Your judgement is taken back" : "Your judgement is kept");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      show(before);
      this.toast.show(`Your judgement was not kept: ${error.message}`);
    }
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
        { key: "s", does: "Search your conversations", run: () => this.search.focus() },
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

  private async remove({ id, title }: Summary): Promise<void> {
    this.requests.abandon(id);
    if (id === this.activeId) this.open(undefined, true);
    const until_ms = await this.conversations.remove(id);
    if (until_ms === undefined) return;
    const undo = { label: "Undo", run: () => void this.conversations.restore(id) };
    this.toast.show(`“${title}” is deleted.`, until_ms > 0 ? undo : undefined, UNDO_MS);
  }

  private askTitle({ id, title }: Summary): void {
    this.toast.show(`The model looks for a title of “${title}”`);
    void this.conversations.askTitle(id);
  }

  private chooseModel(name: string): void {
    savePreferences({ model: name });
    if (this.active) void this.conversations.change(this.active.id, { model: name });
    this.painter.all();
  }

  /** What the settings are about. A conversation that is still being read has its own. */
  private async subject(): Promise<Subject> {
    if (this.activeId && !this.active) await this.conversations.load(this.activeId);
    const { active } = this;
    if (active)
      return {
        scope: `For “${active.title}”, from your next message on.`,
        choices: choicesOf(active),
        save: (choices) =>
          void this.conversations.change(active.id, { system: choices.system, settings: settingsOf(choices) }),
      };
    const save = (choices: Choices) => this.showStorageFull(!savePreferences(choices));
    return { scope: "For new conversations.", choices: loadPreferences(), save };
  }

  private drafted(draft: Draft): void {
    this.drafts.set(this.activeId, draft);
    this.showContext();
  }

  // ── questions that wait for the running answer ──────────────────────────────────────────────────────────────────

  private isBusy(id: string): boolean {
    return this.requests.of(id) !== undefined || this.nextQuestions.list(id).length > 0;
  }

  private askNext(id: string, content: string): boolean {
    if (!this.nextQuestions.add(id, { questionId: newId(), answerId: newId(), content })) {
      this.showStorageFull(true);
      return false;
    }
    this.drafts.set(id, NOTHING);
    this.say("Your question waits for the end of this answer");
    this.painter.all();
    return true;
  }

  private takeBack(question: NextQuestion): void {
    if (!this.activeId) return;
    this.nextQuestions.remove(this.activeId, question);
    const draft = this.drafts.get(this.activeId);
    if (!draft.typed && draft.attachments.length === 0) {
      this.drafts.set(this.activeId, splitAttachments(question.content));
      this.composer.write(this.drafts.get(this.activeId));
    }
    this.composer.focus();
    this.painter.all();
  }

  /** The next question is asked when the answer before it came; after a failure it waits for the user's Retry. */
  private askWaiting(id: string): void {
    const conversation = this.conversations.get(id);
    const [next] = this.nextQuestions.list(id);
    if (!conversation || !next || this.requests.of(id)) return;
    const last = pathOf(conversation).at(-1);
    if (last?.state !== "finished" && last?.state !== "cancelled") return;
    this.nextQuestions.remove(id, next);
    const choices = choicesOf(conversation);
    this.sendOff({
      conversation: id,
      id: next.answerId,
      parent: last.id,
      question: { id: next.questionId, content: next.content },
      model: conversation.model || this.model,
      sampling: choices.sampling,
      ...thinkingOf(choices, this.models.find(conversation.model)),
    });
  }

  // ── what happens around ─────────────────────────────────────────────────────────────────────────────────────────

  private onConversation(id: string | undefined): void {
    const conversation = id ? this.conversations.get(id) : undefined;
    if (conversation) this.requests.follow(conversation, this.starting);
    else if (id && id === this.activeId) this.open(undefined, false); // another device deleted it
    if (id) this.askWaiting(id);
    this.painter.all();
  }

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

  /** Another tab asked something, or the server has what it asked. */
  private onOtherTab(event: StorageEvent): void {
    const id = conversationOf(event);
    if (id) void this.conversations.load(id);
    this.painter.all();
  }

  private onAnswer(live: Live, ended: boolean): void {
    this.painter.one(live.id);
    if (ended || live.phase !== "running" || live.cursor.length === 0) this.painter.all();
    if (ended && live.conversationId === this.activeId) {
      const message = this.active?.messages.find((m) => m.id === live.id);
      if (message) this.say(describeEnd(message));
    }
    if (ended) this.askWaiting(live.conversationId);
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
      this.picker.show(conversation?.model || loadPreferences().model, live?.phase === "running");
      this.sidebar.show(this.shelf, this.activeId);
      this.transcript.show(conversation);
      this.nextList.show(this.activeId ? this.nextQuestions.list(this.activeId) : []);
      this.showContext();
      document.title = conversation ? `${conversation.title} · ChatServer` : "ChatServer";
    } else if (conversation) {
      for (const id of messageIds) this.transcript.refresh(conversation, id);
    }
    this.sayWaiting(conversation, live);
    this.composer.show(live !== undefined, live?.cancelling ?? false, !this.model, live?.cursor.length ?? 0);
  }

  private get shelf() {
    const { folders, folder, hasMore } = this.conversations;
    return { conversations: this.conversations.list(), folders, folder, hasMore };
  }

  private showContext(): void {
    const { active } = this;
    const { typed, attachments } = this.drafts.get(this.activeId);
    const limit = this.models.find(this.model)?.context_tokens;
    setText(byId("context"), describeContext(active ? pathOf(active) : [], withAttachments(typed, attachments), limit));
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

/** `/?model=NAME`: a new conversation with it. Once: a reload keeps what was chosen since. */
function modelInAddress(): string | undefined {
  const name = new URLSearchParams(location.search).get("model") ?? undefined;
  if (name) history.replaceState(null, "", location.pathname + location.hash);
  return name;
}

/** How much the server takes in one message, as it wrote it into the page. */
function limitsOf({ maxCharacters, maxBytes }: DOMStringMap): Limits {
  return { characters: Number(maxCharacters), bytes: Number(maxBytes) };
}

function idInAddress(): string | undefined {
  return /^#\/c\/(.+)$/.exec(location.hash)?.[1];
}

void new ChatPage().start();
