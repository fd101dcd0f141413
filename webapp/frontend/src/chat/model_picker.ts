/** The select of models, and the notice when nothing can answer. */

import { byId, h, setText } from "../shared/dom";
import type { Models } from "./models";
import { describeMissing, describeModel } from "./words";

export class ModelPicker {
  private select = byId<HTMLSelectElement>("model");
  private notice = byId("no-worker");
  private about = byId("demonstration");
  private drawn = "";

  constructor(
    private models: Models,
    private chosen: (name: string) => void,
  ) {
    this.select.onchange = () => this.chosen(this.select.value);
    this.select.onfocus = () => void this.models.refresh();
  }

  get value(): string {
    return this.select.value;
  }

  /** `wanted` stays selected while it is in the list; else the first one with a worker. `answering`: one is at work. */
  show(wanted: string, answering: boolean): void {
    const { list, state } = this.models;
    const name = this.models.find(wanted)?.name ?? list.find((m) => m.workers > 0)?.name ?? list[0]?.name ?? "";
    const key = JSON.stringify([name, state, list.map((m) => [m.name, describeModel(m)])]);
    if (key !== this.drawn) {
      this.drawn = key;
      this.select.replaceChildren(
        ...list.map((m) => h("option", { value: m.name, selected: m.name === name }, describeModel(m))),
      );
      if (list.length === 0)
        this.select.append(h("option", { value: "" }, state === "loading" ? "Loading models…" : "No model"));
      this.select.disabled = list.length === 0;
    }
    this.about.hidden = !this.models.find(name)?.demonstration;
    this.showNotice(name, answering);
  }

  private showNotice(name: string, answering: boolean): void {
    const { state, list, served } = this.models;
    let text = "";
    if (state === "unreachable") text = "The list of models cannot be read right now. Trying again every few seconds.";
    else if (state === "known" && list.length === 0)
      text = "No worker is serving a model yet. This page looks again every few seconds.";
    else if (state === "known" && !answering) text = describeMissing(this.models.find(name), served);
    setText(this.notice, text);
    this.notice.hidden = !text;
  }
}
