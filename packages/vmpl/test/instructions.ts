import { EXIT, INTERCEPT, VMSA } from "@vmpl-lab/sev-es"
import { expect } from "vitest"
import {
  type GuestException,
  guestVmload,
  guestVmrun,
  guestVmsave,
  invd,
  lidt,
  monitor,
  mwait,
  type Operation,
  type OperationResult,
  type Program,
  rdpmc,
  rdtsc,
  rdtscp,
  readCr,
  readDr,
  readRegister,
  vmgexit,
  vmmcall,
  wbinvd,
  writeCr,
  writeDr,
  xsetbv
} from "../src/index.ts"
import { ENTRY, GPA, type TestMachine } from "./machine.ts"

export const show = ({ lo, hi }: OperationResult): string => `${lo.toString(16)}:${hi.toString(16)}`
export const EFER_SVME = 0x1000
/** Frames for the maps, which the host owns. */
export const [IOPM, MSRPM] = [20, 30]

/** A guest that tries each operation and logs #VC, exception or outcome; EXITINFO2 relative to the entry. */
export const tryAll = (machine: TestMachine, ...operations: ReadonlyArray<Operation>): Array<string> => {
  machine.install(function* (): Program {
    yield lidt(function* (code) {
      const { exitInfoLo, exitInfoHi, exitInfo2 } = machine.cpu
      const beyondEntry = exitInfo2 === 0 ? 0 : exitInfo2 - ENTRY
      machine.log.push(`#VC ${code.toString(16)} ${exitInfoLo.toString(16)}:${exitInfoHi} ${beyondEntry}`)
      yield readRegister(VMSA.rax)
    })
    for (const operation of operations) {
      const before = machine.log.length
      try {
        const result = yield operation
        if (machine.log.length === before) machine.log.push(show(result))
      } catch (exception) {
        machine.log.push((exception as GuestException).vector)
      }
    }
    yield vmgexit()
  })
  expect(machine.run()).toBe(EXIT.VMGEXIT)
  return machine.log
}

export const intercepting = (machine: TestMachine, ...bits: ReadonlyArray<number>): TestMachine => {
  for (const bit of bits) machine.intercept(bit)
  return machine
}

/** Instruction, intercept, exit code, and what it does where nobody intercepts it. */
export const PLAIN: ReadonlyArray<readonly [string, Operation, number, number, string]> = [
  // LIDT is free, #VC and VMRUN take 10 ns each: 10 ns at 2 GHz are 20 ticks.
  ["RDTSC", rdtsc(), INTERCEPT.RDTSC, 0x6e, "14:0"],
  ["RDTSCP", rdtscp(), INTERCEPT.RDTSCP, 0x87, "14:0"],
  ["RDPMC", rdpmc(0), INTERCEPT.RDPMC, 0x6f, "#GP"],
  ["INVD", invd(), INTERCEPT.INVD, 0x76, "0:0"],
  ["WBINVD", wbinvd(), INTERCEPT.WBINVD, 0x89, "0:0"],
  ["VMMCALL", vmmcall(), INTERCEPT.VMMCALL, 0x81, "#UD"],
  ["MONITOR", monitor(GPA.data), INTERCEPT.MONITOR, 0x8a, "0:0"],
  ["MWAIT", mwait(), INTERCEPT.MWAIT, 0x8b, "0:0"],
  ["XSETBV", xsetbv(3), INTERCEPT.XSETBV, 0x8d, "0:0"],
  ["VMRUN", guestVmrun(GPA.data), INTERCEPT.VMRUN, 0x80, "#UD"],
  ["VMLOAD", guestVmload(GPA.data), INTERCEPT.VMLOAD, 0x82, "#UD"],
  ["VMSAVE", guestVmsave(GPA.data), INTERCEPT.VMSAVE, 0x83, "#UD"],
  ...[0, 3, 4].map(
    (register) => [`MOV from CR${register}`, readCr(register), INTERCEPT.CR0_READ + register, register, "0:0"] as const
  ),
  ["MOV from CR8", readCr(8), INTERCEPT.CR8_READ, 0x08, "0:0"],
  ...[0, 4, 8].map(
    (register) =>
      [`MOV to CR${register}`, writeCr(register, 1), INTERCEPT.CR0_WRITE + register, 0x10 + register, "0:0"] as const
  ),
  ...[0, 1, 2, 3, 6, 7].map(
    (register) =>
      [`MOV from DR${register}`, readDr(register), INTERCEPT.DR0_READ + register, 0x20 + register, "0:0"] as const
  ),
  ...[0, 1, 2, 3, 6, 7].map(
    (register) =>
      [`MOV to DR${register}`, writeDr(register, 1), INTERCEPT.DR0_WRITE + register, 0x30 + register, "0:0"] as const
  )
]
