import { BLOCK, CALLING_AREA, msrCall, PROTOCOL, SVSM_RESULT, SvsmCaller } from "@vmpl-lab/guest"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { PERMISSION } from "@vmpl-lab/rmp"
import { GHCB_MSR, hi32, lo32, MSR_GHCB, NAE, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { IMAGE } from "@vmpl-lab/svsm"
import {
  GuestException,
  hlt,
  type Program,
  pause,
  pvalidate,
  read,
  rmpadjust,
  vmgexit,
  write,
  writeBytes,
  wrmsr
} from "@vmpl-lab/vmpl"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  type Client,
  type Guest,
  type GuestOutcome,
  runGuestProgram,
  setUp,
  setUpAp,
  startAp
} from "../support/guestRun.ts"

/** The first guest of a host gets the first ASID. */
const GUEST_ASID = 1

const VCPUS = 3

/** Addresses worth naming: the guest's own pages and others', the SVSM's, and none. */
const PLACES: ReadonlyArray<(guest: Guest) => number> = [
  ...[BLOCK.VMSA, BLOCK.CALLING_AREA, BLOCK.LIST, BLOCK.GHCB, BLOCK.TOGGLED].flatMap((page) =>
    [0, 1, 2].map((id) => (guest: Guest) => guest.page(page, id))
  ),
  (guest) => guest.page(0),
  ({ firstCaGpa }) => firstCaGpa,
  ({ secretsGpa }) => secretsGpa,
  ...[IMAGE.CODE, IMAGE.GUEST_VMSA, IMAGE.PER_CPU, IMAGE.PER_CPU + 3 * PAGE_SIZE, IMAGE.PER_CPU + 0x2000].map(
    (page) => (guest: Guest) => guest.svsm.gpa + page
  ),
  ({ svsm }) => svsm.gpa + svsm.size,
  () => 0xffff_ffff_f000,
  () => 2 ** 52 + PAGE_SIZE
]

const word = fc.oneof(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 0xffff_ffff }))
const place = fc.nat(PLACES.length - 1)
const level = fc.integer({ min: 0, max: 4 })
const apicId = fc.integer({ min: 0, max: VCPUS })

/** What a guest may try on the host and on the SVSM. */
const MSR_CODES = Object.values(GHCB_MSR).filter((code) => code !== GHCB_MSR.TERMINATION)
const kinds = {
  apCreate: fc.record({
    kind: fc.constant("ap-create" as const),
    request: fc.nat(3),
    level,
    apicId,
    place,
    rax: fc.constantFrom(1, 9, 0x8000_0001, -1)
  }),
  runVmpl: fc.record({ kind: fc.constant("run-vmpl" as const), level, msr: fc.boolean() }),
  event: fc.record({
    kind: fc.constant("event" as const),
    code: fc.constantFrom(...Object.values(NAE), 3),
    lo: word,
    hi: word,
    place
  }),
  msr: fc.record({
    kind: fc.constant("msr" as const),
    code: fc.constantFrom(...MSR_CODES, 0x99),
    payload: word,
    hi: word
  }),
  pageState: fc.record({ kind: fc.constant("page-state" as const), place, op: fc.integer({ min: 1, max: 3 }) }),
  registerGhcb: fc.record({ kind: fc.constant("register-ghcb" as const), place }),
  ghcb: fc.record({ kind: fc.constant("ghcb" as const), place }),
  svsm: fc.record({
    kind: fc.constant("svsm" as const),
    protocol: fc.constantFrom(0, 0, 0, PROTOCOL.ATTESTATION, PROTOCOL.ATTESTATION, PROTOCOL.VTPM, PROTOCOL.APIC),
    call: fc.nat(8),
    rcx: place,
    rdx: place,
    r8: word,
    offset: fc.constantFrom(0, 8, 1)
  }),
  memory: fc.record({
    kind: fc.constant("memory" as const),
    place,
    what: fc.constantFrom("read", "write", "pvalidate", "rmpadjust"),
    level
  }),
  wait: fc.record({ kind: fc.constant("wait" as const), halt: fc.boolean() })
}
/** What stops the guest for good comes seldom. */
const action = fc.oneof(
  { weight: 6, arbitrary: kinds.apCreate },
  { weight: 4, arbitrary: kinds.runVmpl },
  { weight: 4, arbitrary: kinds.pageState },
  { weight: 6, arbitrary: kinds.svsm },
  { weight: 2, arbitrary: kinds.event },
  { weight: 2, arbitrary: kinds.wait },
  { weight: 1, arbitrary: kinds.memory },
  { weight: 1, arbitrary: kinds.msr },
  { weight: 1, arbitrary: kinds.registerGhcb },
  { weight: 1, arbitrary: kinds.ghcb }
)
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never

/** Reports that a guest got in spite of everything. */
let reports = 0

/** What the attestation protocol asks for: a nonce of the guest's own, and outputs at any place. */
const attestOperation = (guest: Guest, place: number, word: number): Uint8Array => {
  const bytes = new Uint8Array(0x58)
  const view = new DataView(bytes.buffer)
  const own = guest.page(BLOCK.OTHER_CALLING_AREA)
  for (const [at, gpa, size] of [
    [0x00, word % 4 === 0 ? place : own, PAGE_SIZE],
    [0x10, guest.page(BLOCK.LIST) + 0x800, 64],
    [0x20, word % 4 === 1 ? place : own, PAGE_SIZE],
    [0x30, word % 4 === 2 ? place : own, word % 2 === 0 ? 0 : PAGE_SIZE]
  ] as const) {
    view.setBigUint64(at, BigInt(gpa), true)
    view.setUint32(at + 8, size, true)
  }
  return bytes
}

