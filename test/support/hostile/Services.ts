import { createHash } from "node:crypto"
import { EFI_STATUS, SVSM_RESULT, type VariableName } from "@vmpl-lab/guest"
import {
  type CallRegister,
  type HandlerEvent,
  type HandlerPort,
  type HandlerStep,
  handledCalls,
  handledService,
  type Migration,
  type MigrationService,
  memoryAcceptance,
  migrationService,
  type Protocol,
  type SvsmState,
  type TpmPort,
  uefiMm,
  type VariableService,
  vtpm
} from "@vmpl-lab/svsm"
import { OP, OutsidePort, type Program } from "@vmpl-lab/vmpl"
import { replaced } from "../wrapped.ts"
import { transportOf } from "./Journey.ts"
import type { Services } from "./Machine.ts"
import type { Secrets } from "./Secrets.ts"

/** Protocol numbers of the services here. */
export const SERVICE = { SAFE: 0x4000_0000, LEAKY: 0x4000_0001 } as const

/** What a handler does next: it hears how its latest step went. */
type Handler = (event: HandlerEvent, call: Extract<HandlerEvent, { kind: "called" }>["call"]) => HandlerStep

const done = (result: number, reply: { readonly [R in CallRegister]?: bigint } = {}): HandlerStep => ({
  kind: "done",
  result,
  reply
})

/** A service of two calls with one buffer each, whose handler is the test's. */
const service = (
  number: number,
  handlerOf: () => Handler
): { readonly protocol: Protocol; readonly answer: () => void } => {
  const port: HandlerPort = new OutsidePort()
  const sessions = new WeakMap<object, { readonly handler: Handler; readonly call: Parameters<Handler>[1] }>()
  const buffer = { register: "rcx", size: { register: "rdx", min: 16, max: 8192 }, align: 1 } as const
  const rules = [0, 1, 2].map((call) => ({ call, buffers: [buffer], words: [], costNs: 100 }))
  return {
    protocol: handledService(number, { MIN: 1, MAX: 1 }, handledCalls(rules, port)),
    answer: () => {
      const question = port.open
      if (question === undefined) return
      const { session, event } = question.ask
      if (event.kind === "called") sessions.set(session, { handler: handlerOf(), call: event.call })
      const { handler, call } = sessions.get(session)!
      port.answer(handler(event, call))
    }
  }
}

/**
 * Call 0 compares the guest's bytes with a secret of its store, in equal time; call 1 puts another secret in its place, of
 * equal length, and fills the buffer with what is no secret; call 2 forgets the secret.
 */
const safe = (secrets: Secrets): (() => Handler) => {
  const key = "password"
  let kept = false
  let size = 16
  return () => {
    const guess = new Uint8Array(16)
    let steps = 0
    let password: Uint8Array | null = null
    return (event, { call, buffers }) => {
      const { gpa, size: length } = buffers[0]!
      if (event.kind === "stepped" && !event.isThere) return done(SVSM_RESULT.INVALID_ADDRESS)
      steps++
      if (call === 2) {
        kept = false
        return steps === 1 ? { kind: "remove secret", key } : done(SVSM_RESULT.SUCCESS)
      }
      if (call === 1) {
        if (steps === 1) {
          // Sizes that move the secret from slot to slot, and never fit into a page at last.
          size = size === 6000 ? 16 : [16, 40, 700, 4000, 6000].find((next) => next > size)!
          return { kind: "set secret", key, value: secrets.bytes(size) }
        }
        if (steps === 2 && event.kind === "stepped") kept ||= event.isDone
        if (steps === 2) return { kind: "write", gpa, from: new Uint8Array(length).fill(0xa5) }
        return done(SVSM_RESULT.SUCCESS)
      }
      if (steps === 1) return { kind: "read", gpa, into: guess }
      if (steps === 2) return { kind: "get secret", key }
      if (steps === 3) {
        password = event.kind === "stepped" ? event.bytes : null
        return { kind: "work", ns: 500 }
      }
      if (password === null || !kept) return done(SVSM_RESULT.INVALID_REQUEST)
      const difference = guess.reduce((sum, byte, i) => sum | (byte ^ password![i]!), 0)
      return done(SVSM_RESULT.SUCCESS, { r8: difference === 0 ? 1n : 0n })
    }
  }
}

/** Gives the guest what its store keeps. */
const openHanded =
  (secrets: Secrets): (() => Handler) =>
  () => {
    let steps = 0
    return (event, { buffers }) => {
      if (event.kind === "stepped" && !event.isThere) return done(SVSM_RESULT.INVALID_ADDRESS)
      steps++
      if (steps === 1) return { kind: "set secret", key: "", value: secrets.bytes(16) }
      if (steps === 2) return { kind: "get secret", key: "" }
      const bytes = event.kind === "stepped" ? event.bytes : null
      if (bytes === null) return done(SVSM_RESULT.SUCCESS)
      return { kind: "write", gpa: buffers[0]!.gpa, from: bytes }
    }
  }

