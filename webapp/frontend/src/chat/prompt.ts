/**
 * What a question brings along of its conversation: the rounds that were answered. The server puts the prompt together
 * (services/conversations/prompt.py); the page only says beforehand what would be too large, and afterwards from where
 * on the model read. Pure.
 */

import { countCodePoints } from "./answer";
import type { Role } from "./protocol";
import type { Message } from "./tree";

/** Of one question with all that it brings along, as the server wrote them into the page. */
export interface Limits {
  characters: number;
  bytes: number;
}

interface Sent {
  role: Role;
  content: string;
}

interface Size {
  characters: number;
  bytes: number;
}

/** Of a question: ids, model, sampling and what surrounds them. */
const ENVELOPE_BYTES = 1_024;

/** Why the server would refuse this question whatever is left out of the conversation; empty if it would not. */
export function describeTooLarge(question: string, system: string, limits: Limits): string {
  const parts = [...systemMessage(system), { role: "user" as const, content: question }];
  const size = sum(parts.map(sizeOf));
  if (!exceeds(size, limits)) return "";
  const what = parts.length > 1 ? "Your message and the system prompt have" : "Your message has";
  const sizes =
    size.characters > limits.characters
      ? `${what} ${count(size.characters)} characters; this server reads ${count(limits.characters)} at most`
      : `${what} ${count(size.bytes)} bytes; this server reads ${count(limits.bytes)} at most`;
  return `${sizes}. Shorten it, or send it in parts.`;
}

/**
 * The answered rounds on the path to an answer, and its question: a question that failed, was refused or was stopped
 * before its first word is never asked again with a later one.
 */
export function saidBefore(path: Message[], messageId: string): Message[] {
  const said: Message[] = [];
  let question: Message | undefined;
  for (const message of path) {
    if (message.id === messageId) break;
    if (message.role === "user") question = message;
    else if (question && isAnswered(message)) {
      said.push(question, message);
      question = undefined;
    }
  }
  return question ? [...said, question] : said;
}

function isAnswered({ state, content }: Message): boolean {
  return (state === "finished" || state === "cancelled") && content.trim() !== "";
}

function systemMessage(system: string): Sent[] {
  return system.trim() ? [{ role: "system", content: system }] : [];
}

function sizeOf(message: Sent): Size {
  const sent = JSON.stringify(message);
  return {
    characters: countCodePoints(message.content),
    bytes: new TextEncoder().encode(sent).length + 1,
  };
}

function sum(sizes: Size[]): Size {
  const whole = { characters: 0, bytes: ENVELOPE_BYTES };
  for (const { characters, bytes } of sizes) {
    whole.characters += characters;
    whole.bytes += bytes;
  }
  return whole;
}

function exceeds(size: Size, limits: Size): boolean {
  return size.characters > limits.characters || size.bytes > limits.bytes;
}

function count(number: number): string {
  return number.toLocaleString("en");
}
