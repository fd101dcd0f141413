/** Repeats a request until the server answers it. Every request of the job form may be repeated without harm. */

import { ApiError } from "./api";

export interface Patience {
  signal: AbortSignal;
  pause(ms: number): Promise<void>;
  /** Why it waits; empty once it goes on. */
  trouble(text: string): void;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8_000;

/** What `ask` answers. Throws an ApiError that does not pass, or the signal's reason. */
export async function persist<T>(ask: () => Promise<T>, { signal, pause, trouble }: Patience): Promise<T> {
  for (let pause_ms = FIRST_PAUSE_MS; ; pause_ms = Math.min(2 * pause_ms, LONGEST_PAUSE_MS)) {
    signal.throwIfAborted();
    try {
      const answer = await ask();
      if (pause_ms > FIRST_PAUSE_MS) trouble("");
      return answer;
    } catch (error) {
      if (!(error instanceof ApiError) || !error.passes) throw error;
      trouble(error.message);
      await pause(pause_ms);
    }
  }
}
