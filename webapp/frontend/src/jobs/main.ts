/** The job pages: the list beside both, the forms on `/jobs`, one job on `/jobs/<id>`. */

import { byId } from "../shared/dom";
import { Polling } from "../shared/polling";
import { chooseTheme, isDark } from "../shared/theme";
import { ApiError, api } from "./api";
import { JobForm } from "./job_form";
import { JobList, showAway } from "./job_list";
import { JobPage } from "./job_page";
import { isUnfinished } from "./protocol";
import { followAddress, placeOf } from "./tabs";
import { TrainForm } from "./train_form";

const LIST_EVERY_MS = 3_000;

function start(): void {
  byId("toggle-theme").onclick = () => chooseTheme(isDark() ? "light" : "dark");
  const id = idInAddress();
  const list = new JobList(id);
  const form = id ? undefined : new JobForm();
  const trainForm = id ? undefined : new TrainForm();
  const page = id ? new JobPage(id, () => polling.now(), away) : undefined;

  let listed_ms = -Infinity;
  let anyUnfinished = false;

  async function refreshList(): Promise<void> {
    if (performance.now() - listed_ms < LIST_EVERY_MS) return;
    const { jobs, now_s } = await api.jobs();
    list.show(jobs, now_s);
    anyUnfinished = jobs.some(isUnfinished);
    listed_ms = performance.now();
  }

  async function refresh(): Promise<boolean> {
    const [ofPage] = await Promise.all([
      page?.refresh() ?? false,
      refreshList(),
      form?.load(),
      trainForm?.loaded ? undefined : trainForm?.load(placeOf(location.hash).data),
    ]);
    if (page && !ofPage) listed_ms = -Infinity; // its end is news for the list too
    showAway("");
    return ofPage || anyUnfinished;
  }

  const polling = new Polling(refresh, away);
  polling.now();
  if (trainForm)
    followAddress(({ form, data }) => form === "train" && trainForm.loaded && void trainForm.load(data).catch(away));
}

/** What keeps us from knowing; the next answer takes it back. */
function away(error: unknown): void {
  if (!(error instanceof ApiError)) throw error;
  if (error.code === "unavailable")
    showAway("Redis does not answer. The jobs continue when Redis answers again; this page keeps asking.");
  else showAway(error.status === 0 ? "The server does not answer; this page keeps asking." : error.message);
}

function idInAddress(): string | undefined {
  const id = /^\/jobs\/([^/]+)$/.exec(location.pathname)?.[1];
  return id && decodeURIComponent(id);
}

start();
