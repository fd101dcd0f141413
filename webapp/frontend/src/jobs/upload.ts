/**
 * Sends one file in pieces and goes on from where it stood: after a lost connection, a restarted server, and after a
 * reload, when the same file is chosen again. Pure but for what it is given.
 */

import { ApiError } from "./api";
import type { UploadState } from "./protocol";

export interface UploadServer {
  createUpload(name: string, size: number): Promise<UploadState>;
  upload(id: string): Promise<UploadState>;
  sendPiece(id: string, offset: number, piece: Blob, signal: AbortSignal): Promise<{ offset: number }>;
}

/** Where the ids of uploads under way are kept. */
export type Memory = Pick<Storage, "getItem" | "setItem" | "removeItem">;

export interface Surroundings {
  server: UploadServer;
  memory: Memory;
  signal: AbortSignal;
  /** Called with the bytes that the server has, and why it waits if it does. */
  tell(offset: number, trouble: string): void;
  pause(ms: number): Promise<void>;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8_000;

/** The same file, as far as a browser tells. */
export function memoryKey(file: Pick<File, "name" | "size" | "lastModified">): string {
  return `chatserver.upload.${file.name}|${file.size}|${file.lastModified}`;
}

/** The id of the complete upload. Throws an ApiError that does not pass, or the signal's reason. */
export async function sendFile(file: File, around: Surroundings): Promise<string> {
  let state = await begin(file, around);
  let { offset } = state;
  let pause_ms = FIRST_PAUSE_MS;
  around.tell(offset, "");
  while (offset < file.size) {
    around.signal.throwIfAborted();
    try {
      const piece = file.slice(offset, offset + state.piece_bytes);
      ({ offset } = await around.server.sendPiece(state.id, offset, piece, around.signal));
      pause_ms = FIRST_PAUSE_MS;
      around.tell(offset, "");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.offset !== undefined) {
        ({ offset } = error);
      } else if (error.code === "gone") {
        around.memory.removeItem(memoryKey(file));
        state = await begin(file, around);
        ({ offset } = state);
      } else if (error.passes) {
        around.tell(offset, error.message);
        await around.pause(pause_ms);
        pause_ms = Math.min(2 * pause_ms, LONGEST_PAUSE_MS);
      } else {
        throw error;
      }
    }
  }
  return state.id;
}

/** The upload of this file that stands half done, or a new one. */
async function begin(file: File, { server, memory }: Surroundings): Promise<UploadState> {
  const key = memoryKey(file);
  const known = memory.getItem(key);
  if (known) {
    try {
      const state = await server.upload(known);
      if (state.size === file.size) return state;
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "gone") throw error;
    }
  }
  const state = await server.createUpload(file.name, file.size);
  try {
    memory.setItem(key, state.id);
  } catch { /* a full storage: this file begins anew after a reload */ }
  return state;
}
