import { BLOCK, blockOf } from "@vmpl-lab/guest"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import { builtInFirmware, DEFAULT_SCENARIO, Machine, Scenario, svsmLaunch } from "@vmpl-lab/lab"
import { EXIT, PAGE_SIZE, VMCB } from "@vmpl-lab/sev-es"
import type { Profile, TraceKind } from "@vmpl-lab/sim"
import { IMAGE } from "@vmpl-lab/svsm"
import { HOST_ASID } from "@vmpl-lab/vmpl"

/** The first guest of a host gets the first ASID. */
const GUEST_ASID = 1

/** One moment on the way: what happened, on which thread, when, and what memory looked like. */
export interface Hop {
  readonly kind: TraceKind
  readonly value: number | string
  readonly thread: string
  readonly time: number
  readonly core: number
  /** VMCB of the vCPU that runs, as the host reads it. */
  readonly vmcb: DataView | null
  /** The guest's VMSA as its own key shows it, and as the host reads it. */
  readonly guestVmsa: DataView
  readonly guestVmsaAsHost: DataView
  /** The guest's GHCB, shared memory. */
  readonly guestGhcb: DataView
  /** The guest's calling area as its own key shows it. */
  readonly callingArea: DataView
  /** RMP in-use marks: frames of the guest's and of the SVSM's VMSA. */
  readonly guestVmsaInUse: boolean
  readonly svsmVmsaInUse: boolean
}

/** A machine with one vCPU that makes one call, and every hop from the call's first exit on. */
export interface OneSwitch {
  readonly machine: Machine
  readonly hops: ReadonlyArray<Hop>
}

const copy = (view: DataView): DataView => {
  const bytes = Uint8Array.from(new Uint8Array(view.buffer, view.byteOffset, PAGE_SIZE))
  return new DataView(bytes.buffer)
}

/** Runs one QUERY_PROTOCOL call under a strategy and keeps what each hop looked like. */
export const oneSwitch = (strategy: Strategy, profile: Profile): OneSwitch => {
  const scenario = new Scenario({
    ...DEFAULT_SCENARIO,
    vcpus: 1,
    calls: 1,
    boots: 1,
    mix: { QUERY_PROTOCOL: 1, PVALIDATE: 0, REMAP_CA: 0 }
  })
  const svsm = svsmLaunch(builtInFirmware(), 1)
  const hops: Array<Hop> = []
  const block = blockOf({ heapGpa: svsm.heapGpa }, 0)
  const machine: Machine = new Machine({
    strategy,
    scenario,
    profile,
    seed: 1,
    calls: true,
    svsm,
    trace: (thread, kind, value) => {
      // The story begins with the exit that asks for VMPL0, after the guest has come up.
      if (!machine.log.isReady(0)) return
      const { memory, rmp } = machine.hardware
      const frame = (gpa: number): number => machine.vmm.memory.privateFrameIfPresent(gpa / PAGE_SIZE)
      const guestVmsa = frame(svsm.parameters.svsm.gpa + IMAGE.GUEST_VMSA)
      const { active, vcpus } = machine.vmm.groups[0]!
      const { common } = vcpus[0]!.vcpu
      const svsmVmsa = common.vcpuOf(0)!.slot(0)!.vmsaPfn
      // A thread of one level runs that level's vCPU; one that runs them all runs the current one.
      const own = vcpus.filter((vcpu) => vcpu?.thread === thread)
      const running = own.length === 1 && own[0]!.vmpl >= 0 ? own[0]!.vcpu : active!.vcpu.common.current
      const host = (pfn: number): DataView => copy(memory.read(pfn, HOST_ASID))
      hops.push({
        kind,
        value,
        thread: thread.name,
        time: thread.time,
        core: thread.core,
        vmcb: own.length > 0 ? host(running.vmcb / PAGE_SIZE) : null,
        guestVmsa: copy(memory.read(guestVmsa, GUEST_ASID)),
        guestVmsaAsHost: host(guestVmsa),
        guestGhcb: host(machine.vmm.memory.sharedFrame((block + BLOCK.GHCB) / PAGE_SIZE)),
        callingArea: copy(memory.read(frame(block + BLOCK.CALLING_AREA), GUEST_ASID)),
        guestVmsaInUse: rmp.isInUse(guestVmsa),
        svsmVmsaInUse: rmp.isInUse(svsmVmsa)
      })
    }
  })
  while (machine.stepMany(10_000)) {}
  const first = hops.findIndex(({ kind, value }) => kind === "#VMEXIT" && value === EXIT.VMGEXIT)
  return { machine, hops: hops.slice(Math.max(0, first)) }
}

/** A quadword of a page, both halves. */
export const quad = (view: DataView, offset: number): readonly [lo: number, hi: number] => [
  view.getUint32(offset, true),
  view.getUint32(offset + 4, true)
]

/** The VMSA that a VMCB names. */
export const vmsaPa = (vmcb: DataView): number =>
  vmcb.getUint32(VMCB.vmsa_pa + 4, true) * 2 ** 32 + vmcb.getUint32(VMCB.vmsa_pa, true)
