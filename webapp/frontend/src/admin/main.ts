/** The admin page: what runs is asked every two seconds, the rest seldom; nothing while nobody looks. */

import { byId, setText } from "../shared/dom";
import { ApiError } from "../shared/http";
import { Polling } from "../shared/polling";
import { chooseTheme, isDark } from "../shared/theme";
import { Actions } from "./actions";
import { api } from "./api";
import { KeysView } from "./keys_view";
import { ServingView } from "./serving_view";
import { StorageView } from "./storage_view";

const EVERY_MS = 2_000;
const SELDOM_MS = 20_000;

function start(): void {
  byId("toggle-theme").onclick = () => chooseTheme(isDark() ? "light" : "dark");
  let seldom_ms = -Infinity;
  const actions = new Actions(() => {
    seldom_ms = -Infinity;
    polling.now();
  });
  const nameOf = (user: string) => user;
  const serving = new ServingView(actions, nameOf);
  const seldom = [new KeysView(actions, nameOf), new StorageView()];

  async function refresh(): Promise<boolean> {
    if (performance.now() - seldom_ms >= SELDOM_MS) {
      await Promise.all(seldom.map((view) => view.refresh()));
      seldom_ms = performance.now();
    }
    serving.show(await api.overview());
    showAway("");
    return !document.hidden;
  }

  const polling = new Polling(refresh, away, EVERY_MS);
  polling.now();
}

/** What keeps us from knowing; the next answer takes it back. */
function away(error: unknown): void {
  if (!(error instanceof ApiError)) throw error;
  if (error.code === "unavailable") showAway(`${error.message}. This page keeps asking.`);
  else showAway(error.status === 0 ? "The server does not answer; this page keeps asking." : error.message);
}

function showAway(message: string): void {
  byId("away").hidden = !message;
  setText(byId("away-text"), message);
}

start();
