// @ts-check
// How numbers, durations and times are written. Pure: no page, no clock.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A count, whole: 12,480. */
export function count(n) {
  return whole.format(n);
}

/** "1 job", "12,480 jobs". */
export function plural(n, word) {
  return count(n) + " " + word + (n === 1 ? "" : "s");
}

/** @type {[number, string][]} */
const prefixes = [[1e15, " P"], [1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]];

/** Three significant digits and a unit prefix from ten thousand on: 3.21 M. */
export function short(n) {
  for (const [size, unit] of prefixes) {
    if (n >= Math.max(size, 1e4)) {
      const v = n / size;
      return v.toLocaleString("en-US", { minimumSignificantDigits: 3, maximumSignificantDigits: 3, useGrouping: false }) + unit;
    }
  }
  return n >= 100 || Number.isInteger(n) ? count(n) : n.toLocaleString("en-US", { maximumFractionDigits: 1 });
}

/** Bytes in binary units: 41 MiB. */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let u = 0;
  for (; n >= 1024 && u < units.length - 1; u++) n /= 1024;
  return (u > 0 && n < 10 ? n.toFixed(1) : count(n)) + " " + units[u];
}

/** A time that has passed, exact enough to read: 2 min 14 s. Of seconds. */
export function age(s) {
  s = Math.max(0, Math.floor(s));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return plural(Math.floor(s / 86400), "day") + " " + Math.floor(s % 86400 / 3600) + " h";
}

/** A time to come, two significant digits: 35 min. Of seconds. */
export function about(s) {
  const two = (v) => Number(v.toPrecision(2)).toLocaleString("en-US");
  if (s < 1) return "under 1 s";
  if (s < 99.5) return two(s) + " s";
  if (s < 99.5 * 60) return two(s / 60) + " min";
  if (s < 48 * 3600) return two(s / 3600) + " h";
  if (s < 2 * 365 * 86400) return two(s / 86400) + " days";
  return two(s / (365 * 86400)) + " years";
}

/** The time of day, 24 h: 14:22:01. @param {Date} at @param {boolean} [seconds] */
export function clock(at, seconds) {
  return at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined });
}

/** Dollars: whole micro-dollars, rounded once. @param {number} dollars */
export function money(dollars) {
  const micro = Math.round(dollars * 1e6);
  if (micro === 0) return "$0";
  if (micro < 1e3) return "under $0.001";
  return "$" + (micro / 1e6).toFixed(micro < 1e6 ? 3 : 2);
}

/** A rate, to one decimal below 100. */
export function rate(n) {
  if (n > 0 && n < 0.05) return "under 0.1/s";
  return short(n >= 100 ? Math.round(n) : Math.round(n * 10) / 10) + "/s";
}

/** @param {string} at an instant of the API */
export function seconds(at) {
  return Date.parse(at) / 1000;
}
