/** The list of conversations: open, pin, rename in place, and a menu for the rest. On a phone it is a drawer. */

import { byId, h, icon } from "../shared/dom";
import { type Action, menu } from "./menu";
import type { Summary } from "./tree";

export interface SidebarActions {
  open(id: string | undefined): void;
  rename(id: string, title: string): void;
  askTitle(summary: Summary): void;
  pin(id: string, pinned: boolean): void;
  move(summary: Summary): void;
  export(summary: Summary): void;
  share(summary: Summary): void;
  remove(summary: Summary): void;
  more(): void;
  showFolder(folder: string): void;
}

export interface Shelf {
  conversations: Summary[];
  folders: string[];
  folder: string;
  hasMore: boolean;
}

export class Sidebar {
  private element = byId("sidebar");
  private list = byId("conversations");
  private folders = byId<HTMLSelectElement>("folder");
  private moreButton = byId<HTMLButtonElement>("more-conversations");
  private toggle = byId<HTMLButtonElement>("menu");
  private narrow = matchMedia("(max-width: 800px)");
  private drawn = "";
  private renaming = false;

  constructor(private actions: SidebarActions) {
    byId("new").onclick = () => this.pick(undefined);
    this.moreButton.onclick = () => this.actions.more();
    this.folders.onchange = () => this.actions.showFolder(this.folders.value);
    this.toggle.onclick = () => this.setOpen(!this.isOpen);
    byId("backdrop").onclick = () => this.setOpen(false);
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.narrow.matches || event.defaultPrevented) return;
      if (this.element.querySelector(":popover-open")) return;
      event.preventDefault();
      this.close();
    });
    this.narrow.addEventListener("change", () => this.setOpen(!this.narrow.matches));
    this.setOpen(!this.narrow.matches);
  }

  show({ conversations, folders, folder, hasMore }: Shelf, activeId: string | undefined): void {
    const shown = conversations.map((c) => [c.id, c.title, c.running, c.pinned]);
    const key = JSON.stringify([activeId, shown, folders, folder, hasMore]);
    if (this.renaming || key === this.drawn || this.list.querySelector(":popover-open")) return;
    this.drawn = key;
    const focused = (document.activeElement as HTMLElement | null)?.closest<HTMLElement>("[data-conversation-id]")
      ?.dataset.conversationId;
    this.list.replaceChildren(...conversations.map((c) => this.item(c, c.id === activeId)));
    if (focused) this.list.querySelector<HTMLElement>(`[data-conversation-id="${CSS.escape(focused)}"] .open`)?.focus();
    this.moreButton.hidden = !hasMore;
    this.showFolders(folders, folder);
  }

  /** On a phone the list gives way to what was picked. */
  close(): void {
    if (!this.narrow.matches || !this.isOpen) return;
    this.setOpen(false);
    this.toggle.focus();
  }

  private showFolders(names: string[], chosen: string): void {
    const all = chosen && !names.includes(chosen) ? [...names, chosen] : names;
    byId("folders").hidden = all.length === 0;
    this.folders.replaceChildren(
      h("option", { value: "" }, "All conversations"),
      ...all.map((name) => h("option", { value: name, selected: name === chosen }, name)),
    );
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

  private item(conversation: Summary, active: boolean): HTMLElement {
    const { id, title, running, pinned } = conversation;
    const open = h(
      "button",
      { type: "button", class: "open", title, onclick: () => this.pick(id) },
      pinned && icon("pin"),
      h("span", { class: "title" }, title),
      running && h("span", { class: "pulse", role: "img", "aria-label": "answering", "data-testid": "running" }),
    );
    if (active) open.setAttribute("aria-current", "page");
    const item = h("li", { class: "conversation", "data-testid": "conversation", "data-conversation-id": id }, open);
    item.append(...menu(`Actions on ${title}`, "more", () => this.actionsOf(conversation, item)));
    return item;
  }

  private actionsOf(summary: Summary, item: HTMLElement): Action[] {
    const { id, pinned } = summary;
    const { actions } = this;
    return [
      { label: pinned ? "Unpin" : "Pin", symbol: "pin", testid: "pin", run: () => actions.pin(id, !pinned) },
      { label: "Rename", symbol: "edit", testid: "rename", run: () => this.rename(item, summary) },
      { label: "Let the model name it", symbol: "again", testid: "title", run: () => actions.askTitle(summary) },
      { label: "Move to a folder", symbol: "folder", testid: "move", run: () => actions.move(summary) },
      { label: "Export", symbol: "download", testid: "export", run: () => actions.export(summary) },
      { label: "Share by link", symbol: "link", testid: "share", run: () => actions.share(summary) },
      { label: "Delete", symbol: "trash", testid: "delete", run: () => actions.remove(summary) },
    ];
  }

  private rename(item: HTMLElement, { id, title }: Summary): void {
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
}
