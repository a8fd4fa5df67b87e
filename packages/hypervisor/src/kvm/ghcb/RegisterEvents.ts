// @ghcb 0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b
import { EXIT, REASON } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"
import { hostTsc } from "@vmpl-lab/vmpl"
import { cpuidLeaf } from "../CpuidTable.ts"
import { readMsr, writeMsr } from "../MsrEmulation.ts"
import type { Vcpu } from "../Vcpu.ts"
import type { GhcbEvent } from "./GhcbEvent.ts"
import type { GhcbExit } from "./GhcbExit.ts"
import { done, raiseGp, refuse } from "./Reply.ts"

/** CPUID leaf whose answer depends on XCR0. */
const LEAF_XSTATE = 0xd

const cpuid = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const [leaf] = exit.register("rax")
  const [index] = exit.register("rcx")
  if (leaf === LEAF_XSTATE && !exit.isValid(XCR0)) return refuse(vcpu, exit, REASON.MISSING_INPUT)
  const found = cpuidLeaf(leaf, index, vcpu.apicId, exit.register("xcr0")[0])
  const registers = found ?? [0, 0, 0, 0]
  vcpu.vm.kvm.trace?.cpuid(thread, leaf, index, registers, found !== null)
  exit.put("rax", registers[0])
  exit.put("rbx", registers[1])
  exit.put("rcx", registers[2])
  exit.put("rdx", registers[3])
  return done(vcpu, exit)
}

const XCR0 = 0x3e8

const msr = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const { trace } = vcpu.vm.kvm
  const [number] = exit.register("rcx")
  if (exit.info1 === 0) {
    const value = readMsr(vcpu, thread, number)
    trace?.msr(thread, false, number, value?.lo ?? 0, value?.hi ?? 0, value === null)
    if (value === null) return raiseGp(vcpu, exit)
    exit.put("rax", value.lo)
    exit.put("rdx", value.hi)
    return done(vcpu, exit)
  }
  const [lo] = exit.register("rax")
  const [hi] = exit.register("rdx")
  const written = writeMsr(vcpu, number, lo, hi)
  trace?.msr(thread, true, number, lo, hi, !written)
  return written ? done(vcpu, exit) : raiseGp(vcpu, exit)
}

const tsc = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const value = hostTsc(thread.time)
  exit.put("rax", value % 0x1_0000_0000)
  exit.put("rdx", Math.floor(value / 0x1_0000_0000))
  // TSC_AUX of an encrypted guest is not the host's to know: KVM has what it would offer itself.
  if (exit.code === EXIT.RDTSCP) exit.put("rcx", 0)
  return done(vcpu, exit)
}

/** There are no performance counters: kvm_pmu_rdpmc fails. */
const rdpmc = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => raiseGp(vcpu, exit)

/** DR7 of an encrypted guest is its own: KVM keeps what it was told last, and debugs nothing with it. */
const readDr7 = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  exit.put("rax", vcpu.dr7)
  return done(vcpu, exit)
}

const writeDr7 = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => {
  const [lo, hi] = exit.register("rax")
  if (hi !== 0) return raiseGp(vcpu, exit)
  vcpu.dr7 = lo
  return done(vcpu, exit)
}

/** KVM_HC_VAPIC_POLL_IRQ, the hypercall that does nothing; KVM knows no other of a guest like this. */
const HC_VAPIC_POLL_IRQ = 1
const ENOSYS = -1000
const EPERM = -1

const vmmcall = (vcpu: Vcpu, thread: HostThread, exit: GhcbExit): number => {
  const number = exit.value("rax")
  const [a0, a1, a2, a3] = (["rbx", "rcx", "rdx", "rsi"] as const).map((name) => exit.value(name)) as [
    number,
    number,
    number,
    number
  ]
  vcpu.vm.kvm.trace?.hypercall(thread, [number, a0, a1, a2, a3])
  const result = exit.register("cpl")[0] !== 0 ? EPERM : number === HC_VAPIC_POLL_IRQ ? 0 : ENOSYS
  exit.put("rax", result >>> 0, result < 0 ? 0xffff_ffff : 0)
  return done(vcpu, exit)
}

/** Caches are coherent, and a guest that monitors nothing is woken at once. */
const nothing = (vcpu: Vcpu, _thread: HostThread, exit: GhcbExit): number => done(vcpu, exit)

export const REGISTER_EVENTS: ReadonlyArray<GhcbEvent> = [
  { code: EXIT.READ_DR7, name: "DR7 read", needs: [], handle: readDr7 },
  { code: EXIT.WRITE_DR7, name: "DR7 write", needs: ["rax"], handle: writeDr7 },
  { code: EXIT.RDTSC, name: "RDTSC", needs: [], handle: tsc },
  { code: EXIT.RDPMC, name: "RDPMC", needs: ["rcx"], handle: rdpmc },
  { code: EXIT.CPUID, name: "CPUID", needs: ["rax", "rcx"], handle: cpuid },
  { code: EXIT.INVD, name: "INVD", needs: [], handle: nothing },
  {
    code: EXIT.MSR,
    name: "MSR",
    needs: ["rcx"],
    needsAlso: (exit) => (exit.info1 === 0 ? [] : ["rax", "rdx"]),
    handle: msr
  },
  { code: EXIT.VMMCALL, name: "VMMCALL", needs: ["rax", "cpl"], handle: vmmcall },
  { code: EXIT.RDTSCP, name: "RDTSCP", needs: [], handle: tsc },
  { code: EXIT.WBINVD, name: "WBINVD", needs: [], handle: nothing },
  { code: EXIT.MONITOR, name: "MONITOR", needs: ["rax", "rcx", "rdx"], handle: nothing },
  { code: EXIT.MWAIT, name: "MWAIT", needs: ["rax", "rcx"], handle: nothing }
]
