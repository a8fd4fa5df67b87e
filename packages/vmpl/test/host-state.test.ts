import {
  EXIT,
  PAGE_SIZE,
  SEV_FEATURES,
  SWAP_TYPE,
  swapRanges,
  VMSA,
  VMSA_FIELDS,
  type VmsaField
} from "@vmpl-lab/sev-es"
import { Host } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import {
  GuestMode,
  HOST_SAVE_OFFSET,
  type HostMsrs,
  hlt,
  hostResetState,
  vmgexit,
  writeRegister
} from "../src/index.ts"
import { PFN, profileCosts, script, TestMachine, VMCB_PA } from "./machine.ts"

const HSAVE = 40 * PAGE_SIZE
const SAVE_AREA = HSAVE + HOST_SAVE_OFFSET
const hostMsrs: HostMsrs = { snpEnabled: true, vmHsavePa: HSAVE, ibsEnabled: false }

/** What a host has in its registers: each byte tells where it belongs. */
const mark = (offset: number) => (offset * 7 + (offset >> 8) + 1) & 0xff
const marked = (registers: Uint8Array): Uint8Array => {
  for (let at = 0; at < registers.length; at++) registers[at] = mark(at)
  return registers
}

/** A core of a machine, and the guest that it runs. */
const hosted = (features = 0, msrs: HostMsrs = hostMsrs) => {
  const machine = new TestMachine({ hostMsrs: msrs })
  machine.putVmsa(PFN.vmsa, { features })
  machine.install(
    script([
      ...(["rcx", "rbx", "rsi", "r15"] as const).map((field) => writeRegister(VMSA[field], 0x5ec2_e7aa, 0x5ec2_e7bb)),
      vmgexit(),
      hlt()
    ])
  )
  const core = new GuestMode(machine.hardware, new Host(1, profileCosts()).spawn("vcpu", 0))
  const run = () => {
    expect(core.vmrun(VMCB_PA)).toBe("entered")
    return core.run(Infinity)
  }
  return { machine, core, run }
}
const bytesOf = (registers: Uint8Array, field: VmsaField) => {
  const { offset, size } = VMSA_FIELDS.find((one) => one.field === field)!
  return registers.slice(offset, offset + size)
}
const isDebug = (field: VmsaField) => VMSA[field] >= VMSA.dr0 && VMSA[field] < VMSA.instr_retired_ctr
const fieldsOf = (type: "A" | "B" | "C") =>
  VMSA_FIELDS.map(({ field }) => field as VmsaField).filter((field) => SWAP_TYPE[field] === type)

