import { ATTESTATION_CALL, type CORE_CALL as CALLS, CORE_CALL, PROTOCOL, VTPM_CALL } from "@vmpl-lab/guest"
import { guidBytes, PAGE_SIZE, VMSA } from "@vmpl-lab/sev-es"
import { SERVICE_GUID, SHIPPED_PROTOCOLS, type SvsmBehaviour, type TpmAnswer, type TpmPort, vtpm } from "@vmpl-lab/svsm"
import { type Program, pause } from "@vmpl-lab/vmpl"
import { expect } from "vitest"
import {
  FIRMWARE,
  LIST,
  PAGE,
  ScriptedHost,
  SVSM_DATA,
  UNVALIDATED,
  VCPUS
} from "../../../test/support/scriptedHost.ts"
import { created, NEW, NEW_CA, putVmsa, resultName, svsmAnswers, writeList } from "../../../test/support/svsmAnswers.ts"

const { answer, check } = svsmAnswers()
const OUTSIDE = FIRMWARE.gpa + FIRMWARE.size

/** A call that is good until a check is violated: registers, and what the guest has in memory. */
interface Draft {
  readonly host: ScriptedHost
  rcx: number
  rdx: number
  r8: number
  call: number
  /** Entries, count and next of a list, or an operation's bytes. */
  entry: number
  count: number
  next: number
  readonly bytes: DataView
}
/** One check: its name in the table, and what violates it alone. `field` tells apart what cannot be wrong twice. */
interface Check {
  readonly name: string
  readonly field: string
  readonly violate: (draft: Draft) => void
  /** Result where it is violated; left out where it only has to be one of those named before or after. */
  readonly result: string
}
interface Call {
  readonly protocol: number
  readonly call: number
  readonly boot: (behaviour: SvsmBehaviour) => ScriptedHost
  readonly draft: Partial<Draft>
  /** Puts into memory what the draft says. */
  readonly write: (draft: Draft) => void
  readonly checks: ReadonlyArray<Check>
}

const outcome = (call: Call, behaviour: SvsmBehaviour, violated: ReadonlyArray<Check>): string => {
  const host = call.boot(behaviour)
  const bytes = new DataView(new ArrayBuffer(0x58))
  const none = { rcx: 0, rdx: 0, r8: 0, entry: 0, count: 1, next: 0 }
  const draft: Draft = { host, bytes, call: call.call, ...none, ...call.draft }
  for (const { violate } of violated) violate(draft)
  call.write(draft)
  const { rcx, rdx, r8 } = draft
  return resultName(host.call(call.protocol, draft.call, { rcx, rdx, r8 }).result)
}

/** Violates each check alone, then each two that can be wrong at once. @returns the names, if the earlier one decides */
const ordered = (call: Call, behaviour: SvsmBehaviour): string => {
  const { checks } = call
  expect(outcome(call, behaviour, [])).toBe("SUCCESS")
  for (const [i, first] of checks.entries()) {
    expect(outcome(call, behaviour, [first]), first.name).toBe(first.result)
    for (const second of checks.slice(i + 1)) {
      if (first.field === second.field) continue
      expect(outcome(call, behaviour, [first, second]), `${first.name} and ${second.name}`).toBe(first.result)
    }
  }
  return checks.map(({ name }) => name).join(", ")
}

const [P, A] = ["INVALID_PARAMETER", "INVALID_ADDRESS"] as const
const plain = (behaviour: SvsmBehaviour): ScriptedHost => new ScriptedHost(behaviour).boot()
const setting = (name: "rcx" | "rdx" | "r8" | "call" | "count" | "next", value: number) => (draft: Draft) => {
  draft[name] = value
}
const rcxIs = (name: string, rcx: number, result: string): Check => ({
  name,
  field: "rcx",
  result,
  violate: setting("rcx", rcx)
})
const core = (call: (typeof CALLS)[keyof typeof CALLS], rest: Partial<Call>): Call => ({
  protocol: PROTOCOL.CORE,
  call,
  boot: plain,
  draft: {},
  write: () => {},
  checks: [],
  ...rest
})

