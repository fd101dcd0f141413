/** Which reasonings the reader has opened, remembered by this tab over a reload. */

const KEY = "chatserver.opened";
const REMEMBERED = 100;

export class OpenedReasonings {
  private ids: string[];

  constructor(private storage: Pick<Storage, "getItem" | "setItem">) {
    this.ids = JSON.parse(storage.getItem(KEY) ?? "[]") as string[];
  }

  has(id: string): boolean {
    return this.ids.includes(id);
  }

  set(id: string, open: boolean): void {
    const others = this.ids.filter((one) => one !== id);
    this.ids = (open ? [...others, id] : others).slice(-REMEMBERED);
    try {
      this.storage.setItem(KEY, JSON.stringify(this.ids));
    } catch {
      /* full: until the next load */
    }
  }
}
