/** What a chart gives uPlot: curves on the steps that they share, the range of an axis, the words at its ticks. Pure. */

import uPlot from "uplot";
import { smoothed, smoothingOf } from "./smoothing";
import { scientific } from "./training_words";

export interface Point {
  x: number;
  y: number;
}

/** A vertical line at a step, such as where a run was resumed. */
export interface Mark {
  x: number;
  text: string;
}

/** Every step of a curve or a mark, and one column for each curve: what it has at that step, if anything. */
export function columns(curves: Point[][], marks: Mark[]): uPlot.AlignedData {
  const steps: uPlot.AlignedData = [marks.map(({ x }) => x)];
  return uPlot.join([...curves.map((points): uPlot.AlignedData => [xs(points), ys(points)]), steps]);
}

export function smoothedCurve(points: Point[]): Point[] {
  const values = smoothed(ys(points), smoothingOf(points.length));
  return points.map(({ x, y }, index) => ({ x, y: values[index] ?? y }));
}

function xs(points: Point[]): number[] {
  return points.map(({ x }) => x);
}

function ys(points: Point[]): number[] {
  return points.map(({ y }) => y);
}

/** An axis with room around its values; `fromZero`: zero is on it. Without values, null comes in. */
export function rangeOf(low: number | null, high: number | null, fromZero: boolean): [min: number, max: number] {
  if (low === null || high === null) return [0, 1];
  if (!fromZero) return uPlot.rangeNum(low, high, 0.1, true) as [number, number];
  if (low === 0 && high === 0) return [0, 1];
  return uPlot.rangeNum(Math.min(0, low), Math.max(0, high), 0.1, true) as [number, number];
}

/** Steps are whole numbers. */
export const STEP_INCREMENTS = [0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((power) =>
  [1, 2, 5].map((one) => one * 10 ** power),
);

/** All ticks of an axis with as many decimals as they need to differ. */
export function tickLabels(ticks: number[]): string[] {
  const [first = 1, second = 0] = ticks;
  const gap = Math.abs(second - first);
  const largest = Math.max(...ticks.map(Math.abs));
  if (largest > 0 && (largest < 1e-3 || gap < 1e-4)) return ticks.map(scientific);
  if (largest >= 10_000)
    return ticks.map((tick) => (tick === 0 ? "0" : `${cleaned(tick / 1000).toLocaleString("en")}k`));
  const decimals = decimalsOf(cleaned(gap));
  const format = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return ticks.map((tick) => tick.toLocaleString("en", format));
}

function decimalsOf(value: number): number {
  return value.toString().includes("e-") ? 6 : (value.toString().split(".")[1] ?? "").length;
}

/** Without the dust of binary fractions. */
function cleaned(value: number): number {
  return Number(value.toPrecision(12));
}