const createCall = (behaviour: SvsmBehaviour): Call => {
  const misaligned = behaviour === "coconut" ? A : P
  return core(CORE_CALL.CREATE_VCPU, {
    draft: { rcx: NEW, rdx: NEW_CA, r8: 1 },
    write: () => {},
    boot: (one) => {
      const host = plain(one)
      putVmsa(host, NEW)
      return host
    },
    checks: [
      rcxIs("VMSA alignment", NEW + 8, misaligned),
      { name: "area alignment", field: "rdx", result: misaligned, violate: setting("rdx", NEW_CA + 8) },
      rcxIs("VMSA address", SVSM_DATA, A),
      { name: "area address", field: "rdx", result: A, violate: setting("rdx", OUTSIDE) },
      { name: "APIC ID", field: "r8", result: P, violate: setting("r8", VCPUS) },
      {
        name: "page not there",
        field: "page",
        result: A,
        violate: ({ host }) => void host.state.validated.delete(NEW_CA / PAGE_SIZE)
      },
      { name: "VMSA's level", field: "vmsa", result: P, violate: ({ host }) => host.poke(NEW).setUint8(VMSA.vmpl, 0) }
    ]
  })
}
const listCall = (call: 1 | 4, validate: number): Call => ({
  ...core(call, {
    draft: { rcx: LIST, entry: (validate === 0 ? PAGE : UNVALIDATED) + validate },
    write: ({ host, rcx, entry, count, next }) => {
      if (rcx === LIST) writeList(host, [entry], count, next)
    }
  }),
  checks: [
    rcxIs("list alignment", LIST + 4, P),
    rcxIs("list address", SVSM_DATA, A),
    { name: "count", field: "count", result: P, violate: setting("count", 0) },
    { name: "next", field: "count", result: P, violate: setting("next", 1) },
    {
      name: "reserved bits",
      field: "entry",
      result: P,
      violate: (draft) => {
        draft.entry += 0x10
      }
    },
    {
      name: "entry address",
      field: "address",
      result: A,
      violate: (draft) => {
        draft.entry += OUTSIDE
      }
    }
  ]
})

answer("order/create-vcpu", (host, behaviour) => {
  const result = ordered(createCall(behaviour), behaviour)
  expect(host.state.panics.size).toBe(0)
  return result
})
answer("order/remap-ca", (_, behaviour) =>
  ordered(
    core(CORE_CALL.REMAP_CA, {
      draft: { rcx: PAGE },
      checks: [
        rcxIs("alignment", OUTSIDE + 8, P),
        rcxIs("address", OUTSIDE, A),
        rcxIs("page not there", UNVALIDATED, A)
      ]
    }),
    behaviour
  )
)
answer("order/pvalidate", (_, behaviour) => ordered(listCall(CORE_CALL.PVALIDATE, 4), behaviour))
answer("order/deposit-mem", (_, behaviour) =>
  behaviour === "coconut"
    ? outcome(listCall(CORE_CALL.DEPOSIT_MEM, 0), behaviour, [])
    : ordered(listCall(CORE_CALL.DEPOSIT_MEM, 0), behaviour)
)
answer("order/withdraw-mem", (_, behaviour) => {
  const call = core(CORE_CALL.WITHDRAW_MEM, {
    draft: { rcx: LIST },
    checks: [rcxIs("alignment or room", OUTSIDE + 0xff8, P), rcxIs("address", OUTSIDE, A)]
  })
  return behaviour === "coconut" ? outcome(call, behaviour, []) : ordered(call, behaviour)
})
answer("order/delete-vcpu", (_, behaviour) => {
  const running: Check = {
    name: "it runs",
    field: "run",
    result: "0x80001003",
    violate: ({ host }) => host.runVmsa(NEW)
  }
  const privileged: Check = {
    name: "level",
    field: "level",
    result: P,
    violate: ({ host }) => void Object.assign(host.state.registry[1]!, { vmpl: 1 })
  }
  const call = core(CORE_CALL.DELETE_VCPU, {
    draft: { rcx: NEW },
    boot: (one) => {
      const host = plain(one)
      created(host)
      return host
    },
    checks: [rcxIs("alignment or unknown", NEW + 8, P), ...(behaviour === "specification" ? [privileged] : []), running]
  })
  return ordered(call, behaviour)
})
answer("order/entry", (_, behaviour) => {
  const unknown: Check = {
    name: "call",
    field: "call",
    result: "UNSUPPORTED_CALL",
    violate: setting("call", 77)
  }
  return ordered(
    core(CORE_CALL.REMAP_CA, { draft: { rcx: PAGE }, checks: [unknown, rcxIs("arguments", OUTSIDE, A)] }),
    behaviour
  )
})
answer("order/configure-vtom", (_, behaviour) => {
  const both = outcome(core(CORE_CALL.CONFIGURE_VTOM, { draft: { rcx: 0x12 } }), behaviour, [])
  return both === P ? "reserved bits, configure" : `configure (${both})`
})

