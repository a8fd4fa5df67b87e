import type { TracePoint } from "@vmpl-lab/hypervisor"
import type { HostThread } from "@vmpl-lab/sim"

/** Process ids of the simulated threads: the first one is that of the VMM. */
const FIRST_PID = 1000

const NS_PER_S = 1_000_000_000

/** One line as `trace-cmd report` prints it: thread, pid, CPU, seconds, event, its text. */
export const traceLine = (thread: HostThread, point: TracePoint, text: string, fullTime: boolean): string => {
  const digits = fullTime ? 9 : 6
  const unit = NS_PER_S / 10 ** digits
  const ticks = Math.round(thread.time / unit)
  const perSecond = 10 ** digits
  const seconds = `${Math.floor(ticks / perSecond)}.${String(ticks % perSecond).padStart(digits, "0")}`
  const who = `${thread.name.slice(0, 15).padStart(16)}-${String(FIRST_PID + thread.id).padEnd(5)}`
  const cpu = `[${String(thread.core).padStart(3, "0")}]`
  return `${who} ${cpu} ${seconds.padStart(12)}: ${`${point}:`.padEnd(21)} ${text}`.trimEnd()
}

/** What lines pass: by the names of their events, where * stands for any text, and a text that must occur in them. */
export interface TraceFilter {
  readonly event: RegExp
  readonly text: string
}

/** Parses EVENT or EVENT:TEXT, as `kvm_vmgexit_*` or `kvm_exit:reason npf`. */
export const parseTraceFilter = (argument: string): TraceFilter => {
  const colon = argument.indexOf(":")
  const event = colon < 0 ? argument : argument.slice(0, colon)
  const escaped = event.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*")
  return { event: new RegExp(`^${escaped}$`), text: colon < 0 ? "" : argument.slice(colon + 1) }
}

/** Whether a line passes any of the filters; without filters every line does. */
export const passes = (filters: ReadonlyArray<TraceFilter>, point: TracePoint, text: string): boolean =>
  filters.length === 0 || filters.some((filter) => filter.event.test(point) && text.includes(filter.text))
