/**
 * What a question brings along: the rounds that were answered, and as many of them as one message to the server may
 * hold. Which of these the model can read is the worker's to say (services/tokens/context.py). Pure.
 */

import { countCodePoints } from "./answer";
import type { Conversation, Message } from "./conversations";
import type { Role } from "./protocol";

/** Of one question with all that it brings along, as the server wrote them into the page. */
export interface Limits {
  characters: number;
  bytes: number;
  messages: number;
}

interface Sent {
  role: Role;
  content: string;
  /** The chat template says whether the model reads it again. */
  reasoning?: string;
}

export interface Prompt {
  messages: Sent[];
  /** The messages of the conversation among them; the last one is the question. */
  said: Message[];
  /** How many older answered messages had no room. */
  omitted: number;
}

interface Size {
  characters: number;
  bytes: number;
}

/** Of a submit: id, model, sampling and what surrounds them. */
const ENVELOPE_BYTES = 1_024;

/**
 * A question belongs to the prompt with its answer, or if it is the one that is asked now: a question that failed, was
 * refused or was stopped before its first word is never asked again with a later one. A stopped answer counts as far
 * as it came, since whoever stopped it has read it and goes on from there.
 */
export function promptFor(conversation: Conversation, messageId: string, system: string, limits: Limits): Prompt {
  const head = systemMessage(system);
  const said = saidBefore(conversation.messages, messageId);
  const rest = said.map(sentOf).map(sizeOf);
  const size = sum([...head.map(sizeOf), ...rest]);
  let omitted = 0;
  while (
    omitted < said.length - 1 &&
    (exceeds(size, limits) || head.length + said.length - omitted > limits.messages)
  ) {
    for (const { characters, bytes } of rest.slice(omitted, omitted + 2)) {
      size.characters -= characters;
      size.bytes -= bytes;
    }
    omitted += 2;
  }
  const kept = said.slice(omitted);
  return { messages: [...head, ...kept.map(sentOf)], said: kept, omitted };
}

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

function saidBefore(messages: Message[], messageId: string): Message[] {
  const said: Message[] = [];
  let question: Message | undefined;
  for (const message of messages) {
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

function sentOf({ role, content, reasoning }: Message): Sent {
  return reasoning ? { role, content, reasoning } : { role, content };
}

function systemMessage(system: string): Sent[] {
  return system.trim() ? [{ role: "system", content: system }] : [];
}

function sizeOf(message: Sent): Size {
  const sent = JSON.stringify(message);
  return {
    characters: countCodePoints(message.content + (message.reasoning ?? "")),
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