const REPORT = 0x2_9000
const MANIFEST = 0x2_a000
const CERTIFICATES = 0x2_b000
const NONCE = 0x2_8000
const set = (at: number, value: bigint) => (draft: Draft) => draft.bytes.setBigUint64(at, value, true)
const word = (at: number, value: number) => (draft: Draft) => draft.bytes.setUint32(at, value, true)
const attest = (behaviour: SvsmBehaviour): Call => {
  const unreadable = behaviour === "coconut" ? P : A
  const reports = {
    *report() {
      yield pause()
      return { ok: true, payload: new Uint8Array(0x4a0), certificates: new Uint8Array(0x4000) }
    }
  }
  return {
    protocol: PROTOCOL.ATTESTATION,
    call: ATTESTATION_CALL.ATTEST_SINGLE_SERVICE,
    boot: (one) => {
      const host = plain(one)
      host.state.services.push({ guid: SERVICE_GUID.VTPM, bytes: () => new Uint8Array(100) })
      host.state.messages = reports as never
      return host
    },
    draft: { rcx: PAGE },
    write: ({ host, bytes, rcx }) => {
      const good = new DataView(new ArrayBuffer(0x58))
      for (const [at, gpa, size] of [
        [0x00, REPORT, 0x1000],
        [0x10, NONCE, 64],
        [0x20, MANIFEST, 0x1000],
        [0x30, CERTIFICATES, 0x4000]
      ] as const) {
        good.setUint32(at, gpa, true)
        good.setUint32(at + 8, size, true)
      }
      guidBytes(SERVICE_GUID.VTPM).forEach((byte, i) => {
        good.setUint8(0x40 + i, byte)
      })
      if (rcx !== PAGE) return
      for (let i = 0; i < 0x58; i++) host.poke(PAGE + i).setUint8(0, bytes.getUint8(i) ^ good.getUint8(i))
    },
    // What is violated is exclusive-or'ed into a good operation.
    checks: [
      rcxIs("operation unreadable", OUTSIDE, unreadable),
      { name: "reserved bytes", field: "0c", result: P, violate: word(0x0c, 1) },
      { name: "version", field: "50", result: P, violate: word(0x50, 1) },
      { name: "service", field: "40", result: "UNSUPPORTED_PROTOCOL", violate: word(0x40, 1) },
      { name: "nonce's size", field: "18", result: P, violate: word(0x18, 1) },
      { name: "nonce unreadable", field: "10", result: unreadable, violate: set(0x10, 1n << 40n) },
      {
        name: "firmware",
        field: "firmware",
        result: "INVALID_REQUEST",
        violate: ({ host }) => void Object.assign(host.state, { messages: null })
      },
      { name: "manifest's alignment", field: "20", result: P, violate: set(0x20, 8n) },
      {
        name: "manifest wraps",
        field: "20",
        result: A,
        violate: (draft) => set(0x20, WRAPS ^ BigInt(MANIFEST))(draft)
      },
      { name: "report's alignment", field: "00", result: P, violate: set(0x00, 8n) },
      { name: "report wraps", field: "00", result: A, violate: (draft) => set(0x00, WRAPS ^ BigInt(REPORT))(draft) },
      { name: "certificates' size", field: "38", result: P, violate: word(0x38, 1) },
      { name: "certificates' alignment", field: "30", result: P, violate: set(0x30, 8n) },
      { name: "certificates wrap", field: "30", result: A, violate: set(0x30, WRAPS ^ BigInt(CERTIFICATES)) },
      {
        name: "a buffer too small",
        field: "manifest",
        result: P,
        violate: ({ host }) => {
          host.state.services[0] = { guid: SERVICE_GUID.VTPM, bytes: () => new Uint8Array(0x1001) }
        }
      },
      { name: "copy", field: "00", result: A, violate: set(0x00, 1n << 40n) }
    ]
  }
}
/** The last page below 2^64: with 4 KiB it ends beyond. */
const WRAPS = 2n ** 64n - BigInt(PAGE_SIZE)
answer("order/attestation", (_, behaviour) => ordered(attest(behaviour), behaviour))

answer("order/vtpm", (_, behaviour) => {
  const unreadable = behaviour === "coconut" ? P : A
  let response: Uint8Array | null = new Uint8Array(10)
  const tpm = {
    *ask(): Program<TpmAnswer | { readonly response: null }> {
      yield pause()
      return response === null ? { response } : { response, ns: 0 }
    }
  } as unknown as TpmPort
  return ordered(
    {
      protocol: PROTOCOL.VTPM,
      call: VTPM_CALL.COMMAND,
      boot: (one) => {
        response = new Uint8Array(10)
        return new ScriptedHost(one, [...SHIPPED_PROTOCOLS, vtpm(tpm)]).boot()
      },
      draft: { rcx: PAGE },
      write: ({ host, rcx, bytes }) => {
        if (rcx !== PAGE && rcx !== OUTSIDE - 16) return
        for (let i = 0; i < 9; i++) host.poke(rcx + i).setUint8(0, bytes.getUint8(i) ^ (i === 0 ? 8 : 0))
      },
      checks: [
        rcxIs("null", 0, P),
        rcxIs("first word unreadable", OUTSIDE, unreadable),
        { name: "command", field: "0", result: P, violate: word(0, 1) },
        rcxIs("rest of the page", OUTSIDE - 16, A),
        { name: "locality", field: "4", result: P, violate: (draft) => draft.bytes.setUint8(4, 1) },
        { name: "size", field: "5", result: P, violate: word(5, 4088) },
        {
          name: "power",
          field: "power",
          result: "INVALID_REQUEST",
          violate: () => {
            response = null
          }
        }
      ]
    },
    behaviour
  )
})

check()