function* perform(guest: Guest, { ghcb, svsm }: Client, act: Action): Program {
  const at = (index: number): number => PLACES[index]!(guest)
  switch (act.kind) {
    case "ap-create":
      yield* ghcb.event(NAE.SNP_AP_CREATION, (act.level << 16) | act.request, act.apicId, at(act.place), act.rax)
      return
    case "run-vmpl":
      if (act.msr) yield* msrCall(GHCB_MSR.RUN_VMPL_REQUEST, act.level)
      else yield* ghcb.runVmpl(act.level)
      yield* ghcb.use()
      return
    case "event":
      yield* ghcb.event(act.code, act.lo, act.hi, at(act.place), act.lo)
      return
    case "msr":
      yield* msrCall(((act.payload << 12) | act.code) >>> 0, act.hi)
      yield* ghcb.use()
      return
    case "page-state": {
      const gfn = at(act.place) / PAGE_SIZE
      yield* msrCall((((gfn % 2 ** 20) << 12) | GHCB_MSR.PSC_REQUEST) >>> 0, ((act.op << 20) | (gfn / 2 ** 20)) >>> 0)
      yield* ghcb.use()
      return
    }
    case "register-ghcb":
      yield* msrCall((lo32(at(act.place)) | GHCB_MSR.REGISTER_GPA_REQUEST) >>> 0, hi32(at(act.place)))
      yield* ghcb.use()
      return
    case "ghcb":
      yield wrmsr(MSR_GHCB, lo32(at(act.place)), hi32(at(act.place)))
      yield vmgexit()
      yield* ghcb.use()
      return
    case "svsm": {
      const caller = new SvsmCaller(svsm.caGpa, "msr", null)
      if (act.protocol === PROTOCOL.ATTESTATION) {
        const operation = attestOperation(guest, at(act.rdx), act.r8)
        yield writeBytes(guest.page(BLOCK.LIST), operation)
        const result = yield* caller.call(act.protocol, act.call % 2, { rcx: guest.page(BLOCK.LIST) })
        if (result === SVSM_RESULT.SUCCESS) reports++
        return
      }
      yield* caller.call(act.protocol, act.call, { rcx: at(act.rcx) + act.offset, rdx: at(act.rdx), r8: act.r8 })
      return
    }
    case "memory":
      if (act.what === "read") yield read(at(act.place), 8)
      else if (act.what === "write") yield write(at(act.place) + CALLING_AREA.SIZE, 8, 0x10001, 0)
      else if (act.what === "pvalidate") yield pvalidate(at(act.place), true)
      else yield rmpadjust(at(act.place), act.level, 0xf, true)
      return
    case "wait":
      for (let i = 0; i < 200; i++) yield pause()
      if (act.halt) yield hlt()
  }
}

function* performAll(guest: Guest, client: Client, actions: ReadonlyArray<Action>): Program {
  for (const act of actions) {
    try {
      yield* perform(guest, client, act)
    } catch (exception) {
      if (!(exception instanceof GuestException)) throw exception
    }
  }
}

/** What must hold however a guest behaves: the SVSM's pages are its own, and nothing is left marked as running. */
const expectSound = ({ guest, machine }: GuestOutcome): void => {
  const { rmp } = machine.hardware
  for (const page of [IMAGE.CODE, IMAGE.PARAMETERS, IMAGE.ONLINE]) {
    const entry = rmp.entry(machine.vmm.memory.privateFrameIfPresent((guest.svsm.gpa + page) / PAGE_SIZE))
    if (entry.assigned && entry.validated) expect(entry.perms).toEqual([0xf, 0, 0, 0])
  }
  for (let pfn = 0; pfn < rmp.coveredPages; pfn++) {
    const { vmsa, perms, asid } = rmp.entry(pfn)
    // Nobody below VMPL0 may write to a VMSA.
    if (vmsa && asid === GUEST_ASID && perms.slice(1).some((mask) => (mask & PERMISSION.WRITE) !== 0)) {
      expect.fail(`frame ${pfn} is a VMSA with masks ${perms}`)
    }
  }
}

/** ATTEST_SERVICES with buffers of the guest's own. */
const REPORT: Action = { kind: "svsm", protocol: PROTOCOL.ATTESTATION, call: 0, rcx: 0, rdx: 0, r8: 3, offset: 0 }

describe.each(STRATEGIES)("under $key $variant", (strategy) => {
  it("no guest at VMPL2 breaks the model or reaches the SVSM, whatever three vCPUs ask for at once", () => {
    let ended = 0
    reports = 0
    const actions = fc.array(action, { maxLength: 12 })
    fc.assert(
      fc.property(fc.tuple(actions, actions, actions), fc.boolean(), (todo, sameCore) => {
        const outcome = runGuestProgram({
          strategy,
          vcpus: VCPUS,
          // A vCPU that was stopped inside the SVSM's lock leaves the others spinning.
          untilNs: 75_000_000,
          placement: sameCore ? "same-core" : "spread",
          *boot(guest) {
            const client = yield* setUp(guest)
            for (let id = 1; id < VCPUS; id++) expect(yield* startAp(guest, client, id)).toEqual([0, true])
            yield* performAll(guest, client, todo[0])
          },
          *ap(guest, id) {
            yield* performAll(guest, yield* setUpAp(guest, id), todo[id]!)
          }
        })
        if (outcome.failure === null) ended++
        expectSound(outcome)
      }),
      // A report takes the AMD-SP milliseconds, and a random guest may spoil its own: one guest asks for nothing else.
      { seed: 1, numRuns: 60, examples: [[[[REPORT], [], []], false]] }
    )
    expect(ended).toBeGreaterThan(0)
    expect(reports).toBeGreaterThan(0)
  })
})
