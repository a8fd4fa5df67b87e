import {
  type MessageOutcome,
  MIGRATION_CALL,
  MIGRATION_PROTOCOL,
  MIGRATION_RESULT,
  MIGRATION_ROLE
} from "@vmpl-lab/guest"
import { REPORT } from "@vmpl-lab/psp"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import {
  agree,
  boundTo,
  encodeHello,
  type MigrationRecord,
  type MigrationService,
  migrationService,
  type PeerReport,
  publicKeyOf,
  sealRecord
} from "@vmpl-lab/svsm"
import type { Program } from "@vmpl-lab/vmpl"
import { CA, type CallRegisters, type ScriptedHost, UNVALIDATED } from "./scriptedHost.ts"
import { resultName } from "./svsmAnswers.ts"

/** Shared pages for what goes in and out. */
export const BUFFER = UNVALIDATED + 0x1_0000
const BUFFER_PAGES = 4
export const BUFFER_SIZE = BUFFER_PAGES * PAGE_SIZE
/** Pages of the agent's own: its calling areas. */
export const OWN = CA
export const OWN_SIZE = 2 * PAGE_SIZE
const POLICY = 0x3_0000n
const TCB = Uint8Array.of(3, 0, 0, 0, 0, 0, 8, 115)
const MEASUREMENT = new Uint8Array(48).fill(0x11)
const NO_CERTIFICATES = new Uint8Array(24)
const PEER_KEY = new Uint8Array(48).fill(0x22)

const NAMES = new Map<number, string>(Object.entries(MIGRATION_RESULT).map(([name, code]) => [code, name]))

const reportOf = (data: Uint8Array): Uint8Array => {
  const report = new Uint8Array(0x4a0)
  const view = new DataView(report.buffer)
  view.setBigUint64(REPORT.policy, POLICY, true)
  report.set(data, REPORT.report_data)
  report.set(MEASUREMENT, REPORT.measurement)
  report.set(TCB, REPORT.reported_tcb)
  return report
}

/** One SVSM with the migration service; the other side, its agent, its host and its AMD-SP are the test's. */
export class MigrationPeer {
  readonly service: MigrationService
  /** What the peer's report is found to say; null: it is not genuine. */
  told: Partial<PeerReport> | null = {}
  /** Key of both sides, once there is one. */
  key: Uint8Array | null = null
  sequence = 0
  #host!: ScriptedHost
  #keys = 0
  #hello = new Uint8Array(0)
  #reportData = new Uint8Array(0)

  constructor() {
    this.service = migrationService({
      newPrivateKey: () => new Uint8Array(48).fill(++this.#keys),
      genuine: () =>
        this.told === null
          ? null
          : {
              vmpl: 0,
              reportData: this.#reportData,
              measurement: MEASUREMENT,
              policy: POLICY,
              reportedTcb: TCB,
              ...this.told
            }
    })
  }

  /** The machine that the SVSM is on. */
  on(host: ScriptedHost): this {
    this.#host = host
    for (let page = 0; page < BUFFER_PAGES; page++) host.share(BUFFER + page * PAGE_SIZE)
    const messages = {
      // biome-ignore lint/correctness/useYield: an answer without a step
      *report(_: number, data: Uint8Array): Program<MessageOutcome | null> {
        return { ok: true, payload: reportOf(data), certificates: NO_CERTIFICATES } as MessageOutcome
      }
    }
    Object.assign(host.state, { messages })
    return this
  }

  /** One call of the agent's. */
  call(name: keyof typeof MIGRATION_CALL, registers: CallRegisters = {}) {
    return this.#host.call(MIGRATION_PROTOCOL, MIGRATION_CALL[name], { rcx: BUFFER, ...registers })
  }

  /** Its result by its name. */
  result(name: keyof typeof MIGRATION_CALL, registers: CallRegisters = {}): string {
    const { result } = this.call(name, registers)
    return NAMES.get(result) ?? resultName(result)
  }

  put(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
      const view = this.#host.shared(BUFFER + at)
      new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE).set(bytes.subarray(at, at + PAGE_SIZE))
    }
  }

  take(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let at = 0; at < length; at += PAGE_SIZE) {
      const view = this.#host.shared(BUFFER + at)
      bytes.set(new Uint8Array(view.buffer, view.byteOffset, Math.min(PAGE_SIZE, length - at)), at)
    }
    return bytes
  }

  greeted(role: number): this {
    this.call("HELLO", { rdx: BUFFER_SIZE, r8: role })
    this.#hello = this.take(this.service.migration.hello.length) as Uint8Array<ArrayBuffer>
    return this
  }

  /** PEER with an offer of the other role, or of the role given. @returns the result */
  peer(role = 1 - this.service.migration.role): string {
    const publicKey = publicKeyOf(PEER_KEY)
    this.#reportData = boundTo(role, publicKey) as Uint8Array<ArrayBuffer>
    const report = reportOf(this.#reportData)
    const hello = encodeHello({ role, publicKey, report, certificates: NO_CERTIFICATES })
    this.put(hello)
    const result = this.result("PEER", { rdx: hello.length })
    if (result !== "SUCCESS") return result
    const own = { vmpl: 0, measurement: MEASUREMENT, policy: POLICY, reportedTcb: TCB }
    const { role: mine } = this.service.migration
    const told = { ...own, reportData: boundTo(mine, this.#publicKey()) }
    this.key = agree({ genuine: () => told }, PEER_KEY, hello, this.#hello)
    this.sequence = 0
    return result
  }

  keyed(role: number): this {
    this.greeted(role).peer()
    return this
  }

  started(flags = 0): this {
    this.keyed(MIGRATION_ROLE.SOURCE).call("START", { rcx: OWN, rdx: OWN_SIZE, r8: flags })
    return this
  }

  /** Nothing but the agent runs, and every page has gone. */
  sent(): this {
    this.call("STOP")
    while (this.call("EXPORT", { rdx: BUFFER_SIZE, r8: 0xffff }).r8 > 0);
    return this
  }

  /** The other side's next record, in the buffer. @returns its bytes */
  seal(record: Partial<MigrationRecord>, key = this.key!): number {
    const bytes = sealRecord(key, this.sequence, { kind: 1, rights: 0, gpa: 0, payload: new Uint8Array(0), ...record })
    this.put(bytes)
    return bytes.length
  }

  #publicKey(): Uint8Array {
    return this.#hello.slice(12, 12 + 97)
  }
}
