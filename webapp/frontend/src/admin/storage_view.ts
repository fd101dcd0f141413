/** How full the disk is and what takes the room. */

import { bytes } from "../shared/amounts";
import { byId, setText } from "../shared/dom";
import type { Actions } from "./actions";
import { api } from "./api";
import type { Storage } from "./protocol";
import { type Shape, Table } from "./table";
import { diskFraction, namedEntries } from "./words";

interface Entry {
  name: string;
  bytes: number;
  trouble: string;
}

const ENTRIES: Shape<Entry> = {
  keyOf: (entry) => entry.name,
  empty: "The state folder is empty.",
  columns: [
    { label: "What", kind: "name", text: (entry) => entry.name, more: (entry) => entry.trouble },
    { label: "Size", kind: "number", text: (entry) => (entry.trouble ? "" : bytes(entry.bytes)) },
  ],
};

export class StorageView {
  private table: Table<Entry>;

  constructor(actions: Actions) {
    this.table = new Table(byId("storage-table"), "What takes the room", ENTRIES, actions);
  }

  async refresh(): Promise<void> {
    const storage = await api.storage();
    const { kind, ...database } = storage.database;
    const entries = namedEntries(storage.entries).map((entry) => ({ ...entry, trouble: "" }));
    this.table.show([{ name: `Database (${kind})`, ...database }, ...entries]);
    this.showDisk(storage);
  }

  private showDisk(storage: Storage): void {
    const fraction = diskFraction(storage);
    const full = storage.free_bytes < storage.few_bytes;
    setText(
      byId("disk-text"),
      `${bytes(storage.free_bytes)} of ${bytes(storage.total_bytes)} are free on the disk of ${storage.folder}` +
        (full ? ": nothing new is accepted" : ""),
    );
    const bar = byId("disk-bar");
    bar.classList.toggle("full", full);
    (bar.firstElementChild as HTMLElement).style.width = `${100 * fraction}%`;
  }
}
