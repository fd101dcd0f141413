/** The page of one job. All that it shows is on the server; it asks every second until the job has ended. */

import { age, bytes } from "../shared/amounts";
import { confirmDialog } from "../shared/dialogs";
import { byId, h, icon, setText } from "../shared/dom";
import { ApiError, api, fileAddress } from "./api";
import { LogView } from "./log_view";
import { isUnfinished, type Job, type JobAnswer, type Phase, type Training } from "./protocol";
import { StepsView } from "./steps_view";
import { TrainingView } from "./training_view";
import { trainingFacts, trainingOverall } from "./training_words";
import { announcement, facts, overall, remaining, stateWord } from "./words";

const DOWNLOADS: [kind: string, title: string, icon: string][] = [
  ["report", "Report", "chart"],
  ["data", "Data", "download"],
  ["validation", "Validation data", "download"],
  ["rejects", "Rejects, with reasons", "download"],
  ["report.json", "Report as JSON", "download"],
];

export class JobPage {
  private steps = new StepsView(byId("steps"));
  private log = new LogView(byId("log"));
  private training: TrainingView | undefined; // once the job is known to be a fine-tuning
  private state = "";
  private removesFiles = false;
  private out = "";
  private drawnFiles = "";

  /** `changed`: the user did something, ask at once. */
  constructor(
    private id: string,
    private changed: () => void,
    private away: (error: unknown) => void,
  ) {
    byId("cancel").onclick = () => void this.cancel();
    byId("again").onclick = () => void this.act(() => api.again(this.id));
    byId("remove").onclick = () => void this.remove();
  }

  /** True while the job goes on. Throws an ApiError when nobody answers. */
  async refresh(): Promise<boolean> {
    let answer: JobAnswer;
    let more = false;
    try {
      do {
        answer = await api.job(this.id, this.log.cursor, this.training?.cursor ?? -1);
        this.log.add(answer.log);
        more = this.show(answer);
      } while (answer.log.length >= 500);
    } catch (error) {
      if (!(error instanceof ApiError) || (error.status !== 410 && error.status !== 404)) throw error;
      this.showGone(error.message);
      return false;
    }
    return more || isUnfinished(answer.job);
  }

  /** True while something changes although the job has ended. */
  private show(answer: JobAnswer): boolean {
    const { job, training } = answer;
    byId("gone").hidden = true;
    byId("job").hidden = false;
    this.removesFiles = answer.removes_files;
    document.title = `${job.name} · ChatServer`;
    setText(byId("job-name"), job.name);
    this.showState(job, training?.remote.state);
    this.showProblem(job);
    if (training) return this.showTraining(job, training, answer.now_s);
    this.showCleaning(answer);
    return false;
  }

  private showTraining(job: Job, training: Training, now_s: number): boolean {
    this.out = training.out;
    setText(byId("job-facts"), trainingFacts(training, age(now_s - job.created_s)));
    const recovering = training.remote.state !== undefined && training.remote.state !== "running";
    this.showBar(
      job,
      training.of ? training.records / training.of : undefined,
      trainingOverall(job, training),
      recovering ? null : training.eta_s,
    );
    this.training ??= new TrainingView(this.id, this.changed, this.away);
    return this.training.show(job, training, now_s);
  }

  private showCleaning({ job, progress, spec, files, now_s }: JobAnswer): void {
    if (!progress || !spec) return;
    const inputs = spec.labels ?? spec.inputs ?? [];
    this.out = spec.out ?? "";
    setText(byId("job-facts"), facts(job, now_s, spec.recipe_name ?? "", inputs.length));
    this.showBar(job, progress.num_units ? progress.fraction : undefined, overall(job, progress), progress.eta_s);
    byId("recipe-card").hidden = !spec.recipe;
    byId("steps-card").hidden = progress.steps.length === 0;
    this.steps.show(progress.steps, !isUnfinished(job));
    this.showDownloads(job, files ?? {});
    setText(byId("job-recipe"), spec.recipe ?? "");
    if (byId("inputs").childElementCount !== inputs.length)
      byId("inputs").replaceChildren(
        ...inputs.map((name) => h("li", {}, icon("file"), h("span", { class: "title" }, name))),
      );
  }

