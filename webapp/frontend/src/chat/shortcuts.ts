/**
 * Keys that do what a button does, and the dialog that lists them.
 *
 * They are single letters, which no browser takes, and work only outside text fields, where nobody writes with them; Esc
 * leaves the message box. A screen reader takes letters for itself while it reads a page. Whoever speaks to the browser
 * can switch the letters off.
 */

import { byId, h } from "../shared/dom";
import { loadPreferences, savePreferences } from "./preferences";

export interface Shortcut {
  key: string;
  does: string;
  run(): void;
}

export class Shortcuts {
  private dialog = byId<HTMLDialogElement>("shortcuts");
  private enabled = byId<HTMLInputElement>("shortcuts-enabled");
  private byKey: Map<string, Shortcut>;

  constructor(
    letters: Shortcut[],
    private onEscape: () => boolean,
  ) {
    const list: Shortcut = { key: "?", does: "Show this list", run: () => this.open() };
    this.byKey = new Map([...letters, list].map((shortcut) => [shortcut.key, shortcut]));
    this.describe();
    this.enabled.onchange = () => savePreferences({ shortcuts: this.enabled.checked });
    byId("open-shortcuts").onclick = () => this.open();
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  private onKey(event: KeyboardEvent): void {
    if (event.isComposing || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (this.onEscape()) event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || isWriting(event.target) || !loadPreferences().shortcuts)
      return;
    const shortcut = this.byKey.get(event.key.toLowerCase());
    if (!shortcut || event.repeat) return;
    event.preventDefault(); // the letter must not be typed where the focus goes
    shortcut.run();
  }

  private open(): void {
    this.enabled.checked = loadPreferences().shortcuts;
    this.dialog.showModal();
  }

  private describe(): void {
    byId("shortcut-list").replaceChildren(
      ...[...this.byKey.values()].flatMap(({ key, does }) => [
        h("dt", {}, h("kbd", {}, key.toUpperCase())),
        h("dd", {}, does),
      ]),
    );
  }
}

function isWriting(target: EventTarget | null): boolean {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;
}
