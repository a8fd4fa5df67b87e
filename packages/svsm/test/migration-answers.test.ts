/** The migration protocol, whose other side is played by the test. */
import { MIGRATION_CALL, MIGRATION_PROTOCOL, MIGRATION_ROLE } from "@vmpl-lab/guest"
import { EFER_SVME, EXIT, PAGE_SIZE, setU64, VMSA } from "@vmpl-lab/sev-es"
import { OP } from "@vmpl-lab/vmpl"
import { BUFFER, BUFFER_SIZE, MigrationPeer, OWN, OWN_SIZE } from "../../../test/support/migrationPeer.ts"
import {
  CA,
  GUEST_VMSA,
  LIST,
  PAGE,
  RAM_SIZE,
  type ScriptedHost,
  SVSM,
  UNVALIDATED
} from "../../../test/support/scriptedHost.ts"
import { pend, resultName, svsmAnswers, withVcpu } from "../../../test/support/svsmAnswers.ts"
import { encodeState, type GuestState, layoutOf } from "../src/services/migration/GuestState.ts"
import { memoryDigest } from "../src/services/migration/MovedPages.ts"
import { RECORD } from "../src/services/migration/SealedRecord.ts"

let peer: MigrationPeer
const made = () => {
  peer = new MigrationPeer()
  return peer.service.protocol
}
const { answer, check } = svsmAnswers(() => [made()])

const { SOURCE, TARGET } = MIGRATION_ROLE
const ROOM = { rdx: BUFFER_SIZE }
const on = (host: ScriptedHost): MigrationPeer => peer.on(host)

/** The boot vCPU has a VMSA at VMPL3 too. */
const withLevel3 = ({ state }: ScriptedHost): void => {
  state.registry.push({ vmsaGpa: 0x3_0000, caGpa: 0x3_1000, apicId: 0, vmpl: 3, guestOwned: true })
}

answer("migration/unknown", (host) => resultName(host.call(MIGRATION_PROTOCOL, 11).result))

const hello = (host: ScriptedHost, registers: object) => on(host).result("HELLO", { ...ROOM, r8: SOURCE, ...registers })
answer("migration-hello/first", (host) => hello(host, {}))
answer("migration-hello/role", (host) => hello(host, { r8: 2 }))
answer("migration-hello/misaligned", (host) => hello(host, { rcx: BUFFER + 8 }))
answer("migration-hello/nothing", (host) => hello(host, { rdx: 0 }))
answer("migration-hello/large", (host) => hello(host, { rdx: 0x40_1000 }))
answer("migration-hello/outside", (host) => hello(host, { rcx: RAM_SIZE - PAGE_SIZE }))
answer("migration-hello/private", (host) => hello(host, { rcx: PAGE }))
answer("migration-hello/small", (host) => hello(host, { rdx: 64 }))
answer("migration-hello/no-messages", (host) => {
  on(host)
  host.state.messages = null
  return peer.result("HELLO", ROOM)
})
answer("migration-hello/no-report", (host) => {
  on(host)
  Object.assign(host.state.messages!, {
    // biome-ignore lint/correctness/useYield: an answer without a step
    *report() {
      return null
    }
  })
  return peer.result("HELLO", ROOM)
})
answer("migration-hello/again", (host) => {
  const first = on(host).keyed(SOURCE).key!
  const second = peer.keyed(SOURCE).key!
  return Buffer.compare(first, second) === 0 ? "the same key" : "SUCCESS, another key"
})
answer("migration-hello/sending", (host) => on(host).started().result("HELLO", ROOM))

const told = (host: ScriptedHost, role: number, report: MigrationPeer["told"]) => {
  on(host).told = report
  return peer.greeted(role).peer()
}
answer("migration-peer/phase", (host) => on(host).peer(TARGET))
answer("migration-peer/good", (host) => told(host, SOURCE, {}))
answer("migration-peer/role", (host) => on(host).greeted(SOURCE).peer(SOURCE))
answer("migration-peer/not-genuine", (host) => told(host, SOURCE, null))
answer("migration-peer/level", (host) => told(host, SOURCE, { vmpl: 1 }))
answer("migration-peer/data", (host) => told(host, SOURCE, { reportData: new Uint8Array(64) }))
answer("migration-peer/measurement", (host) => told(host, SOURCE, { measurement: new Uint8Array(48) }))
answer("migration-peer/policy", (host) => told(host, SOURCE, { policy: 0xb_0000n }))
const OLDER = { reportedTcb: Uint8Array.of(3, 0, 0, 0, 0, 0, 7, 115) }
answer("migration-peer/older-target", (host) => told(host, SOURCE, OLDER))
answer("migration-peer/older-source", (host) => told(host, TARGET, OLDER))
answer("migration-peer/malformed", (host) => on(host).greeted(SOURCE).result("PEER", { rdx: 100 }))
answer("migration-peer/private", (host) => on(host).greeted(SOURCE).result("PEER", { rcx: PAGE, rdx: 100 }))

const start = (host: ScriptedHost, registers: object) =>
  on(host)
    .keyed(SOURCE)
    .result("START", { rcx: OWN, rdx: OWN_SIZE, ...registers })
