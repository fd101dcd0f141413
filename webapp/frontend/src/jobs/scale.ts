/** The arithmetic of a chart: ticks, scales, smoothing. Pure. */

export interface Point {
  x: number;
  y: number;
}

export interface Axis {
  min: number;
  max: number;
  ticks: number[];
}

const STEPS = [1, 2, 2.5, 5, 10];

/** An axis over [min, max] whose ticks are round numbers: about `wanted` of them, the outermost at the ends. */
export function niceAxis(min: number, max: number, wanted: number, whole = false): Axis {
  if (!(max > min)) {
    const room = Math.abs(min) * 0.1 || 1;
    return niceAxis(whole ? min : min - room, min + room, wanted, whole);
  }
  const step = niceStep((max - min) / Math.max(1, wanted), whole);
  const first = Math.floor(min / step + 1e-9);
  const last = Math.ceil(max / step - 1e-9);
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => cleaned((first + index) * step));
  return { min: ticks[0]!, max: ticks.at(-1)!, ticks };
}

/** An axis that ends where its values end: ticks lie within, none is added beyond. For steps. */
export function tightAxis(min: number, max: number, wanted: number): Axis {
  const { ticks } = niceAxis(min, max, wanted, true);
  return { min, max: Math.max(max, min + 1), ticks: ticks.filter((tick) => tick >= min && tick <= max) };
}

function niceStep(rough: number, whole: boolean): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = (STEPS.find((one) => one * power >= rough * 0.999) ?? 10) * power;
  return whole ? Math.max(1, Math.ceil(step)) : step;
}

/** Without the dust of binary fractions. */
function cleaned(value: number): number {
  return Number(value.toPrecision(12));
}

/** All ticks of an axis with as many decimals as they need to differ. */
export function tickLabels(ticks: number[]): string[] {
  const gap = ticks.length > 1 ? Math.abs(ticks[1]! - ticks[0]!) : Math.abs(ticks[0] ?? 1);
  const largest = Math.max(...ticks.map(Math.abs));
  if (largest > 0 && (largest < 1e-3 || gap < 1e-4)) return ticks.map((tick) => (tick === 0 ? "0" : scientific(tick)));
  if (largest >= 10_000)
    return ticks.map((tick) => (tick === 0 ? "0" : `${cleaned(tick / 1000).toLocaleString("en")}k`));
  const decimals = Math.max(0, decimalsOf(cleaned(gap)));
  return ticks.map((tick) =>
    tick.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }),
  );
}

function decimalsOf(value: number): number {
  return value.toString().includes("e-") ? 6 : (value.toString().split(".")[1] ?? "").length;
}

/** `2e-5`, as people write learning rates. */
export function scientific(value: number): string {
  if (value === 0) return "0";
  const [mantissa, power] = value.toExponential(2).split("e");
  return `${Number(mantissa)}e${Number(power)}`;
}

/** How strongly a curve of so many points is smoothed: not at all while one sees each point. */
export function smoothingOf(numPoints: number): number {
  return numPoints < 12 ? 0 : 1 - 1 / Math.min(Math.max(numPoints / 60, 2), 20);
}

/** The average around each point, with weights that fall by `weight` from step to step on both sides. */
export function smoothed(points: Point[], weight: number): Point[] {
  const forth = summed(
    points.map(({ y }) => y),
    weight,
  );
  const back = summed(points.map(({ y }) => y).reverse(), weight).reverse();
  return points.map(({ x, y }, index) => {
    const [sum, share] = forth[index]!;
    const [sumAfter, shareAfter] = back[index]!;
    return { x, y: (sum + sumAfter - y) / (share + shareAfter - 1) }; // its own value is in both
  });
}

/** Each value with those before it, weighted: sum and sum of the weights. */
function summed(values: number[], weight: number): [sum: number, share: number][] {
  let sum = 0;
  let share = 0;
  return values.map((value) => [(sum = weight * sum + value), (share = weight * share + 1)]);
}

/** Where in points sorted by x the one nearest to x is; -1 if there is none. */
export function nearest(points: Point[], x: number): number {
  let low = 0;
  let high = points.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle]!.x < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - points[low - 1]!.x <= points[low]!.x - x ? low - 1 : low;
}

/** At most about `most` points, the lowest and the highest of each stretch among them, so that no spike is lost. */
export function thinned(points: Point[], most: number): Point[] {
  if (points.length <= most) return points;
  const stretch = Math.ceil((2 * points.length) / most);
  const kept: Point[] = [];
  for (let start = 0; start < points.length; start += stretch) {
    const part = points.slice(start, start + stretch);
    const low = part.reduce((a, b) => (b.y < a.y ? b : a));
    const high = part.reduce((a, b) => (b.y > a.y ? b : a));
    kept.push(...(low.x === high.x ? [low] : [low, high].sort((a, b) => a.x - b.x)));
  }
  return kept;
}
