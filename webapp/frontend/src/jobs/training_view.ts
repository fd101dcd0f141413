/** The parts of a job's page that only a fine-tuning has: numbers, curves, checkpoints, what was planned, serving. */

import { age } from "../shared/amounts";
import { byId, h, icon, setText } from "../shared/dom";
import { Chart, type Curve } from "./chart";
import type { Mark, Point } from "./chart_data";
import type { Job, JudgedValue, Training, TrainingPoint } from "./protocol";
import { ServingCard } from "./serving_card";
import { checkpointText, figures, lossText, planRows, rateText, scientific, shareText } from "./training_words";

const TRAINED_AND_EVALUATED: Curve[] = [
  { name: "training", kind: "smooth" },
  { name: "evaluation", kind: "dots" },
];

/** The curves of a training on judged answers; a training has those of which it tells values. */
const JUDGED_CURVES: {
  of: JudgedValue;
  title: string;
  label: string;
  value: (y: number) => string;
  fromZero?: true;
}[] = [
  { of: "margin", title: "Reward margin", label: "Reward margin by step", value: lossText },
  {
    of: "accuracy",
    title: "Chosen answer preferred",
    label: "Share of the pairs whose chosen answer is preferred, by step",
    value: shareText,
    fromZero: true,
  },
  { of: "chosen_reward", title: "Reward of good answers", label: "Reward of good answers by step", value: lossText },
  { of: "rejected_reward", title: "Reward of bad answers", label: "Reward of bad answers by step", value: lossText },
  {
    of: "kl",
    title: "KL divergence",
    label: "KL divergence from the model before the training, by step",
    value: lossText,
    fromZero: true,
  },
];

export class TrainingView {
  private points = new Points();
  private loss = new Chart({
    label: "Training loss by step",
    height: 280,
    curves: TRAINED_AND_EVALUATED,
    value: lossText,
  });
  private rate = new Chart({
    label: "Learning rate by step",
    height: 130,
    curves: [{ name: "learning rate", kind: "line" }],
    value: scientific,
    fromZero: true,
  });
  private speed = new Chart({
    label: "Tokens per second by step",
    height: 130,
    curves: [{ name: "tokens/s", kind: "smooth" }],
    value: rateText,
    fromZero: true,
  });
  private judged = JUDGED_CURVES.map(({ of, title, label, ...options }) => {
    const chart = new Chart({ label, height: 130, curves: TRAINED_AND_EVALUATED, ...options });
    const testid = `${of.replace("_", "-")}-chart`;
    const part = h("div", {}, h("h3", {}, title), h("div", { "data-testid": testid }, chart.element));
    return { of, chart, part };
  });
  private serving: ServingCard;
  private drawn = new Map<string, string>();

  constructor(id: string, changed: () => void, away: (error: unknown) => void) {
    this.serving = new ServingCard(id, changed, away);
    byId("loss-chart").replaceChildren(this.loss.element);
    byId("rate-chart").replaceChildren(this.rate.element);
    byId("speed-chart").replaceChildren(this.speed.element);
    byId("judged-curves").replaceChildren(...this.judged.map(({ part }) => part));
  }

  /** After which step points are not known yet. */
  get cursor(): number {
    return this.points.cursor;
  }

  /** True while something is still to be learned of it after its end. */
  show(job: Job, training: Training, now_s: number): boolean {
    this.points.add(training.points, training.records);
    byId("training").hidden = false;
    this.showCurves(training);
    this.showRemote(job, training);
    this.once("figures", figures(job, training, now_s), (rows) =>
      rows.map(([what, value, of]) =>
        h("div", { class: "figure" }, h("dt", {}, what), h("dd", {}, h("b", {}, value), of && ` ${of}`)),
      ),
    );
    this.once("plan", planRows(training), (rows) =>
      rows.flatMap(([what, value]) => [h("dt", {}, what), h("dd", {}, value)]),
    );
    byId("run-card").hidden = byId("figures").childElementCount === 0 && byId("curves").hidden;
    this.showCheckpoints(training, now_s);
    return this.serving.show(job, training, now_s);
  }

