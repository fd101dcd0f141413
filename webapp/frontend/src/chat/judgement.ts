/** What the reader thinks of an answer: two thumbs under it, and a dialog for a reason or a better answer. */

import { byId, h, icon } from "../shared/dom";
import type { Feedback, Message, Verdict } from "./tree";

export interface Judgement {
  verdict: Verdict;
  reason?: string;
  better?: string;
}

export type Judge = (message: Message, judgement: Judgement) => void;

/** The buttons under an answer. A thumb that is pressed again is taken back; a thumb down keeps what was said. */
export function judgementButtons(message: Message, judge: Judge, open: (message: Message) => void): HTMLElement[] {
  const given = message.feedback?.verdict;
  const thumb = (verdict: "up" | "down", label: string) => {
    const pressed = given === verdict;
    const onclick = () => judge(message, thumbed(message.feedback, verdict));
    return button(`thumb-${verdict}`, label, `thumb-${verdict}`, pressed, onclick);
  };
  const said = Boolean(message.feedback?.reason || message.feedback?.better);
  return [
    thumb("up", "Good answer"),
    thumb("down", "Bad answer"),
    button("flag", "Say what is wrong, or write a better answer", "judge", said, () => open(message)),
  ];
}

function button(symbol: string, label: string, testid: string, pressed: boolean, onclick: () => void) {
  return h(
    "button",
    {
      type: "button",
      class: "quiet",
      title: label,
      "aria-label": label,
      "aria-pressed": String(pressed),
      "data-testid": testid,
      onclick,
    },
    icon(symbol),
  );
}

export class JudgementDialog {
  private dialog = byId<HTMLDialogElement>("judgement");
  private reason = byId<HTMLTextAreaElement>("judgement-reason");
  private better = byId<HTMLTextAreaElement>("judgement-better");
  private message: Message | undefined;

  constructor(judge: Judge) {
    this.dialog.addEventListener("close", () => {
      const judgement = this.dialog.returnValue === "save" ? this.read() : undefined;
      if (this.message && judgement) judge(this.message, judgement);
    });
  }

  open(message: Message): void {
    this.message = message;
    this.reason.value = message.feedback?.reason ?? "";
    this.better.value = message.feedback?.better ?? "";
    this.dialog.returnValue = "";
    this.dialog.showModal();
  }

  private read(): Judgement | undefined {
    return said(this.message?.feedback ?? null, this.reason.value.trim(), this.better.value.trim());
  }
}

/** What a thumb says: the same thumb again takes it back, a thumb down keeps the words that go with it. */
export function thumbed(before: Feedback | null, verdict: "up" | "down"): Judgement {
  if (before?.verdict === verdict) return { verdict: "none" };
  return { verdict, ...(verdict === "down" && words(before?.reason, before?.better)) };
}

/**
 * What a reason and a better answer say. Under a thumb down they belong to it; else a better answer is a correction, a
 * reason alone a flag. Undefined when both are empty.
 */
export function said(before: Feedback | null, reason: string, better: string): Judgement | undefined {
  if (!reason && !better) return undefined;
  const verdict = before?.verdict === "down" ? "down" : better ? "correction" : "flag";
  return { verdict, ...words(reason, better) };
}

function words(reason: string | undefined, better: string | undefined): Partial<Judgement> {
  return { ...(reason && { reason }), ...(better && { better }) };
}

/** As the server will tell it. */
export function feedbackOf({ verdict, reason = "", better = "" }: Judgement): Feedback | null {
  return verdict === "none" ? null : { verdict, reason, better };
}
