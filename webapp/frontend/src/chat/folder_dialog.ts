/** The dialog that moves a conversation to a folder, which it may make. */

import { byId, h, setText } from "../shared/dom";
import type { Summary } from "./tree";

export class FolderDialog {
  private dialog = byId<HTMLDialogElement>("move");
  private input = byId<HTMLInputElement>("move-folder");
  private id = "";

  constructor(move: (id: string, folder: string) => void) {
    this.dialog.addEventListener("close", () => {
      if (this.dialog.returnValue === "save") move(this.id, this.input.value.trim());
    });
  }

  open({ id, title, folder }: Summary, folders: string[]): void {
    this.id = id;
    setText(byId("move-what"), `“${title}”`);
    byId("folder-names").replaceChildren(...folders.map((name) => h("option", { value: name })));
    this.input.value = folder;
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }
}
