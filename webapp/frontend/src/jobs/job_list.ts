/** The list of jobs beside the page: newest first, with state, progress and age. */

import { age } from "../shared/amounts";
import { byId, h, setText } from "../shared/dom";
import { isUnfinished, type Job } from "./protocol";
import { kindWord, percent, stateWord } from "./words";

export class JobList {
  private list = byId("jobs");
  private drawn = "";

  constructor(private currentId: string | undefined) {}

  show(jobs: Job[], now_s: number): void {
    const rows = jobs.map((job) => ({ job, meta: meta(job, now_s) }));
    const key = JSON.stringify(rows);
    if (key === this.drawn) return;
    this.drawn = key;
    byId("no-jobs").hidden = jobs.length > 0;
    const focused = (document.activeElement as HTMLElement | null)?.dataset.jobId;
    this.list.replaceChildren(...rows.map(({ job, meta }) => this.item(job, meta)));
    if (focused) this.list.querySelector<HTMLElement>(`[data-job-id="${CSS.escape(focused)}"]`)?.focus();
  }

  private item(job: Job, meta: string): HTMLElement {
    const link = h(
      "a",
      { href: `/jobs/${encodeURIComponent(job.id)}`, title: job.name, "data-job-id": job.id },
      h("span", { class: "title" }, job.name),
      h(
        "span",
        { class: "meta" },
        h("span", { class: `dot ${job.phase === "recovering" ? "recovering" : job.state}`, "aria-hidden": "true" }),
        meta,
      ),
    );
    if (job.id === this.currentId) link.setAttribute("aria-current", "page");
    if (job.state === "running") link.append(bar(job.fraction ?? 0));
    return h("li", { "data-testid": "job-item", "data-state": job.state }, link);
  }
}

function meta(job: Job, now_s: number): string {
  const word = stateWord(job, job.phase);
  const parts = job.kind !== "clean" && job.state !== "running" ? [kindWord(job.kind), word] : [word];
  if (job.state === "running" && job.fraction) parts.push(percent(job.fraction));
  parts.push(age(now_s - (isUnfinished(job) ? job.created_s : job.ended_s)));
  return parts.join(" · ");
}

/** Decorative: the line above says the same. */
function bar(fraction: number): HTMLElement {
  const filled = h("span");
  filled.style.width = `${100 * fraction}%`;
  return h("span", { class: "mini-bar", "aria-hidden": "true" }, filled);
}

/** Says that nobody answers, or takes it back. */
export function showAway(message: string): void {
  byId("away").hidden = !message;
  setText(byId("away-text"), message);
}
