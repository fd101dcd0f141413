/** The smoothing of a curve. Pure. */

/** How strongly a curve of so many points is smoothed: not at all while one sees each point. */
export function smoothingOf(numPoints: number): number {
  return numPoints < 12 ? 0 : 1 - 1 / Math.min(Math.max(numPoints / 60, 2), 20);
}

/** The average around each value, with weights that fall by `weight` from value to value on both sides. */
export function smoothed(values: number[], weight: number): number[] {
  const shares = sumsAround(
    values.map(() => 1),
    weight,
  );
  return sumsAround(values, weight).map((sum, index) => sum / (shares[index] ?? 1));
}

function sumsAround(values: number[], weight: number): number[] {
  const before = runningSums(values, weight);
  const after = runningSums(values.toReversed(), weight).toReversed();
  return values.map((value, index) => (before[index] ?? 0) + (after[index] ?? 0) - value); // the value itself is in both
}

function runningSums(values: number[], weight: number): number[] {
  let sum = 0;
  return values.map((value) => {
    sum = weight * sum + value;
    return sum;
  });
}
