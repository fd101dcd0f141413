/**
 * Texts that belong to a question and do not stand in its box: long pastes and files. A message holds them in a form
 * that a model reads as it is and that this module finds again. Pure but for reading a file.
 */

export interface Attachment {
  name: string;
  text: string;
}

/** A paste of this length is offered as an attachment. */
export const LONG_PASTE_CHARS = 4_000;

/** Says why a file cannot be attached. */
export class NotText extends Error {}

/** The message: what was typed, then each text in a fence that nothing in it closes. */
export function withAttachments(typed: string, attachments: Attachment[]): string {
  return [typed.trim(), ...attachments.map(fenced)].filter(Boolean).join("\n\n");
}

function fenced({ name, text }: Attachment): string {
  const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), ([ticks]) => ticks.length));
  const fence = "`".repeat(longest + 1);
  return `Attached text "${name}":\n${fence}\n${text}\n${fence}`;
}

/** What `withAttachments` put together; any other message is all typed. */
export function splitAttachments(message: string): { typed: string; attachments: Attachment[] } {
  for (const begin of message.matchAll(/(?:^|\n\n)(?=Attached text "[^"\n]+":\n`{3,}\n)/g)) {
    const attachments = attachmentsIn(message.slice(begin.index + begin[0].length));
    if (attachments) return { typed: message.slice(0, begin.index), attachments };
  }
  return { typed: message, attachments: [] };
}

/** Undefined unless the text consists of nothing else. */
function attachmentsIn(text: string): Attachment[] | undefined {
  const attachments: Attachment[] = [];
  let rest = text;
  for (;;) {
    const head = /^Attached text "([^"\n]+)":\n(`{3,})\n/.exec(rest);
    if (!head) return undefined;
    const [{ length }, name = "", fence = ""] = head;
    const end = rest.indexOf(`\n${fence}`, length - 1);
    if (end < 0) return undefined;
    attachments.push({ name, text: rest.slice(length, Math.max(length, end)) });
    rest = rest.slice(end + 1 + fence.length);
    if (!rest) return attachments;
    if (!rest.startsWith("\n\n")) return undefined;
    rest = rest.slice(2);
  }
}

/** A name that no other attachment has, without what would break the form. */
export function freshName(name: string, others: Attachment[]): string {
  const clean = name.replace(/["\p{C}]+/gu, " ").trim() || "text";
  for (let n = 1; ; n++) {
    const candidate = n === 1 ? clean : `${clean} (${n})`;
    if (!others.some((other) => other.name === candidate)) return candidate;
  }
}

/** Throws NotText, with the sizes or the remedy. */
export async function readText(file: File, maxBytes: number): Promise<string> {
  if (file.size > maxBytes)
    throw new NotText(`${file.name} has ${count(file.size)} bytes; this server reads ${count(maxBytes)} at most.`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes("\0")) return text.replace(/\r\n?/g, "\n");
  } catch (error) {
    if (!(error instanceof TypeError)) throw new NotText(`${file.name} could not be read.`);
  }
  throw new NotText(`${file.name} is not a text in UTF-8. Save it as plain text, and attach that.`);
}

export function sizeOf({ text }: Attachment): string {
  return `${count(text.length)} characters`;
}

function count(number: number): string {
  return number.toLocaleString("en");
}