answer("migration-start/good", (host) => start(host, {}))
answer("migration-start/phase", (host) => on(host).greeted(SOURCE).result("START"))
answer("migration-start/role", (host) => on(host).keyed(TARGET).result("START", { rcx: OWN, rdx: OWN_SIZE }))
answer("migration-start/misaligned", (host) => start(host, { rcx: OWN + 8 }))
answer("migration-start/size", (host) => start(host, { rdx: 8 }))
answer("migration-start/flags", (host) => start(host, { r8: 4 }))
answer("migration-start/levels", (host) => {
  withLevel3(host)
  return start(host, {})
})

answer("migration-mark/phase", (host) => on(host).keyed(SOURCE).result("MARK", { rdx: 8 }))
answer("migration-mark/size", (host) => on(host).started(1).result("MARK", { rdx: 12 }))
answer("migration-mark/nothing", (host) => on(host).started(1).result("MARK", { rdx: 0 }))
answer("migration-mark/pages", (host) => {
  on(host).started(1).sent()
  setU64(host.shared(BUFFER), 0, PAGE / PAGE_SIZE)
  setU64(host.shared(BUFFER), 8, SVSM.gpa / PAGE_SIZE)
  const { r8 } = peer.call("MARK", { rdx: 16 })
  return `SUCCESS, ${r8} to go`
})

answer("migration-export/phase", (host) =>
  on(host)
    .keyed(SOURCE)
    .result("EXPORT", { ...ROOM, r8: 1 })
)
answer("migration-export/none", (host) =>
  on(host)
    .started()
    .result("EXPORT", { ...ROOM, r8: 0 })
)
answer("migration-export/small", (host) => on(host).started().result("EXPORT", { rdx: PAGE_SIZE, r8: 1 }))
answer("migration-export/private", (host) => on(host).started().result("EXPORT", { rcx: PAGE, rdx: 0x2000, r8: 1 }))
answer("migration-export/page", (host) => {
  const { rcx, rdx } = on(host)
    .started()
    .call("EXPORT", { ...ROOM, r8: 1 })
  return `${rdx} page, ${rcx} bytes; VMPL2: ${host.entry(0x0000).perms[2]}`
})
answer("migration-export/refused", (host) => {
  const before = on(host).started().service.migration.pending.size
  host.pretend = ({ op }, result) => {
    if (op === OP.RMPADJUST) result.lo = 1
  }
  const result = peer.result("EXPORT", { ...ROOM, r8: 1 })
  return `${result}, ${before - peer.service.migration.pending.size} pages forgotten`
})

const parked = (host: ScriptedHost): string => {
  pend(host, GUEST_VMSA, CA, MIGRATION_CALL.PARK, { rcx: 0x1234 }, MIGRATION_PROTOCOL)
  host.answer()
  const { code } = host.run()
  const view = host.peek(GUEST_VMSA)
  const isRunnable = (view.getUint32(VMSA.efer, true) & EFER_SVME) !== 0
  return `${code === EXIT.HLT ? "no answer" : code}, RIP = 0x${view.getUint32(VMSA.rip, true).toString(16)}, ${isRunnable ? "can run" : "cannot run"}`
}
/** Another vCPU is the agent. */
const asOther = (host: ScriptedHost): MigrationPeer => {
  on(host).started()
  peer.service.migration.agent = { ...peer.service.migration.agent! }
  return peer
}
answer("migration-park/agent", (host) => on(host).started().result("PARK"))
answer("migration-park/phase", (host) => {
  on(host).keyed(SOURCE)
  peer.service.migration.agent = null
  return peer.result("PARK")
})
answer("migration-park/levels", (host) => {
  asOther(host)
  withLevel3(host)
  return peer.result("PARK")
})
answer("migration-park/parks", (host) => {
  asOther(host)
  return parked(host)
})

answer("migration-stop/phase", (host) => on(host).keyed(SOURCE).result("STOP"))
answer("migration-stop/running", (host) => on(withVcpu(host)).started().result("STOP"))
answer("migration-stop/alone", (host) => on(host).started().result("STOP"))

answer("migration-export-state/phase", (host) => on(host).started().result("EXPORT_STATE", ROOM))
answer("migration-export-state/left", (host) => {
  on(host).started().result("STOP")
  return peer.result("EXPORT_STATE", ROOM)
})
answer("migration-export-state/private", (host) =>
  on(host)
    .started()
    .sent()
    .result("EXPORT_STATE", { rcx: PAGE, ...ROOM })
)
answer("migration-export-state/small", (host) => on(host).started().sent().result("EXPORT_STATE", { rdx: 64 }))
answer("migration-export-state/new-vcpu", (host) => {
  on(host).started().sent()
  withVcpu(host)
  return peer.result("EXPORT_STATE", ROOM)
})
answer("migration-export-state/goes", (host) => {
  const result = on(host).started().sent().result("EXPORT_STATE", ROOM)
  const calls = ["HELLO", "START", "EXPORT", "EXPORT_STATE", "RESUME"] as const
  return `${result}, then ${[...new Set(calls.map((name) => peer.result(name, ROOM)))].join(", ")}`
})