/** Ways in which a service can give a secret away. */
export const LEAKS = {
  "copies a byte of its secret": (secret: number) => ({ ns: 500, bytes: [secret], result: 0, r8: 0n }),
  "tells a secret bit in a register": (secret: number) => ({ ns: 500, bytes: [0], result: 0, r8: BigInt(secret & 1) }),
  "answers by a branch on its secret": (secret: number) => ({ ns: 500, bytes: [0], result: secret & 1, r8: 0n }),
  "takes a secret time": (secret: number) => ({ ns: 500 + secret, bytes: [0], result: 0, r8: 0n }),
  "hides the byte from a search": (secret: number) => ({ ns: 500, bytes: [(secret * 7) ^ 0x5a], result: 0, r8: 0n }),
  "stores more for one secret than for another": (secret: number) => ({
    ns: 500,
    bytes: new Array<number>(1 + (secret & 1)).fill(0),
    result: 0,
    r8: 0n
  })
} as const satisfies Record<
  string,
  (secret: number) => {
    readonly ns: number
    readonly bytes: ReadonlyArray<number>
    readonly result: number
    r8: bigint
  }
>

/** Ways in which a service of the SVSM's would give a secret away if it were made like this. */
export const SHIPPED_LEAKS = {
  "keeps a secret and hands it out": "store",
  "shows variables of the boot services to the operating system": "uefi",
  "accepts memory without clearing it": "acceptance",
  "seals no record for the other side": "migration"
} as const
export type Leak = keyof typeof LEAKS | keyof typeof SHIPPED_LEAKS

const leaky = (secrets: Secrets, leak: keyof typeof LEAKS): (() => Handler) => {
  const secret = secrets.bytes(64)
  let calls = 0
  return () => {
    let steps = 0
    const { ns, bytes, result, r8 } = LEAKS[leak](secret[calls++ % secret.length]!)
    return (event, { buffers }) => {
      if (event.kind === "stepped" && !event.isThere) return done(SVSM_RESULT.INVALID_ADDRESS)
      if (steps++ === 0) return { kind: "work", ns }
      if (steps === 2) return { kind: "write", gpa: buffers[0]!.gpa, from: Uint8Array.from(bytes) }
      return done(result === 0 ? SVSM_RESULT.SUCCESS : SVSM_RESULT.INVALID_REQUEST, { r8 })
    }
  }
}

/** A TPM whose answers depend on its command alone; now and then there is none, or one that is too long. */
const answerTpm = (port: TpmPort): void => {
  const command = port.open?.ask
  if (command === undefined) return
  const digest = createHash("sha256").update(command).digest()
  const kind = digest[0]! % 16
  if (kind === 0) port.answer({ response: null })
  else port.answer({ response: new Uint8Array(kind === 1 ? 4093 : digest[1]! * 16).fill(0x77), ns: digest[2]! })
}

const isPlanted = (leak: Leak | null): leak is keyof typeof LEAKS => leak !== null && Object.hasOwn(LEAKS, leak)

/** Memory acceptance, cleared or not. */
const acceptance = (isCleared: boolean): Protocol => ({
  ...memoryAcceptance,
  serve(state, request) {
    const behaviour = { ...state.behaviour, notCleared: { gpa: 0, size: state.parameters.ramSize } }
    const asked = isCleared ? state : (Object.create(state, { behaviour: { value: behaviour } }) as SvsmState)
    return memoryAcceptance.serve(asked, request)
  }
})

/** Shared stores of a program, but what they store is the plain text. */
function* unsealed(migration: Migration, program: Program<number>): Program<number> {
  const key = migration.key
  return yield* replaced(program, function* (operation) {
    if (operation.op === OP.WRITE_BYTES && !operation.cbit && key !== null) operation.bytes?.set(key.subarray(0, 1), 40)
    yield operation
  })
}

const moved = ({ protocol, migration }: MigrationService, isSealed: boolean): Protocol => ({
  ...protocol,
  serve(state, request) {
    const served = protocol.serve(state, request)
    return isSealed || typeof served === "number" ? served : unsealed(migration, served)
  }
})

/** Everything that there is beside the core, and services that keep a secret; if asked for, one that does not. */
export const servicesOf =
  (leak: Leak | null) =>
  (secrets: Secrets): Services => {
    const planted = isPlanted(leak) ? leak : null
    const kind = leak === null || isPlanted(leak) ? null : SHIPPED_LEAKS[leak]
    const tpm: TpmPort = new OutsidePort()
    const uefi = uefiMm()
    const migration = migrationService(transportOf(secrets))
    const handled = [service(SERVICE.SAFE, safe(secrets))]
    if (planted !== null) handled.push(service(SERVICE.LEAKY, leaky(secrets, planted)))
    if (kind === "store") handled.push(service(SERVICE.LEAKY, openHanded(secrets)))
    const { managementMode } = uefi
    if (kind === "uefi") {
      Object.assign(uefi, {
        managementMode: (state: SvsmState) => {
          const mode = managementMode(state)
          return Object.assign(mode, { variables: withoutHiding(mode.variables) })
        }
      })
    }
    return {
      uefi,
      migration: migration.migration,
      protocols: [
        vtpm(tpm),
        uefi,
        acceptance(kind !== "acceptance"),
        moved(migration, kind !== "migration"),
        ...handled.map(({ protocol }) => protocol)
      ],
      answer: () => {
        answerTpm(tpm)
        for (const { answer } of handled) answer()
      }
    }
  }

/** Variables that are all shown, whatever they are for. */
const withoutHiding = (variables: VariableService): VariableService =>
  Object.assign(variables, {
    get: (name: VariableName) => variables.variables.find(name) ?? EFI_STATUS.NOT_FOUND
  })
