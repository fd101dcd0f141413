/** Counts, sizes, durations and ages in words. Pure. */

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** `12.3 MB`; powers of 1,000, as file managers count. */
export function bytes(number: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let power = 0;
  let value = number;
  while (value >= 999.5 && power < units.length - 1) {
    value /= 1000;
    power += 1;
  }
  if (power === 0) return count(number, "byte");
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3_600) return s < 600 && s % 60 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.round(s / 60)} min`;
  const minutes = Math.round(s / 60);
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${minutes / 60} h`;
}

export function age(seconds: number): string {
  if (seconds < 45) return "just now";
  if (seconds < 3_600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.round(seconds / 3_600)} h ago`;
  return `${count(Math.round(seconds / 86_400), "day")} ago`;
}
