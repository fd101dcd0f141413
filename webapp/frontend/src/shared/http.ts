/** The server's HTTP API, as every page asks it. Whatever goes wrong is an ApiError. */

import { describeError, type ServerError } from "./errors";

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

/** Asks for JSON. A `body` that is a Blob is sent as it is, any other as JSON. */
export async function askJson<T>(method: string, path: string, body?: object, signal?: AbortSignal): Promise<T> {
  return (await (await answerOf(method, path, body, signal)).json()) as T;
}

/** An answer that is no error. Throws ApiError, or what `signal` was aborted with. */
export async function answerOf(method: string, path: string, body?: object, signal?: AbortSignal): Promise<Response> {
  const init: RequestInit = { method, credentials: "same-origin" };
  if (signal) init.signal = signal;
  if (method !== "GET") init.headers = tokenHeader();
  if (body) {
    const raw = body instanceof Blob;
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

/** With accounts, the server wrote a token into the page that no foreign page can read; every write carries it. */
function tokenHeader(): Record<string, string> {
  const token = document.querySelector<HTMLMetaElement>("meta[name=csrf-token]")?.content;
  return token ? { "X-CSRF-Token": token } : {};
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
