/** The list of models, asked for again and again: often while one is to come, seldom otherwise, not when hidden. */

import type { Model } from "./protocol";

const REFRESH_MS = 15_000;
const REFRESH_WAITING_MS = 3_000;

export class Models {
  list: Model[] = [];
  state: "loading" | "known" | "unreachable" = "loading";
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private changed: () => void) {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) void this.refresh();
    });
  }

  get served(): boolean {
    return this.list.some((model) => model.workers > 0);
  }

  /** One more will be served soon. */
  get coming(): boolean {
    return this.list.some((model) => model.state === "loading" || model.state === "wanted");
  }

  find(name: string): Model | undefined {
    return this.list.find((model) => model.name === name);
  }

  async refresh(): Promise<void> {
    clearTimeout(this.timer);
    try {
      const response = await fetch("/api/models", { credentials: "same-origin" });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      this.list = ((await response.json()) as { models: Model[] }).models;
      this.state = "known";
    } catch (error) {
      console.warn("the list of models could not be read:", error);
      this.state = "unreachable";
    }
    this.changed();
    clearTimeout(this.timer);
    const pause_ms = this.served && !this.coming ? REFRESH_MS : REFRESH_WAITING_MS;
    if (!document.hidden) this.timer = setTimeout(() => void this.refresh(), pause_ms);
  }
}
