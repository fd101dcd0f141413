/** The HTTP API of jobs. Whatever goes wrong is an ApiError. */

import { describeError, type ServerError } from "../shared/errors";
import type { Choices, Job, JobAnswer, Order, Preview, Recipe, Serving, TrainingOrder, UploadState } from "./protocol";

export class ApiError extends Error {
  /** `status` 0: no answer at all. `line`: of a recipe that is refused. `offset`: from where an upload goes on. `field`: of a form. */
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly line?: number,
    readonly offset?: number,
    readonly field?: string,
  ) {
    super(message);
  }

  /** Whether the same request may succeed later. */
  get passes(): boolean {
    return this.status === 0 || this.status === 429 || (this.status >= 502 && this.status <= 504);
  }
}

export const api = {
  jobs: () => ask<{ jobs: Job[]; now_s: number }>("GET", "/api/jobs"),
  job: (id: string, after: string, point: number) =>
    ask<JobAnswer>("GET", `/api/jobs/${encodeURIComponent(id)}?after=${encodeURIComponent(after)}&point=${point}`),
  submit: (order: Order) => ask<{ job: Job }>("POST", "/api/jobs", order),
  cancel: (id: string) => ask<{ job: Job }>("POST", `/api/jobs/${encodeURIComponent(id)}/cancel`, {}),
  again: (id: string) => ask<{ job: Job }>("POST", `/api/jobs/${encodeURIComponent(id)}/again`, {}),
  remove: (id: string) => ask<{ ok: true }>("DELETE", `/api/jobs/${encodeURIComponent(id)}`),
  serve: (id: string, wanted: boolean) =>
    ask<{ serving: Serving }>("POST", `/api/jobs/${encodeURIComponent(id)}/serve`, { wanted }),
  choices: () => ask<Choices>("GET", "/api/trainings"),
  train: (order: TrainingOrder) => ask<{ job: Job }>("POST", "/api/trainings", order),
  preview: (order: TrainingOrder) => ask<{ preview: Preview }>("POST", "/api/trainings/previews", order),
  previewed: (id: string) => ask<{ preview: Preview }>("GET", `/api/trainings/previews/${encodeURIComponent(id)}`),
  recipes: () => ask<{ recipes: Recipe[]; max_upload_bytes: number }>("GET", "/api/recipes"),
  check: (recipe: string) => ask<{ name: string }>("POST", "/api/recipes/check", { recipe }),
  createUpload: (name: string, size: number) => ask<UploadState>("POST", "/api/uploads", { name, size }),
  upload: (id: string) => ask<UploadState>("GET", `/api/uploads/${id}`),
  sendPiece: (id: string, offset: number, piece: Blob, signal: AbortSignal) =>
    ask<{ offset: number }>("PUT", `/api/uploads/${id}?offset=${offset}`, piece, signal),
  sample: async (name: string) => (await answerOf("GET", `/api/samples/${encodeURIComponent(name)}`)).blob(),
  dropUpload: (id: string) => ask<{ ok: true }>("DELETE", `/api/uploads/${id}`),
};

export function fileAddress(id: string, kind: string): string {
  return `/api/jobs/${encodeURIComponent(id)}/files/${kind}`;
}

async function ask<T>(method: string, path: string, body?: object, signal?: AbortSignal): Promise<T> {
  return (await (await answerOf(method, path, body, signal)).json()) as T;
}

async function answerOf(method: string, path: string, body?: object, signal?: AbortSignal): Promise<Response> {
  const raw = body instanceof Blob;
  const token = document.querySelector<HTMLMetaElement>('meta[name="csrf-token"]')?.content;
  const init: RequestInit = { method, headers: token ? { "X-CSRF-Token": token } : {} };
  if (signal) init.signal = signal;
  if (body) {
    init.headers = { ...init.headers, "Content-Type": raw ? "application/octet-stream" : "application/json" };
    init.body = raw ? body : JSON.stringify(body);
  }
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "unreachable", "The server does not answer.");
  }
  if (answer.ok) return answer;
  throw await errorOf(answer);
}

async function errorOf(answer: Response): Promise<ApiError> {
  try {
    const { error } = (await answer.json()) as {
      error: ServerError & { line?: number; offset?: number; field?: string };
    };
    return new ApiError(answer.status, error.code, describeError(error), error.line, error.offset, error.field);
  } catch {
    return new ApiError(answer.status, "internal", `The server answers ${answer.status}.`);
  }
}
