const STEPS = [
  { unit: "ns", ns: 1 },
  { unit: "us", ns: 1e3 },
  { unit: "ms", ns: 1e6 },
  { unit: "s", ns: 1e9 }
] as const

/** At most three significant digits, and no fraction above 100. */
const digits = (value: number): string => {
  if (value >= 99.95) return value.toFixed(0)
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2)
}

/** Nanoseconds for a reader: `962 ns`, `12.4 us`, `1.03 ms`; a dash for null. */
export const duration = (ns: number | null): string => {
  if (ns === null) return "-"
  // 999.6 us would round to "1000 us": from there on the next unit reads better.
  const step = STEPS.findLast((candidate) => ns >= candidate.ns * 0.9995) ?? STEPS[0]
  return step.unit === "ns" ? `${Math.round(ns)} ns` : `${digits(ns / step.ns)} ${step.unit}`
}

/** A count per something: `0`, `2`, `1.25`; a dash for null. */
export const count = (value: number | null): string => {
  if (value === null) return "-"
  return Number.isInteger(value) ? String(value) : value.toFixed(2)
}

/** `x1.00`, or a dash for null. */
export const ratio = (value: number | null): string => (value === null ? "-" : `x${digits(value)}`)

/** A share from 0 to 1 as `37 %`; shares that are not nothing never read as 0. */
export const percent = (share: number | null): string => {
  if (share === null) return "-"
  return share > 0 && share < 0.005 ? "<1 %" : `${Math.round(share * 100)} %`
}

/** "36,000 states/s, measured here": host speed, three digits. */
export const rateText = (count: number, ms: number): string =>
  `${Math.round(Number(((count * 1000) / ms).toPrecision(3))).toLocaleString("en-US")} states/s on this host`
