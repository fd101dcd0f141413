/** The HTTP API of jobs. */

import { answerOf, askJson as ask } from "../shared/http";
import type { Choices, Job, JobAnswer, Order, Recipe, Serving, TrainingOrder, UploadState } from "./protocol";

export { ApiError } from "../shared/http";

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
