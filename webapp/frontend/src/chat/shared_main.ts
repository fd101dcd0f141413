/** The page behind a link that somebody shared: one conversation, to be read. */

import { byId, setText } from "../shared/dom";
import { ApiError } from "../shared/http";
import { api } from "./api";
import { Transcript } from "./transcript";

async function show(secret: string): Promise<void> {
  const transcript = new Transcript(undefined, { liveOf: () => undefined, isReasoningOpen: () => false });
  try {
    const conversation = await api.shared(secret);
    setText(byId("shared-title"), conversation.title);
    document.title = `${conversation.title} · ChatServer`;
    transcript.show(conversation);
    transcript.toStart();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    setText(byId("shared-words"), error.message);
  }
}

void show(document.body.dataset.secret ?? "");
