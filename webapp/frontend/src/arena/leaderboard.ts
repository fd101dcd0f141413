/** The leaderboard: a table, the picture of it, and what the numbers mean. */

import { byId, h } from "../shared/dom";
import { api } from "./api";
import { plot } from "./plot";
import type { Standing } from "./protocol";
import { describeBoard, describeInterval } from "./words";

const COLUMNS = ["Rank", "Model", "Score", "95 % interval", "Votes", "Won", "Lost", "Tied", "Both bad"];

export async function showLeaderboard(): Promise<void> {
  const board = await api.leaderboard();
  const { standings } = board;
  byId("board").replaceChildren(...(standings.length ? [tableOf(standings, board.groups > 1), plot(standings)] : []));
  byId("board-notes").replaceChildren(...describeBoard(board).map((each) => h("p", { class: "quiet-text" }, each)));
}

function tableOf(standings: Standing[], hasGroups: boolean): HTMLElement {
  const columns = hasGroups ? [...COLUMNS, "Group"] : COLUMNS;
  return h(
    "div",
    { class: "table", tabindex: "0", role: "group", "aria-label": "Leaderboard" },
    h(
      "table",
      { "data-testid": "standings" },
      h("thead", {}, h("tr", {}, ...columns.map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, ...standings.map((each) => rowOf(each, hasGroups))),
    ),
  );
}

function rowOf(standing: Standing, hasGroups: boolean): HTMLElement {
  const { rank, name, score, votes, wins, losses, ties, both_bad, group, few_votes } = standing;
  const numbers = [wins, losses, ties, both_bad, ...(hasGroups ? [group] : [])];
  return h(
    "tr",
    {},
    h("td", {}, String(rank)),
    h("th", { scope: "row" }, name),
    h("td", {}, String(Math.round(score))),
    h("td", {}, describeInterval(standing)),
    h("td", {}, few_votes ? `${votes} (few)` : String(votes)),
    ...numbers.map((each) => h("td", {}, String(each))),
  );
}
