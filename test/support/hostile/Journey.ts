import { createECDH } from "node:crypto"
import { MIGRATION_CALL, MIGRATION_PROTOCOL, MIGRATION_ROLE, MIGRATION_START } from "@vmpl-lab/guest"
import { REPORT } from "@vmpl-lab/psp"
import { EXIT, NPF_INFO1, NPF_INFO1_HI, PAGE_SIZE, setU64, VMSA } from "@vmpl-lab/sev-es"
import type { RandomStream } from "@vmpl-lab/sim"
import {
  boundTo,
  decodeHello,
  encodeHello,
  type GuestVmsa,
  newMigration,
  RECORD,
  sealRecord,
  type TransportOptions
} from "@vmpl-lab/svsm"
import type { Call } from "./Arguments.ts"
import { SHARED } from "./Layout.ts"
import type { HostileMachine } from "./Machine.ts"
import type { Secrets } from "./Secrets.ts"

/** The private keys are the SVSM's secrets; whether a report is genuine the AMD-SP's part, and not asked here. */
export const transportOf = (secrets: Secrets): TransportOptions => {
  const newPrivateKey = (): Uint8Array => {
    const privateKey = secrets.bytes(48)
    // Below the order of the group, and not 0.
    privateKey[0] = 1
    return privateKey
  }
  return {
    newPrivateKey,
    genuine: (report) => ({
      vmpl: new DataView(report.buffer, report.byteOffset).getUint32(REPORT.vmpl, true),
      reportData: report.subarray(REPORT.report_data, REPORT.report_data + 64),
      measurement: report.subarray(REPORT.measurement, REPORT.measurement + 48),
      policy: new DataView(report.buffer, report.byteOffset).getBigUint64(REPORT.policy, true),
      reportedTcb: report.subarray(REPORT.reported_tcb, REPORT.reported_tcb + 8)
    })
  }
}

/** The other side's key, which is the same whoever it meets. */
const PEER_KEY = new Uint8Array(48).fill(7)
const peerPublic = (): Uint8Array => {
  const ecdh = createECDH("secp384r1")
  ecdh.setPrivateKey(PEER_KEY)
  return new Uint8Array(ecdh.getPublicKey())
}
const PEER_PUBLIC = peerPublic()

const ANY_CALLS = Object.values(MIGRATION_CALL)
/** The agent's own pages: they stay behind, so that the others go in a few calls. */
const OWN = { gpa: 0, size: 0x16_0000 } as const
const BUFFER_SIZE = SHARED.pages * PAGE_SIZE
/** One look in so many finds the migration over, and another one begins. */
const ENDS = 150

/** A guest that is moved to another machine: its agent, the host that carries, and the other side. */
export class Journey {
  readonly #machine: HostileMachine
  readonly #random: RandomStream

  constructor(machine: HostileMachine, random: RandomStream) {
    this.#machine = machine
    this.#random = random
  }

