import { EFER_SVME, EXIT, SEV_FEATURES, VMSA, VMSA_FIELDS, VMSA_TWEAK_BITMAP, type VmsaField } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { hlt, type Program, read, readRegister, tweakVmsa, vmgexit, write, writeRegister } from "../src/index.ts"
import { ENTRY, GFN, GPA, PFN, TestMachine } from "./machine.ts"

const { VmsaRegProt } = SEV_FEATURES
/** A field that the bitmap selects, past the registers that the model loads. */
const ZMM = VMSA.fpreg_zmmhi

const isSelected = (offset: number) => ((VMSA_TWEAK_BITMAP[offset >> 6]! >> ((offset >> 3) & 7)) & 1) !== 0
const SECRET = 0x5ec2_e7aa

/** A guest that leaves again and again, with the same value in RBX. */
const protectedMachine = (nonceSeed?: bigint): TestMachine => {
  const machine = new TestMachine(nonceSeed === undefined ? {} : { nonceSeed })
  machine.putVmsa(PFN.vmsa, { features: VmsaRegProt })
  machine.install(function* (): Program {
    yield writeRegister(VMSA.rbx, SECRET, 1)
    for (;;) {
      yield vmgexit()
      const { lo, hi } = yield readRegister(VMSA.rbx)
      machine.log.push(`${lo.toString(16)}:${hi}`)
    }
  })
  return machine
}
const nonceOf = (machine: TestMachine) => machine.vmsa().getBigUint64(VMSA.reg_prot_nonce, true)
const quad = (machine: TestMachine, offset: number) => machine.vmsa().getBigUint64(offset, true)

describe("the tweak bitmap", () => {
  it("selects RIP, general, x87, SSE and AVX registers, and neither EFER nor another register", () => {
    const names = VMSA_FIELDS.filter(({ offset }) => isSelected(offset & ~7)).map(({ field }) => field)
    expect(names).toEqual([
      ...["rip", "rsp", "rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi"],
      ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"],
      ...["fpreg_x87", "fpreg_xmm", "fpreg_ymm", "fpreg_ki", "fpreg_zmmhi", "fpreg_hizmm"]
    ])
    const whole = VMSA_FIELDS.filter(({ field }) => names.includes(field))
    const quads = whole.reduce((sum, { size }) => sum + size / 8, 0)
    const bits = VMSA_TWEAK_BITMAP.reduce(
      (sum, byte) => sum + [...byte.toString(2)].filter((bit) => bit === "1").length,
      0
    )
    expect([VMSA_TWEAK_BITMAP.length, bits]).toEqual([64, quads])
  })
})

