/**
 * One switch, from the guest at VMPL2 to the SVSM at VMPL0 and back, hop by hop, under each strategy.
 *
 * Read along in the code, in this order:
 *  1. packages/guest/src/SvsmCall.ts          the guest fills its calling area and rings
 *  2. packages/guest/src/Ghcb.ts              the bytes of the GHCB page event 0x80000018
 *  3. packages/vmpl/src/Exit.ts               VMGEXIT: registers into the VMSA, little into the VMCB
 *  4. packages/hypervisor/src/kvm/RunLoop.ts  from exit code to handler; VmgexitPage.ts decodes the GHCB
 *  5. packages/hv-strategies/src/             MultiVmplVcpu.ts, UserSpaceSwitch.ts, KernelSwitch.ts or Planes.ts: who runs next
 *  6. packages/vmpl/src/Enter.ts              VMRUN's checks, then load
 *  7. packages/svsm/src/RequestLoop.ts        call pending? serve; protocols/Core.ts answers
 *  then 3 to 6 again, back to VMPL2.
 */
import { readFileSync } from "node:fs"
import { CALLING_AREA, CORE_CALL, PROTOCOL } from "@vmpl-lab/guest"
import { STRATEGIES, type Strategy, strategyName } from "@vmpl-lab/hv-strategies"
import { parseProfile } from "@vmpl-lab/lab"
import { EFER_SVME, EXIT, GHCB, NAE, REPLY, VMCB, VMSA, validByte, validMask } from "@vmpl-lab/sev-es"
import { PRIMITIVES, type Profile } from "@vmpl-lab/sim"
import { describe, expect, it } from "vitest"
import { type Hop, oneSwitch, quad, vmsaPa } from "./OneSwitch.ts"

const profile = ((): Profile => {
  const parsed = parseProfile(
    "epyc-9654p.json",
    readFileSync(new URL("../../profiles/epyc-9654p.json", import.meta.url), "utf8")
  )
  if (parsed._tag === "Failure") throw parsed.failure
  return parsed.success
})()

/** The host's steps between the exit that asks for a level and the first instruction there. */
const HOST_STEPS: { readonly [key: string]: ReadonlyArray<string> } = {
  "multi-vmpl-vcpu": ["kvm_dispatch", "vmcb_swap_fields", "vmsa-swap", "vmrun_sev_snp", "VMRUN", "arrived"],
  "vcpu-per-vmpl/vmm-threads": VMM_THREADS(),
  "vcpu-per-vmpl/vmm-one-thread": ONE_THREAD(),
  "vcpu-per-vmpl/kernel": KERNEL_LOOP(),
  "vm-per-vmpl/vmm-threads": VMM_THREADS(),
  "vm-per-vmpl/vmm-one-thread": ONE_THREAD(),
  "vm-per-vmpl/kernel-link": KERNEL_LOOP(),
  "planes/user-space": ONE_THREAD(),
  "planes/kernel": KERNEL_LOOP()
}

/** One VMCB after the other on one core, with one ASID: VMRUN flushes. */
function ONE_THREAD(): ReadonlyArray<string> {
  return [
    ...["kvm_dispatch", "userspace_exit", "vmm_dispatch", "KVM_EXIT", "userspace_entry"],
    ...["vmrun_sev_snp", "tlb_flush_asid", "VMRUN", "arrived"]
  ]
}

function KERNEL_LOOP(): ReadonlyArray<string> {
  return [
    ...["kvm_dispatch", "vcpu_put", "vcpu_load", "vcpu-switch"],
    ...["vmrun_sev_snp", "tlb_flush_asid", "VMRUN", "arrived"]
  ]
}

function VMM_THREADS(): ReadonlyArray<string> {
  return [
    ...["kvm_dispatch", "userspace_exit", "vmm_dispatch", "KVM_EXIT", "hand-off"],
    // The waker's own end of the hand-off is beside the path: it goes on while the other core wakes up.
    ...["thread_handoff_cross_core", "futex_wake", "futex_wait"],
    ...["userspace_entry", "vmrun_sev_snp", "VMRUN", "arrived"]
  ]
}

const stepOf = ({ kind, value }: Hop): string => (kind === "charge" ? PRIMITIVES[value as number]! : kind)

/** Where the one call's hops begin and end. */
const story = (strategy: Strategy) => {
  const { hops, machine } = oneSwitch(strategy, profile)
  const arrivals = hops.flatMap((hop, i) => (hop.kind === "arrived" ? [i] : []))
  const exits = hops.flatMap((hop, i) => (hop.kind === "#VMEXIT" ? [i] : []))
  return {
    machine,
    hops,
    asked: hops[exits[0]!]!,
    request: hops.slice(exits[0]! + 1, arrivals[0]! + 1),
    arrivedAt0: hops[arrivals[0]!]!,
    answered: hops[exits[1]!]!,
    reply: hops.slice(exits[1]! + 1, arrivals[1]! + 1),
    arrivedAt2: hops[arrivals[1]!]!,
    after: hops[exits[2]!]!
  }
}

