import {
  BLOCK,
  bootProcessor,
  CPUID_SVSM,
  type GuestPlan,
  makeEarlyVcHandler,
  makeVcHandler,
  type Ring,
  SVSM_RESULT,
  SvsmCaller
} from "@vmpl-lab/guest"
import { secretsPage, TSC_FACTOR } from "@vmpl-lab/psp"
import {
  CPUID_FUNCTION,
  CPUID_FUNCTION_BASE,
  CPUID_FUNCTION_SIZE,
  MSR,
  PAGE_SIZE,
  SECRETS,
  SEV_FEATURES,
  VMSA
} from "@vmpl-lab/sev-es"
import type { SvsmBehaviour } from "@vmpl-lab/svsm"
import {
  cpuid,
  lidt,
  OP,
  type OperationResult,
  type Program,
  rdmsr,
  read,
  readBytes,
  write,
  wrmsr
} from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import { bootMachine, type Guest, type GuestRunOptions, setUp } from "../../../test/support/guestRun.ts"
import { svsmAnswers } from "../../../test/support/svsmAnswers.ts"
import { traced } from "../../../test/support/wrapped.ts"

const { answer, check } = svsmAnswers()
const RING: Ring = "page"

const planOf = (guest: Guest, secretsGpa = guest.secretsGpa): GuestPlan => ({
  vcpus: 1,
  secretsGpa,
  heapGpa: guest.page(0),
  ring: RING,
  calls: () => new Uint8Array(0),
  report: guest.machine.log
})

type Launch = GuestRunOptions["launch"]
const boot = (behaviour: SvsmBehaviour, program: (guest: Guest) => Program, launch: Launch = {}) =>
  bootMachine(program, { launch: { ...launch, behaviour } })

/** How the boot code ends after somebody has changed the secrets page. */
const ending = (
  behaviour: SvsmBehaviour,
  ...fields: ReadonlyArray<readonly [keyof typeof SECRETS, number, number]>
): string => {
  const { failure } = boot(behaviour, function* (guest) {
    for (const [name, size, value] of fields) yield write(guest.secretsGpa + SECRETS[name], size, value)
    yield* bootProcessor(planOf(guest))
  })
  return failure?.split("terminates: ")[1] ?? "it boots"
}
/** How the boot code ends when an instruction of it comes out otherwise. */
const pretending = (
  behaviour: SvsmBehaviour,
  pretend: (op: number, result: OperationResult, nth: number) => void
): string => {
  let nth = 0
  const { failure } = boot(behaviour, (guest) =>
    traced(bootProcessor(planOf(guest)), ({ op }, result: OperationResult) => pretend(op, result, nth++))
  )
  return failure?.split("terminates: ")[1] ?? "it boots"
}

answer("discovery/found", (_, behaviour) => ending(behaviour))
answer("discovery/vmpl0", (_, behaviour) =>
  pretending(behaviour, (op, result) => {
    if (op === OP.RMPADJUST) result.lo = 0
  })
)
answer("discovery/probe", (_, behaviour) => {
  const seen: Array<number> = []
  pretending(behaviour, (op, result) => {
    if (op === OP.RMPADJUST) seen.push(result.lo)
  })
  return seen.length === 1 && seen[0] === 2 ? "FAIL_PERMISSION" : seen.join()
})
answer("discovery/no-secrets", (_, behaviour) => {
  const { failure } = boot(behaviour, (guest) => bootProcessor(planOf(guest, 0)))
  return failure?.split("terminates: ")[1] ?? "it boots"
})
answer("discovery/no-svsm", (_, behaviour) => ending(behaviour, ["svsm_size", 8, 0]))
answer("discovery/level-0", (_, behaviour) => ending(behaviour, ["svsm_guest_vmpl", 1, 0]))
answer("discovery/area", (_, behaviour) => ending(behaviour, ["svsm_caa", 8, 0x80_f800]))
answer("discovery/order", (_, behaviour) => {
  const size = ["svsm_size", 8, 0] as const
  const level = ["svsm_guest_vmpl", 1, 0] as const
  const area = ["svsm_caa", 8, 0x80_f008] as const
  expect(ending(behaviour, level, area)).toBe("reason set 1, reason 8")
  expect(ending(behaviour, size, area)).toBe("reason set 1, reason 7")
  return ending(behaviour, size, level, area) === "reason set 1, reason 7" ? "size, level, area" : "otherwise"
})
answer("discovery/remap", (_, behaviour) => {
  // The boot code's first call is PVALIDATE, its second REMAP_CA.
  let calls = 0
  const { failure } = boot(behaviour, (guest) =>
    traced(bootProcessor(planOf(guest)), ({ op, address }, result: OperationResult) => {
      if (op !== OP.READ_REGISTER || address !== VMSA.rax || ++calls !== 2) return
      expect(result.lo).toBe(SVSM_RESULT.SUCCESS)
      result.lo = SVSM_RESULT.INVALID_ADDRESS
    })
  )
  return failure?.split("terminates: ")[1] ?? "it boots"
})

