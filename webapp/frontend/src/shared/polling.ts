/** Asks again and again: every second or so while something goes on, seldom while nobody looks, slower while nobody answers. */

export const EVERY_MS = 1_000;
export const HIDDEN_MS = 15_000;
export const LONGEST_MS = 10_000;

/** Until the next question; undefined: nothing is left to be asked. */
export function nextDelay(
  state: { unfinished: boolean; hidden: boolean; failures: number },
  every_ms = EVERY_MS,
): number | undefined {
  if (state.failures > 0) return Math.min(EVERY_MS * 2 ** (state.failures - 1), LONGEST_MS) * (state.hidden ? 3 : 1);
  if (!state.unfinished) return undefined;
  return state.hidden ? HIDDEN_MS : every_ms;
}

export class Polling {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private failures = 0;
  private asking = false;
  private askAgain = false;

  /** `ask` answers whether there is something unfinished; what it throws is told to `away`, and asked again. */
  constructor(
    private ask: () => Promise<boolean>,
    private away: (error: unknown) => void,
    private every_ms = EVERY_MS,
  ) {
    document.addEventListener("visibilitychange", () => document.hidden || this.now());
  }

  /** Ask at once; while a question is under way, once more after it. */
  now(): void {
    clearTimeout(this.timer);
    if (this.asking) this.askAgain = true;
    else void this.run();
  }

  stop(): void {
    clearTimeout(this.timer);
    this.ask = () => Promise.resolve(false);
  }

  private async run(): Promise<void> {
    this.asking = true;
    let unfinished = false;
    try {
      unfinished = await this.ask();
      this.failures = 0;
    } catch (error) {
      this.failures += 1;
      this.away(error);
    }
    this.asking = false;
    const state = { unfinished, hidden: document.hidden, failures: this.failures };
    const delay_ms = this.askAgain ? 0 : nextDelay(state, this.every_ms);
    this.askAgain = false;
    if (delay_ms !== undefined) this.timer = setTimeout(() => void this.run(), delay_ms);
  }
}
