/** The leaderboard as a picture: a point for each score, a line for its interval, an arrow where that is open. */

import { h } from "../shared/dom";
import type { Standing } from "./protocol";
import { describeInterval } from "./words";

const SVG = "http://www.w3.org/2000/svg";
const ROW = 34;
const LEFT = 210;
const WIDTH = 720;
const RIGHT = WIDTH - 24;
const AXIS = 34;
const MAX_NAME = 28;

export interface Scale {
  from: number;
  to: number;
  ticks: number[];
}

/** The scores from the lowest to the highest, with some room, in round steps. */
export function scaleOf(standings: Pick<Standing, "score" | "low" | "high">[]): Scale {
  const values = standings.flatMap(({ score, low, high }) => [score, low ?? score, high ?? score]);
  const spread = Math.max(...values) - Math.min(...values);
  const step = [10, 20, 50, 100, 200, 500, 1_000].find((each) => spread / each <= 6) ?? 2_000;
  const from = Math.floor(Math.min(...values) / step - 0.2) * step;
  const to = Math.ceil(Math.max(...values) / step + 0.2) * step;
  const ticks = Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
  return { from, to, ticks };
}

export function plot(standings: Standing[]): HTMLElement {
  const height = standings.length * ROW + AXIS;
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "plot", role: "img", "data-testid": "plot" });
  svg.setAttribute("aria-label", "Scores with their intervals, as in the table");
  const scale = scaleOf(standings);
  const at = (value: number) => LEFT + ((value - scale.from) / (scale.to - scale.from)) * (RIGHT - LEFT);
  for (const tick of scale.ticks) {
    svg.append(line("grid", at(tick), 8, at(tick), height - AXIS + 6));
    svg.append(words(String(tick), at(tick), height - 8, "tick"));
  }
  for (const [row, standing] of standings.entries()) svg.append(...rowOf(standing, row * ROW + ROW / 2 + 4, at));
  return h("div", { class: "plot-frame", tabindex: "0", role: "group", "aria-label": "Plot of the scores" }, svg);
}

function rowOf(standing: Standing, y: number, at: (value: number) => number): SVGElement[] {
  const { name, score, low, high } = standing;
  const from = low === null ? LEFT : at(low);
  const to = high === null ? RIGHT : at(high);
  const drawn: SVGElement[] = [
    words(name.length > MAX_NAME ? `${name.slice(0, MAX_NAME - 1)}…` : name, LEFT - 14, y + 4, "name"),
    line("interval", from, y, to, y),
    draw("circle", { cx: String(at(score)), cy: String(y), r: "5.5", class: "score" }),
  ];
  if (low === null) drawn.push(arrow(from, y, -1));
  if (high === null) drawn.push(arrow(to, y, 1));
  const title = draw("title", {});
  title.textContent = `${name}: ${Math.round(score)}, ${describeInterval(standing)}`;
  drawn[2]?.append(title);
  return drawn;
}

function arrow(x: number, y: number, direction: 1 | -1): SVGElement {
  const back = x - 8 * direction;
  return draw("path", { d: `M${back} ${y - 5} L${x} ${y} L${back} ${y + 5}`, class: "interval" });
}

function line(kind: string, x1: number, y1: number, x2: number, y2: number): SVGElement {
  return draw("line", { x1: String(x1), y1: String(y1), x2: String(x2), y2: String(y2), class: kind });
}

function words(text: string, x: number, y: number, kind: string): SVGElement {
  const element = draw("text", { x: String(x), y: String(y), class: kind });
  element.textContent = text;
  return element;
}

function draw(tag: string, attributes: Record<string, string>): SVGElement {
  const element = document.createElementNS(SVG, tag) as SVGElement;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
