/** Collects changes and paints them at most once per frame; a slow paint waits longer before the next. */

export class Painter {
  private pending: Set<string> | "all" = new Set();
  private scheduled = false;
  private notBefore_ms = 0;

  constructor(private paint: (messageIds: Set<string> | "all") => void) {}

  all(): void {
    this.pending = "all";
    this.schedule();
  }

  /** For what the user just did: a key pressed right after must find the page changed. */
  now(): void {
    this.pending = "all";
    this.run();
  }

  one(messageId: string): void {
    if (this.pending !== "all") this.pending.add(messageId);
    this.schedule();
  }

  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    const wait_ms = this.notBefore_ms - performance.now();
    if (wait_ms > 0) setTimeout(() => requestAnimationFrame(() => this.run()), wait_ms);
    else requestAnimationFrame(() => this.run());
  }

  private run(): void {
    const { pending } = this;
    this.scheduled = false;
    if (pending !== "all" && pending.size === 0) return;
    this.pending = new Set();
    const start_ms = performance.now();
    this.paint(pending);
    const now_ms = performance.now();
    this.notBefore_ms = now_ms + 4 * (now_ms - start_ms);
  }
}
