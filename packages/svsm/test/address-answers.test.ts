import { CALLING_AREA, CORE_CALL, PROTOCOL, VTPM_CALL } from "@vmpl-lab/guest"
import { INITIAL_VMSA_GPA, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { type Lock, validRegion } from "@vmpl-lab/svsm"
import { type Program, pause } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import {
  CA,
  FIRMWARE,
  GUEST_VMSA,
  LIST,
  OTHER_CA,
  RAM_SIZE,
  type ScriptedHost,
  SVSM
} from "../../../test/support/scriptedHost.ts"
import { core, createdFrom, NEW, pvalidate, svsmAnswers, withVcpu } from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const { REMAP_CA, PVALIDATE, DELETE_VCPU } = CORE_CALL

const names = (host: ScriptedHost, gpa: number, size: number): string =>
  validRegion(host.state, gpa, size) ? "may be named" : "INVALID_ADDRESS"

answer("address/ram", (host) => names(host, 0, RAM_SIZE - PAGE_SIZE) && names(host, OTHER_CA, 1))
answer("address/ram-end", (host) => names(host, RAM_SIZE - 8, 9))
answer("address/svsm-edges", (host) => {
  const edges = [SVSM.gpa, SVSM.gpa + SVSM.size - 1].map((gpa) => names(host, gpa, 1))
  return [...new Set(edges)].join()
})
answer("address/hole", (host) => names(host, SVSM.gpa + SVSM.size, 1))
answer("address/firmware", (host) => names(host, FIRMWARE.gpa, FIRMWARE.size))
answer("address/entries", (host) => {
  const { parameters } = host.state
  // High RAM begins where the firmware ends: each may be named, no range across the border.
  const highRam = { gpa: FIRMWARE.gpa + FIRMWARE.size, size: PAGE_SIZE }
  host.state.parameters = { ...parameters, highRam }
  expect(names(host, highRam.gpa - 8, 8)).toBe("may be named")
  expect(names(host, highRam.gpa, 8)).toBe("may be named")
  return names(host, highRam.gpa - 8, 16)
})
answer("address/vmsa", (host) => names(withVcpu(host), NEW + PAGE_SIZE - 1, 2))
answer("address/start-up-vmsa", (host) => core(host, REMAP_CA, { rcx: GUEST_VMSA }))
answer("address/area", (host) => names(host, CA - 8, 9))
answer("address/area-end", (host) => names(host, CA + CALLING_AREA.SIZE - 1, 1))
answer("address/area-rest", (host) => names(host, CA + CALLING_AREA.SIZE, PAGE_SIZE - CALLING_AREA.SIZE))
answer("address/launch-vmsa", (host) => {
  // As a memory map that says that the page is RAM would have it.
  const highRam = { gpa: INITIAL_VMSA_GPA - PAGE_SIZE, size: 3 * PAGE_SIZE }
  host.state.parameters = { ...host.state.parameters, highRam }
  expect(names(host, INITIAL_VMSA_GPA - PAGE_SIZE, PAGE_SIZE)).toBe("may be named")
  expect(names(host, INITIAL_VMSA_GPA + PAGE_SIZE, PAGE_SIZE)).toBe("may be named")
  return [names(host, INITIAL_VMSA_GPA, 1), names(host, INITIAL_VMSA_GPA - 1, 2)].join(", ")
})
answer("address/last-page", (host) => core(host, REMAP_CA, { rcx: [0xffff_ffff, 0xffff_f000] }))
answer("address/last-list", (host) => core(host, PVALIDATE, { rcx: [0xffff_ffff, 0xffff_fff8] }))
answer("address/entry-wraps", (host) => pvalidate(host, [0xffff_ffff, 0xffff_f004]))
answer("address/entry-wraps-2m", (host) => pvalidate(host, [0xffff_ffff, 0xffe0_0005]))
answer("address/vcpu-wraps", (host) => createdFrom(host, 2, { rcx: [0xffff_ffff, 0xffff_f000] }))
answer("address/above-52", (host) => core(host, REMAP_CA, { rcx: [0x10_0000, OTHER_CA] }))
answer("address/unaligned-above-52", (host) => core(host, REMAP_CA, { rcx: [0x10_0000, OTHER_CA + 8] }))
answer("address/no-protocol", (host) => {
  const { result, rcx } = host.call(PROTOCOL.VTPM, VTPM_CALL.COMMAND, { rcx: SVSM.gpa })
  expect(rcx).toBe(SVSM.gpa)
  return `0x${result.toString(16)}`
})

/** How each call takes the lock. */
const lockOf = (host: ScriptedHost, ask: () => void): string => {
  const taken: Array<string> = []
  const lock: Lock = {
    *read(): Program {
      taken.push("shared")
      yield pause()
    },
    *write(): Program {
      taken.push("alone")
      yield pause()
    },
    release: () => taken.push("released")
  }
  Object.assign(host.state, { lock })
  ask()
  return taken.join(", ")
}
answer("lock/pvalidate", (host) => lockOf(host, () => pvalidate(host, LIST + PAGE_SIZE)))
answer("lock/remap-ca", (host) => lockOf(host, () => core(host, REMAP_CA, { rcx: OTHER_CA })))
answer("lock/create-vcpu", (host) => lockOf(host, () => createdFrom(host, 2)))
answer("lock/delete-vcpu", (host) => lockOf(withVcpu(host), () => core(host, DELETE_VCPU, { rcx: NEW })))

check()
