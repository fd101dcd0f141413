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
  parts: Part[];
}

/** From `index` on (of the string, not code points) the text is of this kind; before the first part it is answer. */
export interface Part {
  index: number;
  kind: string;
}

const ANSWER = "answer";

/** `gap`: text is missing, watch again from the cursor. `repeat`: already here, nothing to do. */
export type Outcome = "applied" | "repeat" | "gap";

export function cursorAt(text: string, nonce: string, parts: Part[] = []): Cursor {
  return { text, length: countCodePoints(text), nonce, parts: [...parts] };
}

/** The kind of the text that came last. */
export function partOf({ parts }: Pick<Cursor, "parts">): string {
  return parts.at(-1)?.kind ?? ANSWER;
}

/** Text of a kind that this page does not know is nowhere. */
export function split({ text, parts }: Pick<Cursor, "text" | "parts">): { reasoning: string; answer: string } {
  const found = { reasoning: "", answer: text.slice(0, parts[0]?.index) };
  parts.forEach(({ index, kind }, i) => {
    const piece = text.slice(index, parts[i + 1]?.index);
    if (kind === "reasoning") found.reasoning += piece;
    else if (kind === ANSWER) found.answer += piece;
  });
  return found;
}

export function applyTokens(cursor: Cursor, event: TokensEvent): Outcome {
  if (event.offset < cursor.length) return "repeat";
  if (event.offset > cursor.length) return "gap";
  const kind = event.part ?? ANSWER;
  if (kind !== partOf(cursor)) cursor.parts.push({ index: cursor.text.length, kind });
  cursor.text += event.text;
  cursor.length += countCodePoints(event.text);
  cursor.nonce = event.nonce;
  return "applied";
}

/** A rewind beyond our end changes nothing here: the text before it is still to come. */
export function applyRewind(cursor: Cursor, event: RewindEvent): Outcome {
  if (event.offset > cursor.length) return "gap";
  cursor.text = cursor.text.slice(0, utf16Index(cursor.text, event.offset));
  cursor.parts = cursor.parts.filter(({ index }) => index < cursor.text.length);
  cursor.length = event.offset;
  cursor.nonce = event.nonce;
  return "applied";
}

/** The end is believed only when the whole answer is here. It knows the parts, also of text that an older page stored. */
export function applyDone(cursor: Cursor, event: DoneEvent): Outcome {
  if (event.offset !== cursor.length) return "gap";
  if (event.parts)
    cursor.parts = event.parts.map(([offset, kind]) => ({ index: utf16Index(cursor.text, offset), kind }));
  return "applied";
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
