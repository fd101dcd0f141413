/** The admin page: what runs is asked every two seconds, the rest seldom; nothing while nobody looks. */

import { byId, setText } from "../shared/dom";
import { ApiError } from "../shared/http";
import { Polling } from "../shared/polling";
import { chooseTheme, isDark } from "../shared/theme";
import { Actions } from "./actions";
import { api } from "./api";
import { DeadLettersView } from "./dead_letters_view";
import { GroupsView } from "./groups_view";
import { KeysView } from "./keys_view";
import { LimitsView } from "./limits_view";
import { PeopleView } from "./people_view";
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
  const people = new PeopleView(actions);
  const nameOf = (user: string) => people.nameOf(user);
  const serving = new ServingView(actions, nameOf);
  const dead = new DeadLettersView(actions, nameOf);
  const others = [
    new GroupsView(actions),
    new KeysView(actions, nameOf),
    new LimitsView(actions, nameOf),
    new StorageView(actions),
  ];

  async function refreshSeldom(): Promise<void> {
    seldom_ms = performance.now(); // before: what is changed meanwhile is asked for again
    try {
      await people.refresh(); // the others show names
      await Promise.all(others.map((view) => view.refresh()));
    } catch (error) {
      seldom_ms = -Infinity;
      throw error;
    }
  }

  async function refresh(): Promise<boolean> {
    if (performance.now() - seldom_ms >= SELDOM_MS) await refreshSeldom();
    const overview = await api.overview();
    serving.show(overview);
    dead.show(overview.dead);
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
