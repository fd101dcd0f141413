/** The dialog that makes and ends a conversation's read-only link. There is none until the user makes it. */

import { byId, copyText, setText } from "../shared/dom";
import { ApiError } from "../shared/http";
import type { ApiClient } from "./api";
import type { Summary } from "./tree";

export class ShareDialog {
  private dialog = byId<HTMLDialogElement>("share");
  private link = byId<HTMLInputElement>("share-link");
  private make = byId<HTMLButtonElement>("share-make");
  private copy = byId<HTMLButtonElement>("share-copy");
  private end = byId<HTMLButtonElement>("share-end");
  private id = "";

  constructor(private server: Pick<ApiClient, "get" | "share" | "endShare">) {
    this.make.onclick = () => void this.attempt(() => this.share());
    this.end.onclick = () => void this.attempt(() => this.stop());
    this.copy.onclick = async () => {
      const copied = await copyText(this.link.value);
      this.say(copied ? "The link is copied." : "Copying failed: mark the link and copy it.");
    };
  }

  async open({ id, title }: Summary): Promise<void> {
    this.id = id;
    setText(byId("share-what"), `“${title}”`);
    this.show("");
    this.dialog.showModal();
    await this.attempt(async () => {
      const { shared_as } = await this.server.get(id);
      this.show(shared_as ? `/shared/${shared_as}` : "");
    });
  }

  private async share(): Promise<void> {
    const { url } = await this.server.share(this.id);
    this.show(url);
    this.link.select();
  }

  private async stop(): Promise<void> {
    await this.server.endShare(this.id);
    this.show("");
    this.say("The link leads nowhere any more.");
  }

  private show(url: string): void {
    byId("share-shown").hidden = url === "";
    this.link.value = url && new URL(url, location.href).href;
    this.make.hidden = url !== "";
    this.copy.hidden = this.end.hidden = url === "";
    this.say("");
  }

  private say(words: string): void {
    setText(byId("share-words"), words);
  }

  private async attempt(run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.say(error.message);
    }
  }
}