/** The secrets page that a guest finds at its level. */
const secretsOf = (behaviour: SvsmBehaviour, guestVmpl = 2) => {
  const page = new Uint8Array(PAGE_SIZE)
  const { guest, failure } = boot(
    behaviour,
    function* ({ secretsGpa }) {
      yield readBytes(secretsGpa, page)
    },
    { guestVmpl }
  )
  return { view: new DataView(page.buffer), page, guest, failure }
}
const quad = (view: DataView, offset: number): number => Number(view.getBigUint64(offset, true))
answer("secrets/fields", (_, behaviour) => {
  const { view, guest } = secretsOf(behaviour)
  const [base, size, area] = [SECRETS.svsm_base, SECRETS.svsm_size, SECRETS.svsm_caa].map((at) => quad(view, at))
  expect([base, size, area]).toEqual([guest.svsm.gpa, guest.svsm.size, guest.firstCaGpa])
  return `version ${view.getUint32(SECRETS.svsm_max_version, true)}, level ${view.getUint8(SECRETS.svsm_guest_vmpl)}`
})
answer("secrets/offsets", () => {
  const { svsm_base, svsm_size, svsm_caa, svsm_max_version, svsm_guest_vmpl, tsc_factor } = SECRETS
  const offsets = [svsm_base, svsm_size, svsm_caa, svsm_max_version, svsm_guest_vmpl, tsc_factor]
  return offsets.map((offset) => `0x${offset.toString(16)}`).join(", ")
})
answer("secrets/aligned", (_, behaviour) => {
  const { view } = secretsOf(behaviour)
  const fields = [SECRETS.svsm_base, SECRETS.svsm_size, SECRETS.svsm_caa].map((at) => quad(view, at))
  return fields.every((value) => value % PAGE_SIZE === 0 && value > 0) ? "yes" : "no"
})
answer("secrets/area-outside", (_, behaviour) => {
  const { view } = secretsOf(behaviour)
  const [base, size, area] = [SECRETS.svsm_base, SECRETS.svsm_size, SECRETS.svsm_caa].map((at) => quad(view, at))
  return area! >= base! + size! || area! + PAGE_SIZE <= base! ? "outside" : "inside"
})
answer("secrets/firmware", () => {
  const key = new Uint8Array(32).fill(1)
  const page = secretsPage({ gosvw: new Uint8Array(16), vmpck: [key, key, key, key] } as never, 0)
  const own = page.subarray(SECRETS.svsm_base, SECRETS.tsc_factor)
  expect(own).toHaveLength(0x20)
  return own.every((byte) => byte === 0) ? "0" : "not 0"
})
answer("secrets/tsc-factor", (_, behaviour) => {
  const { view } = secretsOf(behaviour)
  return view.getUint32(SECRETS.tsc_factor, true) === TSC_FACTOR ? "as the firmware wrote it" : "changed"
})
answer("secrets/reserved", (_, behaviour) => {
  const { page } = secretsOf(behaviour)
  return [...page.subarray(0x15d, 0x160)].join(", ")
})
const keysOf = (behaviour: SvsmBehaviour, guestVmpl: number): string => {
  const { page, failure } = secretsOf(behaviour, guestVmpl)
  // Its rights are given to VMPL2 alone.
  if (failure !== null) return failure.includes("may not access") ? "it cannot run" : failure
  const keys = [SECRETS.vmpck0, SECRETS.vmpck1, SECRETS.vmpck2, SECRETS.vmpck3]
  return keys.flatMap((at, i) => (page.subarray(at, at + 32).some((byte) => byte !== 0) ? [i] : [])).join(", ")
}
answer("secrets/keys-2", (_, behaviour) => keysOf(behaviour, 2))
answer("secrets/keys-1", (_, behaviour) => keysOf(behaviour, 1))