describe("host state over VMRUN and #VMEXIT", () => {
  it("of type A comes back by itself", () => {
    const { machine, core, run } = hosted()
    const before = Uint8Array.from(marked(core.hostRegisters))
    // What was in the save area before does not matter.
    machine.host.writePage(HSAVE / PAGE_SIZE, new Uint8Array(PAGE_SIZE).fill(0xee))
    expect(run()).toBe(EXIT.VMGEXIT)
    for (const field of fieldsOf("A"))
      expect([field, bytesOf(core.hostRegisters, field)]).toEqual([field, bytesOf(before, field)])
    expect(fieldsOf("A")).toContain("cr3")
    expect(fieldsOf("A")).toContain("rsp")
    expect(HOST_SAVE_OFFSET).toBe(0x400)
    // It was in the save area, at the offsets of a VMSA.
    for (const [offset, length] of swapRanges("A"))
      for (let at = offset; at < offset + length; at++) expect(machine.host.read8(SAVE_AREA + at)).toBe(mark(at))
  })

  it("of type B is whatever software has left in the save area, which VMRUN does not touch", () => {
    const { machine, core, run } = hosted(SEV_FEATURES.DebugVirtualization)
    marked(core.hostRegisters)
    const stale = new Uint8Array(PAGE_SIZE).fill(0xee)
    machine.host.writePage(HSAVE / PAGE_SIZE, stale)
    run()
    for (const field of fieldsOf("B")) {
      expect([field, [...new Set(bytesOf(core.hostRegisters, field))]]).toEqual([field, [0xee]])
    }
    for (const [offset, length] of swapRanges("B"))
      for (let at = offset; at < offset + length; at++) expect(machine.host.read8(SAVE_AREA + at)).toBe(0xee)
  })

  it.each(["xcr0", "pkru", "xss"] as const)(
    "gives a host that forgets to store %s the value of its last stay",
    (forgotten) => {
      const { machine, core, run } = hosted()
      const set = (field: VmsaField, value: number) => {
        core.hostRegisters[VMSA[field]] = value
      }
      /** sev_es_prepare_switch_to_guest. */
      const prepare = (...fields: ReadonlyArray<VmsaField>) => {
        for (const field of fields) machine.host.write8(SAVE_AREA + VMSA[field], core.hostRegisters[VMSA[field]]!)
      }
      const all = ["xcr0", "pkru", "xss"] as const
      for (const field of all) set(field, 7)
      prepare(...all)
      run()
      expect(all.map((field) => core.hostRegisters[VMSA[field]])).toEqual([7, 7, 7])
      for (const field of all) set(field, 9)
      prepare(...all.filter((field) => field !== forgotten))
      run()
      expect(all.map((field) => core.hostRegisters[VMSA[field]])).toEqual(
        all.map((field) => (field === forgotten ? 7 : 9))
      )
    }
  )

  it("of type C is at its reset value, and nothing of the guest's is left in a register", () => {
    const { core, run } = hosted()
    marked(core.hostRegisters)
    run()
    const reset = hostResetState()
    for (const field of fieldsOf("C"))
      expect([field, bytesOf(core.hostRegisters, field)]).toEqual([field, bytesOf(reset, field)])
    expect(Buffer.from(core.hostRegisters).includes(Buffer.of(0xaa, 0xe7, 0xc2, 0x5e))).toBe(false)
    const view = new DataView(reset.buffer)
    expect([
      view.getUint32(VMSA.mxcsr, true),
      view.getUint16(VMSA.x87_fcw, true),
      view.getUint16(VMSA.x87_ftw, true)
    ]).toEqual([0x1f80, 0x40, 0x5555])
    for (const field of ["rax", "rbx", "r15", "cr2", "x87_fsw", "fpreg_xmm"] as const)
      expect(bytesOf(reset, field).every((byte) => byte === 0)).toBe(true)
  })

  it("of the debug registers is swapped with DebugVirtualization only", () => {
    const debug = fieldsOf("B").filter(isDebug)
    expect(debug).toHaveLength(8)
    for (const features of [0, SEV_FEATURES.DebugVirtualization]) {
      const { core, run } = hosted(features)
      const before = Uint8Array.from(marked(core.hostRegisters))
      run()
      for (const field of debug) {
        const kept = bytesOf(before, field)
        expect(bytesOf(core.hostRegisters, field)).toEqual(features === 0 ? kept : kept.fill(0))
      }
    }
  })

  it("without a counterpart in the VMSA is left alone", () => {
    const { core, run } = hosted()
    marked(core.hostRegisters)
    run()
    for (const { field, offset } of VMSA_FIELDS)
      if (SWAP_TYPE[field as VmsaField] === null)
        expect([field, core.hostRegisters[offset]]).toEqual([field, mark(offset)])
  })

  it("is each core's own; a core without a host save area has none to lose", () => {
    const { machine, core, run } = hosted()
    marked(core.hostRegisters)
    run()
    const other = new GuestMode(machine.hardware, new Host(1, profileCosts()).spawn("vcpu", 0))
    expect(other.hostRegisters).toEqual(hostResetState())
    const plain = new TestMachine()
    plain.install(script([hlt()]))
    plain.run()
    expect(plain.cpu.hostRegisters).toBe(null)
  })

  it("is not touched by a VMRUN that refuses", () => {
    const { machine, core } = hosted()
    const before = Uint8Array.from(marked(core.hostRegisters))
    machine.select(PFN.data)
    expect(core.vmrun(VMCB_PA)).toBe(EXIT.INVALID)
    expect(core.hostRegisters).toEqual(before)
  })
})

describe("VMSAVE in the host", () => {
  it("stores what #VMEXIT of type B gives back, as KVM does it once for each core", () => {
    const { machine, core, run } = hosted()
    const before = Uint8Array.from(marked(core.hostRegisters))
    expect(core.vmsave(HSAVE)).toBe(true)
    run()
    const saved = [
      ...["fs", "gs", "ldtr", "tr", "kernel_gs_base", "star", "lstar", "cstar", "sfmask"],
      ...["sysenter_cs", "sysenter_esp", "sysenter_eip"]
    ] as ReadonlyArray<VmsaField>
    for (const field of fieldsOf("B")) {
      if (isDebug(field)) continue
      const kept = bytesOf(before, field)
      expect([field, bytesOf(core.hostRegisters, field)]).toEqual([field, saved.includes(field) ? kept : kept.fill(0)])
    }
    expect(saved.every((field) => SWAP_TYPE[field] === "B")).toBe(true)
    expect(machine.host.read8(SAVE_AREA + VMSA.cr3)).toBe(mark(VMSA.cr3))
  })

  it.each([
    ["no page", HSAVE + 8],
    ["a guest's", PFN.data * PAGE_SIZE],
    ["reserved", 50 * PAGE_SIZE]
  ])("is #GP for an address that is %s", (_, address) => {
    const { machine, core } = hosted(0, { ...hostMsrs, reserved: [{ base: 50 * PAGE_SIZE, end: 51 * PAGE_SIZE }] })
    marked(core.hostRegisters)
    const before = machine.host.readPage(Math.floor(address / PAGE_SIZE))
    expect(core.vmsave(address)).toBe(false)
    expect(machine.host.readPage(Math.floor(address / PAGE_SIZE))).toEqual(before)
  })
})
