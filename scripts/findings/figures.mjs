// What the blocks read out of results.
import { duration, percent, ratio } from "@vmpl-lab/lab"

export { duration, percent, ratio }

export const nameOf = ({ strategy, variant }) => (variant === null ? strategy : `${strategy}/${variant}`)
export const code = (name) => `\`${name}\``

/** The result of one strategy and operation. */
export const resultOf = (json, name, operation = "run-vmpl-round-trip") =>
  json.results.find((one) => nameOf(one) === name && one.operation === operation)
export const roundTrip = (json, name) => resultOf(json, name).ns.p50
export const strategyOf = (json, name) => json.strategies.find((one) => nameOf(one) === name)
export const namesIn = (json) => json.strategies.map(nameOf)

/** One kind of AP creation. */
export const groupOf = (json, name, kind) =>
  resultOf(json, name, "ap-create").groups.find((group) => group.name === kind)

export const comparisonOf = (json, name, operation, reference) =>
  json.paired.comparisons.find(
    (one) => nameOf(one) === name && one.operation === operation && one.reference === reference
  )?.difference

export const kib = (bytes) => `${Math.round(bytes / 1024)} KiB`
export const isAbout = (a, b, share = 0.01) => Math.abs(a - b) <= share * b

/** Interrupts of one strategy, all sources of all levels together. */
export const interruptsOf = (json, name, level) => {
  const found = json.interrupts.find((one) => nameOf(one) === name)
  const sources = found.sources.filter(({ vmpl }) => level === undefined || vmpl === level)
  const sum = (key) => sources.reduce((total, source) => total + source[key], 0)
  return { raised: sum("raised"), wrong: sum("misdelivered"), late: sum("delayed"), merged: sum("merged"), sources }
}

/** Median delay of device interrupts whose level did not run when they came; "-" where none reached its level so. */
export const lateDevice = (json, name, level) =>
  interruptsOf(json, name, level).sources.find(({ source }) => source === "device").whileNotRunning.ns.p50