  private showState(job: Job, phase?: Phase): void {
    const badge = byId("job-state");
    setText(badge, stateWord(job, phase));
    badge.className = `badge ${job.state === "running" && phase === "recovering" ? phase : job.state}`;
    badge.dataset.state = job.state;
    if (this.state && this.state !== job.state) setText(byId("status"), announcement(job));
    this.state = job.state;
    byId("cancel").hidden = !isUnfinished(job);
    byId<HTMLButtonElement>("cancel").disabled = job.cancelling;
    byId("again").hidden = job.kind === "batch" || (job.state !== "failed" && job.state !== "cancelled");
    byId("remove").hidden = isUnfinished(job);
  }

  /** `fraction` undefined: nobody knows yet. */
  private showBar(job: Job, fraction: number | undefined, text: string, eta_s: number | null): void {
    const bar = byId<HTMLProgressElement>("overall");
    if (job.state === "running" && fraction === undefined) bar.removeAttribute("value");
    else bar.value = job.state === "finished" ? 1 : (fraction ?? 0);
    bar.dataset.state = job.state;
    setText(byId("overall-text"), text);
    setText(byId("eta"), job.state === "running" ? remaining(eta_s) : "");
  }

  private showProblem(job: Job): void {
    byId("problem").hidden = !job.error;
    if (!job.error) return;
    const { title, trace } = told(job.error);
    setText(byId("problem-title"), title);
    byId("problem-details").hidden = !trace;
    setText(byId("problem-trace"), trace);
  }

  private showDownloads(job: Job, files: NonNullable<JobAnswer["files"]>): void {
    byId<HTMLAnchorElement>("learn").href = `/jobs#fine-tune=${encodeURIComponent(job.id)}`;
    byId("learn").hidden = !files.data?.name.endsWith(".jsonl");
    const key = JSON.stringify(files);
    if (key === this.drawnFiles) return;
    this.drawnFiles = key;
    const there = DOWNLOADS.filter(([kind]) => files[kind]);
    byId("results").hidden = there.length === 0;
    byId("downloads").replaceChildren(
      ...there.map(([kind, title, symbol]) => {
        const link = h(
          "a",
          {
            href: fileAddress(this.id, kind),
            class: kind === "report" ? "download first" : "download",
            "data-testid": `file-${kind}`,
          },
          icon(symbol),
          h("span", { class: "title" }, title),
          h("span", { class: "meta" }, `${files[kind]?.name} · ${bytes(files[kind]?.size ?? 0)}`),
        );
        if (kind === "report") {
          link.target = "_blank";
          link.rel = "noopener";
        } else link.setAttribute("download", "");
        return h("li", {}, link);
      }),
    );
  }

  private showGone(message: string): void {
    byId("job").hidden = true;
    byId("gone").hidden = false;
    setText(byId("gone-text"), message);
  }

  private async cancel(): Promise<void> {
    const sure = await confirmDialog(
      "Cancel this job?",
      this.training
        ? "The checkpoints are kept, and the job can continue later from the last one. The machines are given back."
        : "The finished parts are kept, and the job can continue later. Only a finished job has data.",
      "Cancel the job",
    );
    if (sure) await this.act(() => api.cancel(this.id));
  }

  private async remove(): Promise<void> {
    const what = this.training
      ? "its checkpoints and its log; a finished model stays"
      : "the uploaded files and the results of the job";
    const files = this.removesFiles
      ? `This deletes ${what}. You cannot undo it.`
      : `The job leaves the list. Its files stay in ${this.out}.`;
    if (!(await confirmDialog("Remove this job?", files, "Remove"))) return;
    try {
      await api.remove(this.id);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "gone") return this.away(error);
    }
    location.assign("/jobs");
  }

  private async act(what: () => Promise<unknown>): Promise<void> {
    try {
      await what();
      this.changed();
    } catch (error) {
      this.away(error);
    }
  }
}

/** An error as a sentence, and the traceback that may come before or after it. */
export function told(error: string): { title: string; trace: string } {
  const lines = error.trimEnd().split("\n");
  const first = lines[0] ?? "";
  if (lines.length === 1) return { title: first, trace: "" };
  const title = first.startsWith("Traceback") ? (lines.at(-1) ?? first) : first;
  return { title, trace: error };
}
