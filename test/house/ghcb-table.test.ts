import { readFileSync } from "node:fs"
import { GHCB_EVENTS, GHCB_EVENTS_REFUSED } from "@vmpl-lab/hypervisor"
import { GHCB_MSR } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { document, events } from "../../scripts/ghcb-table.mjs"

const codeOf = (event: string): number => Number(event.replace("msr ", ""))

describe("the table of GHCB events and requests", () => {
  it("names a handler, a sender and a test for each, or why it is refused", () => {
    const missing = events()
      .filter(({ handlers, senders, tests, refused }) =>
        refused === undefined ? [handlers, senders, tests].some((paths) => paths.length === 0) : tests.length === 0
      )
      .map(({ event }) => event)
    expect(missing).toEqual([])
  })

  it("has every event that the hypervisor knows, and no other as served", () => {
    const page = events().filter(({ event }) => !event.startsWith("msr "))
    const served = page.filter(({ refused }) => refused === undefined).map(({ event }) => codeOf(event))
    expect(served.sort((a, b) => a - b)).toEqual([...GHCB_EVENTS.keys()].sort((a, b) => a - b))
    const refused = page.filter((one) => one.refused !== undefined).map(({ event }) => codeOf(event))
    expect(refused.sort((a, b) => a - b)).toEqual([...GHCB_EVENTS_REFUSED].sort((a, b) => a - b))
  })

  it("has every request of the GHCB MSR", () => {
    const requests = Object.entries(GHCB_MSR).filter(([name]) => !name.endsWith("RESPONSE"))
    const listed = events().filter(({ event, refused }) => event.startsWith("msr ") && refused === undefined)
    expect(listed.map(({ event }) => codeOf(event)).slice(1)).toEqual(requests.map(([, code]) => code))
  })

  it("is as the sources say: run node scripts/ghcb-table.mjs", () => {
    expect(readFileSync(new URL("../../docs/ghcb.md", import.meta.url), "utf8")).toBe(document())
  })
})