  /** What the agent, or another vCPU, would ask next; now and then something else. */
  call(caller: GuestVmsa): Call {
    const { agent } = this.#machine.migration
    const isAgent = agent === null || agent === caller
    const any = { protocol: MIGRATION_PROTOCOL, call: this.#oneOf(ANY_CALLS) as number, ...this.#buffer() }
    if (this.#int(0, 7) === 0) return any
    return { ...any, ...(isAgent ? this.#agents(any) : { call: MIGRATION_CALL.PARK }) }
  }

  /** Takes a fault of a store to a page that is watched, if there is one. @returns whether it did */
  fault(vmsa: GuestVmsa): boolean {
    const { migration } = this.#machine
    const guarded = [...migration.guarded.keys()]
    if (guarded.length === 0 || this.#int(0, 3) > 0) return false
    const view = this.#machine.view(vmsa.vmsaGpa)
    view.setUint32(VMSA.guest_exit_code, EXIT.NPF, true)
    view.setUint32(VMSA.guest_exit_info_1, NPF_INFO1.W | NPF_INFO1.P, true)
    view.setUint32(VMSA.guest_exit_info_1 + 4, NPF_INFO1_HI.VMPL, true)
    setU64(view, VMSA.guest_exit_info_2, this.#oneOf(guarded) * PAGE_SIZE)
    return true
  }

  /** While no call is being served, the guest may be another one that is to be moved. */
  next(): void {
    const { migration, state, stages } = this.#machine
    const { agent, phase } = migration
    const isOver = phase === "gone" || phase === "refused" || phase === "arrived"
    const isStuck = agent !== null && !state.registry.includes(agent)
    if (stages.includes("inside") || (!isOver && !isStuck && this.#int(1, ENDS) > 1)) return
    for (const [gfn, rights] of migration.guarded) {
      const { perms } = this.#machine.entry(gfn * PAGE_SIZE)
      const given = perms.map((mask, level) => (level === 0 ? mask : (rights >>> (8 * (level - 1))) & 0xff))
      this.#machine.setEntry(gfn * PAGE_SIZE, { perms: given as [number, number, number, number] })
    }
    Object.assign(migration, newMigration())
  }

  #int(from: number, to: number): number {
    return this.#random.int(from, to)
  }

  #oneOf<T>(values: ReadonlyArray<T>): T {
    return values[this.#int(0, values.length - 1)]!
  }

  #buffer(): Pick<Call, "rcx" | "rdx" | "r8"> {
    const gpa = SHARED.gpa + this.#int(0, SHARED.buffers - 1) * BUFFER_SIZE
    return { rcx: [0, gpa], rdx: [0, this.#oneOf([BUFFER_SIZE, BUFFER_SIZE, 16, 8, 0])], r8: [0, this.#int(0, 9)] }
  }

  #agents({ rcx: [, gpa] }: Call): Partial<Call> {
    const { migration } = this.#machine
    const whole = [0, BUFFER_SIZE] as const
    switch (migration.phase) {
      case "none":
        return { call: MIGRATION_CALL.HELLO, rdx: whole, r8: [0, this.#oneOf([0, 0, 0, 1, 2])] }
      case "greeted":
        return { call: MIGRATION_CALL.PEER, rdx: [0, this.#hand(gpa, this.#peersOffer())] }
      case "keyed":
        if (migration.role === MIGRATION_ROLE.TARGET)
          return { call: MIGRATION_CALL.IMPORT, rdx: [0, this.#hand(gpa, this.#records())] }
        return {
          call: MIGRATION_CALL.START,
          rcx: [0, OWN.gpa],
          rdx: [0, OWN.size],
          r8: [0, this.#int(0, MIGRATION_START.HOST_TRACKS | MIGRATION_START.REHASH)]
        }
      case "sending":
        return { call: this.#oneOf([MIGRATION_CALL.EXPORT, MIGRATION_CALL.EXPORT, MIGRATION_CALL.STOP]), rdx: whole }
      case "stopped":
        return {
          call: migration.pending.size > 0 ? MIGRATION_CALL.EXPORT : MIGRATION_CALL.EXPORT_STATE,
          rdx: whole,
          r8: [0, 100]
        }
      default:
        return {}
    }
  }

  /** The host brings bytes. @returns how many */
  #hand(gpa: number, bytes: Uint8Array): number {
    for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
      if (this.#machine.entry(gpa + at).assigned) return bytes.length
    }
    this.#machine.bring(gpa, bytes)
    return bytes.length
  }

  /** Of a like launch, and for this side; now and then another's. */
  #peersOffer(): Uint8Array {
    const own = decodeHello(this.#machine.migration.hello)!
    const role = 1 - own.role
    const report = own.report.slice()
    report.set(boundTo(role, PEER_PUBLIC), REPORT.report_data)
    report.fill(0, REPORT.signature)
    const offer = encodeHello({ role, publicKey: PEER_PUBLIC, report, certificates: own.certificates })
    if (this.#int(0, 3) === 0) offer[this.#int(0, 0x300)] = this.#int(0, 255)
    return offer
  }

  /** Pages from the other side, nearly as they were sent. */
  #records(): Uint8Array {
    const { key, sequence } = this.#machine.migration
    const records = Array.from({ length: this.#int(1, 2) }, (_, i) => {
      const gpa = this.#oneOf(this.#machine.pool) + this.#oneOf([0, 0, 0, 0, 0, 8])
      const kind = this.#oneOf([RECORD.PAGE, RECORD.PAGE, RECORD.PAGE, RECORD.PAGE, RECORD.STATE])
      const payload = new Uint8Array(PAGE_SIZE).fill(this.#int(0, 255))
      return sealRecord(key!, sequence + i, { kind, rights: 0x0f0f0f, gpa, payload })
    })
    const bytes = new Uint8Array(Buffer.concat(records))
    if (this.#int(0, 5) === 0) bytes[this.#int(0, bytes.length - 1)]! ^= 1
    return bytes
  }
}
