/**
 * Sends one file in pieces and goes on from where it stood: after a lost connection, a restarted server, and after a
 * reload, when the same file is chosen again. Pure but for what it is given.
 */

import { ApiError } from "./api";
import { type Patience, persist } from "./persist";
import type { UploadState } from "./protocol";

export interface UploadServer {
  createUpload(name: string, size: number): Promise<UploadState>;
  upload(id: string): Promise<UploadState>;
  sendPiece(id: string, offset: number, piece: Blob, signal: AbortSignal): Promise<{ offset: number }>;
}

export interface Surroundings extends Patience {
  server: UploadServer;
  /** Where the ids of uploads under way are kept. */
  memory: Pick<Storage, "getItem" | "setItem" | "removeItem">;
  /** Called with the number of bytes that the server has. */
  tell(offset: number): void;
}

/** The same file, as far as a browser tells. */
export function memoryKey(file: Pick<File, "name" | "size" | "lastModified">): string {
  return `chatserver.upload.${file.name}|${file.size}|${file.lastModified}`;
}

/** The id of the complete upload. Throws an ApiError that does not pass, or the signal's reason. */
export async function sendFile(file: File, around: Surroundings): Promise<string> {
  let state = await begin(file, around);
  while (state.offset < file.size) {
    around.tell(state.offset);
    state = await sendNext(file, state, around);
  }
  around.tell(state.offset);
  return state.id;
}

async function sendNext(file: File, state: UploadState, around: Surroundings): Promise<UploadState> {
  const piece = file.slice(state.offset, state.offset + state.piece_bytes);
  try {
    const { offset } = await persist(
      () => around.server.sendPiece(state.id, state.offset, piece, around.signal),
      around,
    );
    return { ...state, offset };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.offset !== undefined) return { ...state, offset: error.offset };
    if (error.code !== "gone") throw error;
    around.memory.removeItem(memoryKey(file));
    return begin(file, around);
  }
}

/** The upload of this file that stands half done, or a new one. */
async function begin(file: File, around: Surroundings): Promise<UploadState> {
  const { server, memory } = around;
  const key = memoryKey(file);
  const known = memory.getItem(key);
  if (known) {
    try {
      const state = await persist(() => server.upload(known), around);
      if (state.size === file.size) return state;
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "gone") throw error;
    }
  }
  const state = await persist(() => server.createUpload(file.name, file.size), around);
  try {
    memory.setItem(key, state.id);
  } catch {
    /* a full storage: this file begins anew after a reload */
  }
  return state;
}
