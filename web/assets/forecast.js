// @ts-check
// The sentence on the state of the queue. Pure: a snapshot in, words out.
import { about, age, clock, plural, short } from "./format.js";

/**
 * @typedef {{kind: string, level: "idle"|"good"|"warn"|"bad"|"wait", text: string, reason: string}} Forecast
 */

/**
 * Says what state the queue is in; the first that matches. It gives a time only
 * where the snapshot knows one: "at least" where a single long chain may take
 * longer than the sum tells, nothing while there is no rate.
 * @param {any} s a Status of the API
 * @returns {Forecast}
 */
export function forecast(s) {
  const open = s.queued + s.leased;
  const queued = s.queued > 0 ? plural(s.queued, "job") + " queued" : plural(s.leased, "job") + " running";
  if (open === 0) {
    return { kind: "idle", level: "idle", text: "Nothing queued.", reason: s.completed + s.failed + s.cancelled === 0 ? "Submit a file below to see it work." : "" };
  }
  if (s.Workers === 0) {
    const waits = s.oldest_queued_at ? "The oldest has waited " + age(seconds(s.now) - seconds(s.oldest_queued_at)) + ". " : "";
    return { kind: "stalled", level: "bad", text: queued + ", no worker connected.", reason: waits + "Start this node with --workers 1 or more." };
  }
  const done = rate(s.rate_completed) + " done, " + rate(s.rate_enqueued) + " arriving, " + plural(s.Workers, "worker") + ".";
  const speed = iterationsRate(s);
  if (!(speed > 0)) {
    return { kind: "measuring", level: "wait", text: queued + ", measuring.", reason: "No rate is known yet. " + done };
  }
  // What arrives while we drain is counted as if it cost what is completed now.
  const net = s.rate_completed > 0 ? 1 - s.rate_enqueued / s.rate_completed : s.rate_enqueued > 0 ? NaN : 1;
  if (Number.isNaN(net)) {
    return { kind: "measuring", level: "wait", text: queued + ", measuring.", reason: "None was completed in the last 10 s. " + done };
  }
  if (s.queued > 0 && net < -0.02) {
    return { kind: "growing", level: "warn", text: queued + ", growing by " + rate(s.rate_enqueued - s.rate_completed) + ".", reason: done };
  }
  if (s.queued > 0 && net < 0.02) {
    return { kind: "holding", level: "warn", text: queued + ", not shrinking.", reason: done };
  }
  const left = s.remaining_iterations / speed / (s.queued > 0 ? net : 1);
  // A chain is serial: with few jobs the longest one decides, and the sum is
  // only a lower bound.
  const bound = open > 1 && s.queued < 2 * s.leased ? "at least " : left < 1 ? "" : "about ";
  const at = left >= 60 && left < 86400 ? " (" + clock(new Date((seconds(s.now) + left) * 1000)) + ")" : "";
  return {
    kind: "draining", level: "good",
    text: queued + ", done in " + bound + about(left) + at + ".",
    reason: done + " " + short(s.remaining_iterations) + " iterations to go at " + short(speed) + "/s.",
  };
}

/** Iterations a second: what the workers report now. The node's own figure, over
 * the last 10 s, is behind whenever work has just begun or ended.
 * @param {any} s a Status of the API */
export function iterationsRate(s) {
  const now = s.workers_list.reduce((/** @type {number} */ sum, /** @type {any} */ w) => sum + (w.leases > 0 ? w.rate : 0), 0);
  return now > 0 ? now : s.rate_iterations;
}

/** A rate, to one decimal below 100. @param {number} n a second */
export function rate(n) {
  return short(n >= 100 ? Math.round(n) : Math.round(n * 10) / 10) + "/s";
}

/** @param {string} at an instant of the API */
export function seconds(at) {
  return Date.parse(at) / 1000;
}
