/** The list of conversations: open, rename in place, export, delete. On a phone it is a drawer. */

import { confirmDialog } from "../shared/dialogs";
import { byId, h, icon } from "../shared/dom";
import { type Conversation, exportOf } from "./conversations";

export interface SidebarActions {
  open(id: string | undefined): void;
  rename(id: string, title: string): void;
  remove(id: string): void;
}

export class Sidebar {
  private element = byId("sidebar");
  private list = byId("conversations");
  private toggle = byId<HTMLButtonElement>("menu");
  private narrow = matchMedia("(max-width: 800px)");
  private drawn = "";
  private renaming = false;

  constructor(private actions: SidebarActions) {
    byId("new").onclick = () => this.pick(undefined);
    this.toggle.onclick = () => this.setOpen(!this.isOpen);
    byId("backdrop").onclick = () => this.setOpen(false);
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.narrow.matches) return;
      event.preventDefault();
      this.setOpen(false);
      this.toggle.focus();
    });
    this.narrow.addEventListener("change", () => this.setOpen(!this.narrow.matches));
    this.setOpen(!this.narrow.matches);
  }

  show(conversations: Conversation[], activeId: string | undefined, isRunning: (id: string) => boolean): void {
    const key = JSON.stringify([activeId, conversations.map((c) => [c.id, c.title, isRunning(c.id)])]);
    if (this.renaming || key === this.drawn) return;
    this.drawn = key;
    const focused = (document.activeElement as HTMLElement | null)?.closest<HTMLElement>("[data-conversation-id]")
      ?.dataset.conversationId;
    this.list.replaceChildren(...conversations.map((c) => this.item(c, c.id === activeId, isRunning(c.id))));
    if (focused) this.list.querySelector<HTMLElement>(`[data-conversation-id="${CSS.escape(focused)}"] .open`)?.focus();
  }

  private get isOpen(): boolean {
    return document.body.classList.contains("sidebar-open");
  }

  private setOpen(open: boolean): void {
    document.body.classList.toggle("sidebar-open", open);
    this.toggle.setAttribute("aria-expanded", String(open));
    this.element.inert = !open;
    byId("main").inert = open && this.narrow.matches;
  }

  private pick(id: string | undefined): void {
    if (this.narrow.matches) this.setOpen(false);
    this.actions.open(id);
  }

  private item(conversation: Conversation, active: boolean, running: boolean): HTMLElement {
    const { id, title } = conversation;
    const open = h(
      "button",
      { type: "button", class: "open", title, onclick: () => this.pick(id) },
      h("span", { class: "title" }, title),
      running && h("span", { class: "pulse", role: "img", "aria-label": "answering" }),
    );
    if (active) open.setAttribute("aria-current", "page");
    const item = h(
      "li",
      { class: "conversation", "data-testid": "conversation", "data-conversation-id": id },
      open,
      h(
        "span",
        { class: "tools" },
        this.tool("edit", `Rename ${title}`, "rename", () => this.rename(item, conversation)),
        this.tool("download", `Export ${title}`, "export", () => download(conversation)),
        this.tool("trash", `Delete ${title}`, "delete", () => void this.remove(conversation)),
      ),
    );
    return item;
  }

  private tool(name: string, label: string, testid: string, onclick: () => void): HTMLButtonElement {
    return h(
      "button",
      { type: "button", class: "tool", title: label, "aria-label": label, "data-testid": testid, onclick },
      icon(name),
    );
  }

  private rename(item: HTMLElement, { id, title }: Conversation): void {
    this.renaming = true;
    const input = h("input", {
      type: "text",
      "aria-label": "New title",
      "data-testid": "rename-input",
      maxlength: "120",
    });
    input.value = title;
    const finish = (keep: boolean) => {
      if (!this.renaming) return;
      this.renaming = false;
      this.drawn = "";
      this.actions.rename(id, keep && input.value.trim() ? input.value.trim() : title);
    };
    input.onkeydown = (event) => {
      if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
      event.preventDefault();
      event.stopPropagation();
      finish(event.key === "Enter");
    };
    input.onblur = () => finish(true);
    item.replaceChildren(input);
    input.focus();
    input.select();
  }

  private async remove({ id, title }: Conversation): Promise<void> {
    const sure = await confirmDialog(
      "Delete this conversation?",
      `“${title}” will be removed from this browser. This cannot be undone.`,
      "Delete",
    );
    if (sure) this.actions.remove(id);
  }
}

function download(conversation: Conversation): void {
  const file = new Blob([JSON.stringify(exportOf(conversation), null, 2)], { type: "application/json" });
  const url = URL.createObjectURL(file);
  const name =
    conversation.title
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .replace(/^-+|-+$/g, "")
      .toLowerCase() || "conversation";
  h("a", { href: url, download: `${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
