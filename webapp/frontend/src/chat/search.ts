/** The search over all conversations: results take the place of the sidebar's list while something is typed. */

import { byId, h, setText } from "../shared/dom";
import { ApiError } from "../shared/http";
import type { ApiClient, Found } from "./api";

const PAUSE_MS = 150;

export class Search {
  private input = byId<HTMLInputElement>("search");
  private results = byId("results");
  private words = byId("search-words");
  private list = byId("list");
  private timer: ReturnType<typeof setTimeout> | undefined;
  private running: AbortController | undefined;

  constructor(
    private server: Pick<ApiClient, "search">,
    private open: (found: Found) => void,
  ) {
    this.input.oninput = () => this.soon();
    this.input.onkeydown = (event) => {
      if (event.key !== "Escape" || !this.input.value) return;
      event.preventDefault();
      event.stopPropagation();
      this.clear();
    };
  }

  focus(): void {
    this.input.focus();
    this.input.select();
  }

  private clear(): void {
    this.input.value = "";
    this.soon();
  }

  private soon(): void {
    clearTimeout(this.timer);
    this.running?.abort();
    const text = this.input.value.trim();
    this.list.hidden = text !== "";
    this.results.hidden = text === "";
    if (text) this.timer = setTimeout(() => void this.search(text), PAUSE_MS);
    else this.show("", []);
  }

  private async search(text: string): Promise<void> {
    this.running = new AbortController();
    const { signal } = this.running;
    try {
      const { results } = await this.server.search(text, signal);
      if (!signal.aborted) this.show(describe(results.length), results);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.show(error.message, []);
    }
  }

  private show(words: string, results: Found[]): void {
    setText(this.words, words);
    this.results.replaceChildren(...results.map((found) => this.item(found)));
  }

  private item(found: Found): HTMLLIElement {
    return h(
      "li",
      { "data-testid": "result" },
      h(
        "button",
        { type: "button", class: "open", onclick: () => this.open(found) },
        h("span", { class: "title" }, found.title),
        h("span", { class: "snippet" }, ...found.snippet.map(([text, isHit]) => (isHit ? h("mark", {}, text) : text))),
      ),
    );
  }
}

function describe(found: number): string {
  return found === 0 ? "Nothing found" : found === 1 ? "1 message found" : `${found} messages found`;
}
