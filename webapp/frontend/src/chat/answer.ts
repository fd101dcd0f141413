/**
 * The cursor of one answer: which text we hold, and what each event does to it. Pure; offsets are Unicode code points.
 *
 * Invariant: `text` is always a prefix of the answer as the server told it under `nonce`.
 */

import type { DoneEvent, RewindEvent, TokensEvent } from "./protocol";

export interface Cursor {
  text: string;
  length: number;
  nonce: string;
}

/** `gap`: text is missing, watch again from the cursor. `repeat`: already here, nothing to do. */
export type Outcome = "applied" | "repeat" | "gap";

export function cursorAt(text: string, nonce: string): Cursor {
  return { text, length: countCodePoints(text), nonce };
}

export function applyTokens(cursor: Cursor, event: TokensEvent): Outcome {
  if (event.offset < cursor.length) return "repeat";
  if (event.offset > cursor.length) return "gap";
  cursor.text += event.text;
  cursor.length += countCodePoints(event.text);
  cursor.nonce = event.nonce;
  return "applied";
}

/** A rewind beyond our end changes nothing here: the text before it is still to come. */
export function applyRewind(cursor: Cursor, event: RewindEvent): Outcome {
  if (event.offset > cursor.length) return "gap";
  cursor.text = cursor.text.slice(0, utf16Index(cursor.text, event.offset));
  cursor.length = event.offset;
  cursor.nonce = event.nonce;
  return "applied";
}

/** The end is believed only when the whole answer is here. */
export function applyDone(cursor: Cursor, event: DoneEvent): Outcome {
  return event.offset === cursor.length ? "applied" : "gap";
}

export function countCodePoints(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i += width(text, i)) count++;
  return count;
}

function utf16Index(text: string, codePoints: number): number {
  let i = 0;
  for (let n = 0; n < codePoints && i < text.length; n++) i += width(text, i);
  return i;
}

function width(text: string, i: number): 1 | 2 {
  return (text.codePointAt(i) as number) > 0xffff ? 2 : 1;
}
