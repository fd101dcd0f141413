/** The form that makes a job: files, recipe, name. Sends the files in pieces, then the order, once. */

import { bytes } from "../shared/amounts";
import { byId, h, icon, setText } from "../shared/dom";
import { newId } from "../shared/ids";
import { ApiError, api } from "./api";
import { type Patience, persist } from "./persist";
import type { Job, Order, Recipe } from "./protocol";
import { RecipeEditor } from "./recipe_editor";
import { sampleFile, TO_CLEAN } from "./samples";
import { memoryKey, sendFile } from "./upload";
import { percent } from "./words";

export class JobForm {
  private editor = new RecipeEditor(() => this.markEdited());
  private picker = byId<HTMLSelectElement>("recipes");
  private files: File[] = [];
  private recipes: Recipe[] = [];
  private maxBytes = Infinity;
  private ordered: { asked: string; order: Order } | undefined;
  private stopping: AbortController | undefined;

  constructor() {
    byId("job-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit();
    });
    byId("try-sample").onclick = () => void this.trySample();
    byId("stop-sending").onclick = () => this.stopping?.abort();
    this.picker.onchange = () => this.useRecipe(this.picker.value);
    window.addEventListener("beforeunload", (event) => this.stopping && event.preventDefault());
    this.acceptFiles();
    this.showFiles();
  }

  /** Throws an ApiError when nobody answers. */
  async load(): Promise<void> {
    if (this.recipes.length || this.maxBytes < Infinity) return;
    const { recipes, max_upload_bytes } = await api.recipes();
    this.recipes = recipes;
    this.maxBytes = max_upload_bytes;
    setText(byId("limit"), `Up to ${bytes(max_upload_bytes)}.`);
    this.picker.replaceChildren(
      ...recipes.map(({ name }) => h("option", { value: name }, name)),
      h("option", { value: "" }, "my own"),
    );
    const first = recipes.find(({ name }) => name.startsWith("vicuna")) ?? recipes[0];
    this.picker.value = first?.name ?? "";
    if (!this.editor.text) this.useRecipe(this.picker.value);
  }

  // ── recipe ──────────────────────────────────────────────────────────────────────────────────────────────────────

  private useRecipe(name: string): void {
    const recipe = this.recipes.find((one) => one.name === name);
    if (recipe) this.editor.text = recipe.text;
  }

  private markEdited(): void {
    const same = this.recipes.find(({ text }) => text === this.editor.text);
    this.picker.value = same?.name ?? "";
  }

  // ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

  private acceptFiles(): void {
    const input = byId<HTMLInputElement>("files");
    input.onchange = () => {
      this.add(Array.from(input.files ?? []));
      input.value = "";
    };
    const drop = byId("drop");
    const over = (event: DragEvent) => {
      event.preventDefault();
      drop.classList.toggle("over", event.type === "dragover");
    };
    drop.addEventListener("dragover", over);
    drop.addEventListener("dragleave", over);
    drop.addEventListener("drop", (event) => {
      over(event);
      this.add(Array.from(event.dataTransfer?.files ?? []));
    });
  }

  private add(files: File[]): void {
    if (this.stopping) return;
    for (const file of files)
      if (!this.files.some((known) => memoryKey(known) === memoryKey(file))) this.files.push(file);
    this.problem("");
    this.showFiles();
  }

  private showFiles(): void {
    const busy = this.stopping !== undefined;
    byId("sample").hidden = this.files.length > 0;
    byId("chosen").replaceChildren(
      ...this.files.map((file) =>
        h(
          "li",
          { "data-testid": "chosen-file" },
          icon("file"),
          h("span", { class: "title" }, file.name),
          h("span", { class: "meta" }, bytes(file.size)),
          !busy &&
            h(
              "button",
              {
                type: "button",
                class: "tool",
                "aria-label": `Leave out ${file.name}`,
                title: "Leave out",
                onclick: () => this.leaveOut(file),
              },
              icon("close"),
            ),
        ),
      ),
    );
  }

  /** One click: the sample is chosen, and its cleaning starts. */
  private async trySample(): Promise<void> {
    if (this.stopping) return;
    try {
      const patience = this.patience(new AbortController().signal, "");
      this.files = [await sampleFile(TO_CLEAN, { ...patience, trouble: (text) => this.problem(text) })];
    } catch (error) {
      this.failed(error);
      return;
    }
    this.showFiles();
    await this.submit();
  }

  private leaveOut(file: File): void {
    this.files = this.files.filter((one) => one !== file);
    this.showFiles();
    byId("files").focus();
  }

  // ── sending ─────────────────────────────────────────────────────────────────────────────────────────────────────

  private async submit(): Promise<void> {
    if (this.stopping) return;
    const wrong = this.wrong();
    this.problem(wrong);
    if (wrong) return;
    this.stopping = new AbortController();
    this.showBusy();
    try {
      const job = await this.order(this.stopping.signal);
      for (const file of this.files) localStorage.removeItem(memoryKey(file));
      this.stopping = undefined;
      location.assign(`/jobs/${job.id}`);
      return;
    } catch (error) {
      this.failed(error);
    }
    this.stopping = undefined;
    this.showBusy();
  }

  /** An order whose answer was lost is sent again as it was: its uploads belong to its job already. */
  private async order(signal: AbortSignal): Promise<Job> {
    const patience = this.patience(signal, "Starting…");
    const asked = JSON.stringify([this.files.map(memoryKey), this.editor.text, this.name]);
    if (this.ordered?.asked !== asked) {
      const { name } = await persist(() => api.check(this.editor.text), patience);
      const uploads = await this.sendAll(signal);
      const order = {
        key: newId(),
        recipe: this.editor.text,
        recipe_name: this.picker.value || name,
        uploads,
        name: this.name,
      };
      this.ordered = { asked, order };
    }
    const { order } = this.ordered;
    this.sending(1, "Starting…");
    return (await persist(() => api.submit(order), patience)).job;
  }

  private get name(): string {
    return byId<HTMLInputElement>("name").value;
  }

  private wrong(): string {
    if (!this.files.length) return "Choose at least one file.";
    const empty = this.files.find(({ size }) => size === 0);
    if (empty) return `${empty.name} is empty.`;
    const size = this.files.reduce((sum, file) => sum + file.size, 0);
    return size > this.maxBytes
      ? `The files together have ${bytes(size)}; the limit is ${bytes(this.maxBytes)}. The command takes files of any size: chatserver clean submit`
      : "";
  }

  private async sendAll(signal: AbortSignal): Promise<string[]> {
    const total = this.files.reduce((sum, file) => sum + file.size, 0);
    const uploads: string[] = [];
    let before = 0;
    for (const file of this.files) {
      const start = before;
      const said = (offset: number) => `Sending ${file.name}: ${percent((start + offset) / total)} of ${bytes(total)}`;
      uploads.push(
        await sendFile(file, {
          ...this.patience(signal, said(0)),
          server: api,
          memory: localStorage,
          tell: (offset) => this.sending((start + offset) / total, said(offset)),
        }),
      );
      before += file.size;
    }
    return uploads;
  }

  private patience(signal: AbortSignal, otherwise: string): Patience {
    return {
      signal,
      pause: (ms) => paused(ms, signal),
      trouble: (text) => setText(byId("sending-text"), text ? `${text} Trying again…` : otherwise),
    };
  }

  private failed(error: unknown): void {
    if (this.stopping?.signal.aborted)
      this.problem("Stopped. The server keeps what was sent for a day: start again to continue the upload.");
    else if (!(error instanceof ApiError)) throw error;
    else if (error.line !== undefined) this.editor.refuse(error.message, error.line);
    else {
      this.ordered = undefined;
      this.problem(error.message);
    }
  }

  private sending(fraction: number, text: string): void {
    byId<HTMLProgressElement>("sending-bar").value = fraction;
    setText(byId("sending-text"), text);
  }

  private showBusy(): void {
    const busy = this.stopping !== undefined;
    byId("sending").hidden = !busy;
    byId("stop-sending").hidden = !busy;
    byId<HTMLButtonElement>("submit").disabled = busy;
    byId<HTMLTextAreaElement>("recipe").readOnly = busy;
    this.picker.disabled = busy;
    byId<HTMLInputElement>("files").disabled = busy;
    byId<HTMLButtonElement>("try-sample").disabled = busy;
    if (busy) this.sending(0, "Checking the recipe…");
    this.showFiles();
  }

  private problem(text: string): void {
    setText(byId("form-problem"), text);
  }
}

function paused(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