  private showCurves({ evals, resumes, of }: Training): void {
    const marks: Mark[] = resumes.map(({ step }) => ({
      x: step,
      text: `resumed from step ${step.toLocaleString("en")}`,
    }));
    const training = this.points.curve("loss");
    const evaluated = evaluations(evals, "loss");
    byId("curves").hidden = training.length === 0;
    byId("evaluation-key").hidden = evaluated.length === 0;
    byId("resumed-key").hidden = marks.length === 0;
    const shown = { marks, until: of };
    this.loss.show({ ...shown, points: [training, evaluated] });
    this.rate.show({ ...shown, points: [this.points.curve("lr")] });
    this.speed.show({ ...shown, points: [this.points.curve("tokens_per_s")] });
    for (const { of, chart, part } of this.judged) {
      const points = this.points.curve(of);
      part.hidden = points.length === 0;
      chart.show({ ...shown, points: [points, evaluations(evals, of)] });
    }
    byId("judged-curves").hidden = this.judged.every(({ part }) => part.hidden);
  }

  /** Why it waits, starts or recovers. */
  private showRemote(job: Job, { remote }: Training): void {
    const going = job.state === "running" && remote.state !== undefined && remote.state !== "running";
    const text = going ? [remote.message, remote.remedy].filter(Boolean).join(". ") : "";
    byId("remote").hidden = !text;
    setText(byId("remote-text"), text);
  }

  private showCheckpoints({ checkpoints, config, of }: Training, now_s: number): void {
    byId("checkpoints-card").hidden = of === 0 && checkpoints.length === 0;
    byId("no-checkpoints").hidden = checkpoints.length > 0;
    setText(
      byId("no-checkpoints"),
      "None yet. The list shows complete checkpoints only. A run that ends early continues from the last one.",
    );
    const kept = [...checkpoints].sort((a, b) => b.step - a.step).slice(0, config.keep_checkpoints ?? Infinity); // the older are deleted
    const rows = kept.map(
      (one) => [checkpointText(one), one.time_s ? age(now_s - one.time_s) : ""] as [string, string],
    );
    this.once("checkpoints", rows, (all) =>
      all.map(([what, when]) =>
        h(
          "li",
          { "data-testid": "checkpoint" },
          icon("check"),
          h("span", { class: "title" }, what),
          h("span", { class: "meta" }, when),
        ),
      ),
    );
    byId("checkpoints").setAttribute("aria-label", `Checkpoints of ${config.name ?? "the model"}`);
  }

  /** Draws into `#id` only what has changed since. */
  private once<T>(id: string, value: T, made: (value: T) => Node[]): void {
    const key = JSON.stringify(value);
    if (this.drawn.get(id) === key) return;
    this.drawn.set(id, key);
    byId(id).replaceChildren(...made(value));
  }
}

function evaluations(evals: Training["evals"], of: "loss" | JudgedValue): Point[] {
  return evals.flatMap((one) => {
    const y = one[of];
    return typeof y === "number" ? [{ x: one.step, y }] : [];
  });
}

/** The points of a run by step. A resumed run tells steps again; what it says last counts. */
export class Points {
  private bySteps = new Map<number, TrainingPoint>();
  private sorted: TrainingPoint[] = [];
  private last = -1;
  private done = -1;

  /** `done`: the step that the run says it is at. It falls when the run goes on from a checkpoint. */
  add(points: TrainingPoint[], done: number): void {
    for (const point of points) this.bySteps.set(point.step, point);
    if (points.length) this.sorted = [...this.bySteps.values()].sort((a, b) => a.step - b.step);
    this.last = this.sorted.at(-1)?.step ?? -1;
    this.done = done;
  }

  get cursor(): number {
    return this.done > 0 ? Math.min(this.last, this.done) : this.last;
  }

  curve(of: Exclude<keyof TrainingPoint, "step">): Point[] {
    return this.sorted.flatMap((point) => {
      const y = point[of];
      return typeof y === "number" && Number.isFinite(y) ? [{ x: point.step, y }] : [];
    });
  }
}
