/** Conversations as files: the dialog that exports one or all, the import, and the move of what this browser kept. */

import { byId, h, setText } from "../shared/dom";
import { ApiError } from "../shared/http";
import { type ApiClient, type ExportFormat, exportAddress, type Imported } from "./api";
import type { KeptConversations } from "./kept";
import type { Summary } from "./tree";

export class Files {
  private dialog = byId<HTMLDialogElement>("export");
  private moveButton = byId<HTMLButtonElement>("move-kept");
  private id: string | undefined;

  /** `say`: to the user. `changed`: there may be new conversations. */
  constructor(
    private server: Pick<ApiClient, "importFile" | "takeOver">,
    private kept: KeptConversations,
    private say: (words: string) => void,
    private changed: () => void,
  ) {
    for (const button of this.dialog.querySelectorAll<HTMLButtonElement>("[data-format]"))
      button.onclick = () => this.download(button.dataset.format as ExportFormat);
    byId("export-all").onclick = () => this.open(undefined);
    const chooser = byId<HTMLInputElement>("import-file");
    byId("import").onclick = () => chooser.click();
    chooser.onchange = () => {
      void this.importAll(Array.from(chooser.files ?? []));
      chooser.value = "";
    };
    this.moveButton.onclick = () => void this.move();
    this.offerMove();
  }

  /** Without a conversation: of all. */
  open(summary: Summary | undefined): void {
    this.id = summary?.id;
    setText(byId("export-what"), summary ? `“${summary.title}”` : "All conversations");
    this.dialog.showModal();
  }

  private download(format: ExportFormat): void {
    this.dialog.close();
    h("a", { href: exportAddress(format, this.id), download: "" }).click();
  }

  private async importAll(files: File[]): Promise<void> {
    for (const file of files) this.say(await this.importOne(file));
    this.changed();
  }

  private async importOne(file: File): Promise<string> {
    try {
      return `${file.name}: ${describeImport(await this.server.importFile(file))}`;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return `${file.name} was not imported: ${error.message}`;
    }
  }

  // ── what earlier versions kept in this browser ──────────────────────────────────────────────────────────────────

  private offerMove(): void {
    const { length } = this.kept.list();
    this.moveButton.hidden = length === 0;
    setText(this.moveButton, `Move ${conversations(length)} from this browser to the server`);
  }

  private async move(): Promise<void> {
    this.moveButton.disabled = true;
    try {
      const left = await this.kept.moveTo(this.server);
      this.say(left === 0 ? "All your conversations are on the server." : `${conversations(left)} could not be moved.`);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(`Not all conversations were moved; the others stay in this browser. ${error.message}`);
    } finally {
      this.moveButton.disabled = false;
      this.offerMove();
      this.changed();
    }
  }
}

export function describeImport({ imported, skipped }: Imported): string {
  const [first] = skipped;
  const left = first
    ? ` ${skipped.length} left out: “${first.title}” (${first.reason})${skipped.length > 1 ? " and others" : ""}.`
    : "";
  return `${conversations(imported)} imported.${left}`;
}

function conversations(number: number): string {
  return number === 1 ? "1 conversation" : `${number.toLocaleString("en")} conversations`;
}
