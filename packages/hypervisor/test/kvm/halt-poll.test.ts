import { describe, expect, it } from "vitest"
import { HALT_POLL, type HaltPollParameters, nextWindow } from "../../src/kvm/HaltPoll.ts"

const us = (n: number): number => n * 1_000
const halving: HaltPollParameters = { ...HALT_POLL, shrink: 2 }

describe("a vCPU's polling window", () => {
  it.each<[what: string, window: number, halted: number, next: number, parameters: HaltPollParameters]>([
    ["opens at 10 us after the first short halt", 0, us(50), us(10), HALT_POLL],
    ["stays closed after a long first halt", 0, us(300), 0, HALT_POLL],
    ["doubles when the wake came later than it", us(10), us(15), us(20), HALT_POLL],
    ["stays when the wake came within it", us(20), us(20), us(20), HALT_POLL],
    ["grows to the ceiling and no further", us(160), us(190), us(200), HALT_POLL],
    ["stays at the ceiling", us(200), us(199), us(200), HALT_POLL],
    ["stays for a halt of just the ceiling", us(20), us(200), us(20), HALT_POLL],
    ["closes after a halt beyond the ceiling", us(160), us(201), 0, HALT_POLL],
    ["is halved where KVM is told so", us(160), us(201), us(80), halving],
    ["closes when half of it is below the start", us(10), us(201), 0, halving],
    ["does not grow with a factor of 0", us(20), us(100), us(20), { ...HALT_POLL, grow: 0 }],
    ["is none without polling", us(20), us(5), 0, { ...HALT_POLL, maximumNs: 0 }]
  ])("%s", (_what, window, halted, next, parameters) => {
    expect(nextWindow(window, halted, parameters)).toBe(next)
  })

  it("reaches the ceiling in six short halts", () => {
    const windows: Array<number> = []
    for (let window = 0; windows.length < 7; windows.push(window)) window = nextWindow(window, us(199), HALT_POLL)
    expect(windows).toEqual([10, 20, 40, 80, 160, 200, 200].map(us))
  })
})