/** Bit 28 of CPUID 8000_001F EAX as a program finds it. */
const presence = (behaviour: SvsmBehaviour, prepare: (guest: Guest) => Program): string => {
  let eax = -1
  const { failure } = boot(behaviour, function* (guest) {
    yield* prepare(guest)
    eax = (yield cpuid(0x8000_001f)).lo
  })
  expect(failure).toBeNull()
  return `${(eax & CPUID_SVSM) === 0 ? 0 : 1}`
}
answer("cpuid/early", (_, behaviour) =>
  presence(behaviour, function* ({ firstCaGpa }) {
    yield lidt(makeEarlyVcHandler({ caGpa: firstCaGpa }))
  })
)
answer("cpuid/before", (_, behaviour) =>
  presence(behaviour, function* () {
    yield lidt(makeEarlyVcHandler({ caGpa: null }))
  })
)
answer("cpuid/ghcb", (_, behaviour) =>
  presence(behaviour, function* (guest) {
    const { ghcb, svsm } = yield* setUp(guest)
    yield lidt({ vc: makeVcHandler({ ghcb, svsm }) })
  })
)
answer("cpuid/page", (_, behaviour) => {
  const page = new Uint8Array(PAGE_SIZE)
  boot(behaviour, function* ({ cpuidGpa }) {
    yield readBytes(cpuidGpa, page)
  })
  const view = new DataView(page.buffer)
  for (let at = CPUID_FUNCTION_BASE; at < PAGE_SIZE; at += CPUID_FUNCTION_SIZE) {
    if (view.getUint32(at + CPUID_FUNCTION.eax_in, true) !== 0x8000_001f) continue
    return `${(view.getUint32(at + CPUID_FUNCTION.eax, true) & CPUID_SVSM) === 0 ? 0 : 1}`
  }
  return "no such function"
})

/** What RDMSR of the calling area's MSR gives a guest that has moved its area. */
const callingAreaMsr = (behaviour: SvsmBehaviour, written: number | null): string => {
  let got = -1
  let moved = 0
  const { failure } = boot(behaviour, function* (guest) {
    const { ghcb, svsm } = yield* setUp(guest)
    yield lidt({ vc: makeVcHandler({ ghcb, svsm }) })
    const own = new SvsmCaller(svsm.caGpa, "msr", null)
    moved = guest.page(BLOCK.CALLING_AREA)
    expect(yield* own.call(0, 0, { rcx: moved })).toBe(SVSM_RESULT.SUCCESS)
    svsm.caGpa = moved
    if (written !== null) yield wrmsr(MSR.SVSM_CAA, written)
    const { lo, hi } = yield rdmsr(MSR.SVSM_CAA)
    got = hi * 2 ** 32 + lo
    expect((yield read(moved, 1)).lo).toBe(0)
  })
  expect(failure).toBeNull()
  return got === moved ? "the current area" : `0x${got.toString(16)}`
}
answer("msr/read", (_, behaviour) => callingAreaMsr(behaviour, null))
answer("msr/write", (_, behaviour) => callingAreaMsr(behaviour, 0x1234_5000))
answer("msr/early", (_, behaviour) => {
  let got = -1
  const { guest } = boot(behaviour, function* ({ firstCaGpa }) {
    yield lidt(makeEarlyVcHandler({ caGpa: firstCaGpa }))
    got = (yield rdmsr(MSR.SVSM_CAA)).lo
  })
  return got === guest.firstCaGpa ? "the current area" : `0x${got.toString(16)}`
})
answer("msr/none", (_, behaviour) => {
  const { failure } = boot(behaviour, function* () {
    yield lidt(makeEarlyVcHandler({ caGpa: null }))
    yield rdmsr(MSR.SVSM_CAA)
  })
  return failure?.split("terminates: ")[1] ?? "answered"
})

/** What becomes of a guest whose start-up vCPU is to have these SEV_FEATURES. */
const withFeatures = (behaviour: SvsmBehaviour, guestFeatures: number, svsmFeatures = 0): string => {
  const svsm = { guestFeatures, takes: false, timerVector: 0, timerPeriodNs: 0, ipiVector: 0, callsPerIpi: 0 }
  let hasRun = false
  const { failure } = boot(
    behaviour,
    function* () {
      yield read(0x80_0000, 1)
      hasRun = true
    },
    { interrupts: { svsmFeatures, svsm } }
  )
  if (hasRun) return "the guest runs"
  return failure?.replace(/^.*(VMPL\d) terminates: /, "$1 ends the guest: ") ?? "nothing"
}
const { SNPActive, vTOM, ReflectVC, VmsaRegProt, AlternateInjection, DebugVirtualization } = SEV_FEATURES
answer("features/plain", (_, behaviour) => withFeatures(behaviour, SNPActive))
answer("features/debug", (_, behaviour) => withFeatures(behaviour, SNPActive | DebugVirtualization))
answer("features/none", (_, behaviour) => withFeatures(behaviour, 0))
answer("features/refused", (_, behaviour) => {
  const all = [vTOM, ReflectVC, VmsaRegProt].map((feature) => withFeatures(behaviour, SNPActive | feature))
  return [...new Set(all)].join()
})
answer("features/alternate", (_, behaviour) => withFeatures(behaviour, SNPActive | AlternateInjection))

check()