describe.each(STRATEGIES.map((strategy) => [strategyName(strategy), strategy] as const))(
  "one switch under %s",
  (key, strategy) => {
    const told = story(strategy)

    it("1. the guest has put its call where the SVSM will look for it", () => {
      expect(told.asked.callingArea.getUint8(CALLING_AREA.call_pending)).toBe(1)
      expect(quad(told.asked.guestVmsa, VMSA.rax)).toEqual([CORE_CALL.QUERY_PROTOCOL, PROTOCOL.CORE])
      expect(quad(told.asked.guestVmsa, VMSA.rcx)).toEqual([1, 0])
    })

    it("2. it has rung with the bytes of the GHCB event 0x80000018 for VMPL0", () => {
      const { guestGhcb } = told.asked
      expect(quad(guestGhcb, GHCB.sw_exit_code)).toEqual([NAE.SNP_RUN_VMPL, 0])
      expect(quad(guestGhcb, GHCB.sw_exit_info_1)).toEqual([0, 0])
      expect(quad(guestGhcb, GHCB.sw_exit_info_2)).toEqual([0, 0])
      for (const field of [GHCB.sw_exit_code, GHCB.sw_exit_info_1, GHCB.sw_exit_info_2]) {
        expect(guestGhcb.getUint8(validByte(field)) & validMask(field)).not.toBe(0)
      }
      expect(guestGhcb.getUint16(GHCB.protocol_version, true)).toBe(2)
      expect(guestGhcb.getUint32(GHCB.ghcb_usage, true)).toBe(0)
    })

    it("3. #VMEXIT shows the host an exit code and the GHCB's address, and of the registers only ciphertext", () => {
      const { vmcb, guestVmsa, guestVmsaAsHost } = told.asked
      expect(quad(vmcb!, VMCB.exit_code)).toEqual([EXIT.VMGEXIT, 0])
      expect(vmcb!.getUint32(VMCB.ghcb_gpa, true) & 0xfff).toBe(0)
      expect(guestVmsa.getUint32(VMSA.guest_exit_code, true)).toBe(EXIT.VMGEXIT)
      expect(new Uint8Array(guestVmsaAsHost.buffer)).not.toEqual(new Uint8Array(guestVmsa.buffer))
      expect(quad(guestVmsaAsHost, VMSA.rax)).not.toEqual(quad(guestVmsa, VMSA.rax))
    })

    it("4. KVM answers in the GHCB and the strategy takes its own steps to the other level", () => {
      expect(told.request.map(stepOf)).toEqual(HOST_STEPS[key])
      const { guestGhcb } = told.arrivedAt0
      expect(quad(guestGhcb, GHCB.sw_exit_info_1)).toEqual([REPLY.NO_ACTION, 0])
      expect(guestGhcb.getUint8(validByte(GHCB.sw_exit_code)) & validMask(GHCB.sw_exit_code)).toBe(0)
    })

    it("5. who runs next is a matter of the strategy: the same thread and VMCB, or the other ones", () => {
      const sameThread = told.asked.thread === told.arrivedAt0.thread
      expect(sameThread).toBe(!key.endsWith("vmm-threads"))
      expect(told.asked.core === told.arrivedAt0.core).toBe(sameThread)
      expect(vmsaPa(told.arrivedAt0.vmcb!)).not.toBe(vmsaPa(told.asked.vmcb!))
    })

    it("6. VMRUN has taken the SVSM's VMSA and left the guest's alone", () => {
      expect(told.arrivedAt0).toMatchObject({ svsmVmsaInUse: true, guestVmsaInUse: false, value: 0 })
      expect(told.asked).toMatchObject({ svsmVmsaInUse: false, guestVmsaInUse: false })
    })

    it("7. the SVSM has served the call: result, cleared call_pending, and a VMSA that may run again", () => {
      const { guestVmsa, callingArea } = told.answered
      expect(quad(guestVmsa, VMSA.rax)).toEqual([0, 0])
      // QUERY_PROTOCOL answers the highest version in the upper half and the lowest in the lower.
      expect(quad(guestVmsa, VMSA.rcx)).toEqual([1, 1])
      expect(callingArea.getUint8(CALLING_AREA.call_pending)).toBe(0)
      expect(guestVmsa.getUint32(VMSA.efer, true) & EFER_SVME).toBe(EFER_SVME)
    })

    it("8. it has asked for VMPL2 with the MSR request 0x016, and the way back takes the same steps", () => {
      const { vmcb } = told.answered
      expect(quad(vmcb!, VMCB.ghcb_gpa)).toEqual([0x016, 2])
      expect(told.reply.map(stepOf)).toEqual(HOST_STEPS[key])
      expect(told.arrivedAt2).toMatchObject({ value: 2, thread: told.asked.thread, core: told.asked.core })
      expect(told.arrivedAt2).toMatchObject({ svsmVmsaInUse: false, guestVmsaInUse: true })
    })

    it("9. the guest goes on where it was, with the SVSM's answer in its registers, and makes no further call", () => {
      expect(quad(told.after.guestVmsa, VMSA.rax)).toEqual([0, 0])
      expect(told.after.value).toBe(EXIT.HLT)
      expect(told.machine.failure()).toBeNull()
      expect(told.machine.log).toMatchObject({ callsMade: 1, finished: 1 })
      expect(told.machine.log.failures.size).toBe(0)
    })

    it("10. the latency that is reported is the time that went by between the exits and the arrivals", () => {
      const { oneWay, roundTrip } = told.machine.meter
      const exitCost = profile.primitives.vmexit_sev_snp.ns
      const there = told.arrivedAt0.time - told.asked.time + exitCost
      const back = told.arrivedAt2.time - told.answered.time + exitCost
      expect(oneWay.ns).toEqual([there, back])
      expect(roundTrip.ns).toEqual([there + back])
    })
  }
)