const PAGE_BYTES = { gpa: UNVALIDATED, rights: 0x0f0f, payload: new Uint8Array(PAGE_SIZE).fill(7) }
const imported = (host: ScriptedHost, record: object): string => {
  const rdx = on(host)
    .keyed(TARGET)
    .seal({ ...PAGE_BYTES, ...record })
  return peer.result("IMPORT", { rdx })
}
answer("migration-import/role", (host) => on(host).keyed(SOURCE).result("IMPORT", { rdx: 64 }))
answer("migration-import/phase", (host) => on(host).greeted(TARGET).result("IMPORT", { rdx: 64 }))
answer("migration-import/private", (host) => on(host).keyed(TARGET).result("IMPORT", { rcx: PAGE, rdx: 64 }))
answer("migration-import/malformed", (host) => on(host).keyed(TARGET).result("IMPORT", { rdx: 64 }))
answer("migration-import/page", (host) => {
  const result = imported(host, {})
  const { validated, perms } = host.entry(UNVALIDATED)
  return `${result}, validated: ${validated}, VMPL1 to 3: ${perms.slice(1).join(", ")}, byte ${host.peek(UNVALIDATED).getUint8(9)}`
})
answer("migration-import/again", (host) => {
  imported(host, {})
  return peer.result("IMPORT", { rdx: peer.seal(PAGE_BYTES) })
})
answer("migration-import/other-key", (host) => {
  on(host).keyed(TARGET)
  return peer.result("IMPORT", { rdx: peer.seal(PAGE_BYTES, new Uint8Array(32)) })
})
answer("migration-import/kind", (host) => imported(host, { kind: RECORD.VMSA }))
answer("migration-import/size", (host) => imported(host, { payload: new Uint8Array(8) }))
answer("migration-import/svsm", (host) => imported(host, { gpa: SVSM.gpa }))
answer("migration-import/secrets", (host) => imported(host, { gpa: host.state.parameters.secretsGpa }))
answer("migration-import/area", (host) => imported(host, { gpa: CA }))
answer("migration-import/used", (host) => {
  host.setEntry(UNVALIDATED, { validated: true })
  return imported(host, {})
})

/** The state of a guest without memory or vCPUs beside the agent's. */
const lastState = (host: ScriptedHost, changes: Partial<GuestState> = {}): string => {
  on(host).keyed(TARGET)
  const state: GuestState = {
    layout: layoutOf(host.state),
    vcpus: [],
    pages: [],
    memory: memoryDigest([], () => undefined),
    deposited: [],
    own: { gpa: 0, size: RAM_SIZE },
    ...changes
  }
  return peer.result("IMPORT_STATE", { rdx: peer.seal({ kind: RECORD.STATE, payload: encodeState(state) }) })
}
answer("migration-import-state/role", (host) => on(host).keyed(SOURCE).result("IMPORT_STATE", { rdx: 64 }))
answer("migration-import-state/private", (host) =>
  on(host).keyed(TARGET).result("IMPORT_STATE", { rcx: PAGE, rdx: 64 })
)
answer("migration-import-state/malformed", (host) => on(host).keyed(TARGET).result("IMPORT_STATE", { rdx: 64 }))
answer("migration-import-state/page", (host) => {
  on(host).keyed(TARGET)
  return peer.result("IMPORT_STATE", { rdx: peer.seal(PAGE_BYTES) })
})
answer("migration-import-state/layout", (host) => lastState(host, { layout: "{}" }))
answer("migration-import-state/vcpus", (host) =>
  lastState(host, { vcpus: [{ apicId: 1, vmpl: 2, vmsaGpa: UNVALIDATED, caGpa: CA }] })
)
answer("migration-import-state/stale", (host) => {
  const stale = lastState(host, { memory: "00" })
  return `${stale}, then ${peer.result("RESUME", { rcx: LIST })}`
})
answer("migration-import-state/arrives", (host) => lastState(host))

answer("migration-resume/phase", (host) => on(host).keyed(SOURCE).result("RESUME", { rcx: LIST }))
answer("migration-resume/misaligned", (host) =>
  on(host)
    .started()
    .result("RESUME", { rcx: LIST + 8 })
)
answer("migration-resume/outside", (host) => on(host).started().result("RESUME", { rcx: SVSM.gpa }))
answer("migration-resume/parking", (host) => {
  on(host).started()
  peer.service.migration.parking.add({ ...peer.service.migration.agent! })
  return peer.result("RESUME", { rcx: LIST })
})
answer("migration-resume/source", (host) => {
  on(host)
    .started()
    .call("EXPORT", { ...ROOM, r8: 1 })
  const { perms } = host.entry(0x0000)
  const result = peer.result("RESUME", { rcx: LIST })
  return `${result}; VMPL2: ${perms[2]}, then ${host.entry(0x0000).perms[2]}`
})
answer("migration-resume/target", (host) => {
  lastState(host)
  return peer.result("RESUME", { rcx: LIST })
})

check()