describe("a VMSA with VmsaRegProt", () => {
  it("has its registers under a nonce in memory, and in the clear in the core", () => {
    const machine = protectedMachine()
    machine.run()
    const nonce = nonceOf(machine)
    expect(nonce).not.toBe(0n)
    expect(quad(machine, VMSA.rbx) ^ nonce).toBe(BigInt(SECRET) | (1n << 32n))
    expect(quad(machine, VMSA.rip) ^ nonce).toBe(BigInt(ENTRY + 2))
    expect(quad(machine, VMSA.efer)).toBe(BigInt(EFER_SVME))
    expect([machine.run(), machine.run(), ...machine.log]).toEqual([
      EXIT.VMGEXIT,
      EXIT.VMGEXIT,
      "5ec2e7aa:1",
      "5ec2e7aa:1"
    ])
  })

  it("has each quadword as the bitmap says, those that the model does not load too", () => {
    const machine = protectedMachine()
    for (let at = 0; at < 0x1000; at += 8) {
      const field = VMSA_FIELDS.find(({ offset, size }) => at < offset + size && offset < at + 8)?.field
      const free = field === undefined || isSelected(at)
      if (free && field !== "rip") machine.vmsa().setBigUint64(at, BigInt(at) << 8n, true)
    }
    const before = Array.from({ length: 512 }, (_, index) => quad(machine, 8 * index))
    for (let stay = 0; stay < 3; stay++) machine.run()
    const nonce = nonceOf(machine)
    const changed = new Set([
      ...["rip", "rbx", "reg_prot_nonce", "guest_exit_code", "guest_nrip"].map((field) => VMSA[field as VmsaField])
    ])
    for (let at = 0; at < 0x1000; at += 8)
      if (!changed.has(at))
        expect([at, quad(machine, at) ^ (isSelected(at) ? nonce : 0n)]).toEqual([at, before[at / 8]])
    expect(quad(machine, ZMM) ^ nonce).toBe(BigInt(ZMM) << 8n)
  })

  it("gets a new nonce at each exit: equal registers do not show as equal ciphertext", () => {
    const machine = protectedMachine()
    const seen = new Set<string>()
    const nonces = new Set<bigint>()
    for (let stay = 0; stay < 20; stay++) {
      machine.run()
      seen.add(
        machine
          .hostViewOfState()
          .subarray(VMSA.rbx, VMSA.rbx + 8)
          .join(" ")
      )
      nonces.add(nonceOf(machine))
    }
    expect([seen.size, nonces.size]).toEqual([20, 20])
  })

  it("has nonces that hang on the machine's seed alone", () => {
    const noncesOf = (seed?: bigint) => {
      const machine = protectedMachine(seed)
      return [0, 1, 2].map(() => {
        machine.run()
        return nonceOf(machine)
      })
    }
    expect(noncesOf()).toEqual(noncesOf(0n))
    expect(noncesOf(5n)).toEqual(noncesOf(5n))
    expect(noncesOf(5n)).not.toEqual(noncesOf(6n))
    // MMIX: the increment, then one multiplication further.
    expect(noncesOf(0n).slice(0, 2)).toEqual([1442695040888963407n, 1876011003808476466n])
  })

  it("shares the machine's nonces with the others", () => {
    const machine = protectedMachine()
    machine.putVmsa(PFN.vmsa2, { features: VmsaRegProt })
    machine.run()
    machine.select(PFN.vmsa2)
    machine.run()
    expect(machine.vmsa(PFN.vmsa2).getBigUint64(VMSA.reg_prot_nonce, true)).not.toBe(nonceOf(machine))
  })

  it("is a plain one without the feature: the nonce is just bytes", () => {
    const machine = new TestMachine()
    machine.vmsa().setBigUint64(VMSA.reg_prot_nonce, 0x1234n, true)
    machine.install(function* (): Program {
      yield writeRegister(VMSA.rbx, SECRET)
      yield vmgexit()
    })
    machine.run()
    expect([quad(machine, VMSA.rbx), nonceOf(machine)]).toEqual([BigInt(SECRET), 0x1234n])
  })

  it("that firmware or software has put under a nonce is entered with what it means", () => {
    const machine = protectedMachine()
    machine.vmsa().setBigUint64(VMSA.reg_prot_nonce, 0xdead_beef_0bad_cafen, true)
    tweakVmsa(machine.vmsa())
    expect(quad(machine, VMSA.rip)).toBe(0xdead_beef_0bad_cafen ^ BigInt(ENTRY))
    expect(machine.run()).toBe(EXIT.VMGEXIT)
    tweakVmsa(machine.vmsa())
    expect(quad(machine, VMSA.rip)).toBe(BigInt(ENTRY + 2))
  })
})

describe("software that edits a VMSA with VmsaRegProt", () => {
  const at = (field: VmsaField) => GPA.vmsa2 + VMSA[field]

  /** VMPL0 answers a request of VMPL2 in its RBX, with or without regard to the nonce. */
  const served = (applies: boolean) => {
    const machine = new TestMachine()
    machine.putVmsa(PFN.vmsa2, { vmpl: 2, features: VmsaRegProt })
    machine.putVmsa(PFN.vmsa, { rip: 0x10 })
    machine.npt.map(GFN.vmsa2, PFN.vmsa2)
    machine.grant(PFN.code, 0xf)
    machine.install(function* (): Program {
      yield vmgexit()
      const { lo, hi } = yield readRegister(VMSA.rbx)
      machine.log.push(`${lo.toString(16)}:${hi.toString(16)}`)
      yield hlt()
    })
    machine.install(function* (): Program {
      const nonce = { lo: 0, hi: 0 }
      if (applies) {
        const { lo, hi } = yield read(at("reg_prot_nonce"), 8)
        Object.assign(nonce, { lo, hi })
      }
      yield write(at("rbx"), 8, SECRET ^ nonce.lo, 2 ^ nonce.hi)
      yield hlt()
    }, GPA.code + 0x10)
    for (const pfn of [PFN.vmsa2, PFN.vmsa, PFN.vmsa2]) {
      machine.select(pfn)
      machine.run()
    }
    return machine.log
  }

  it("must apply the nonce", () => {
    expect(served(true)).toEqual(["5ec2e7aa:2"])
  })

  it("gives the guest garbage where it does not", () => {
    const [seen] = served(false)
    expect(seen).toMatch(/^[0-9a-f]+:[0-9a-f]+$/)
    expect(seen).not.toBe("5ec2e7aa:2")
  })

  it("finds EFER as it is, so that SVME still says whether it may be run", () => {
    const machine = protectedMachine()
    machine.run()
    machine.vmsa().setUint32(VMSA.efer, 0, true)
    expect(machine.run()).toBe(EXIT.INVALID)
    machine.vmsa().setUint32(VMSA.efer, EFER_SVME, true)
    expect(machine.run()).toBe(EXIT.VMGEXIT)
  })

  it("that moves RIP without the nonce starts nothing", () => {
    const machine = protectedMachine()
    machine.run()
    machine.vmsa().setBigUint64(VMSA.rip, BigInt(ENTRY), true)
    expect(machine.run()).toBe(EXIT.SHUTDOWN)
  })
})
