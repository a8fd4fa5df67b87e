import { TLB_CONTROL } from "@vmpl-lab/sev-es"

/** Value of the VMCB's TLB_CONTROL. */
export type TlbControl = (typeof TLB_CONTROL)[keyof typeof TLB_CONTROL]

/** svm_cpu_data: how one CPU hands out ASIDs. */
export interface AsidCpu {
  asidGeneration: number
  nextAsid: number
  /** First ASID above those of encrypted guests. */
  readonly minAsid: number
  readonly maxAsid: number
}

/** What KVM keeps of one VMCB of an ordinary guest. */
export interface AsidVcpu {
  /** CPU of the last VMRUN, or -1. */
  cpu: number
  /** Generation of the CPU in which `asid` was handed out; 0 never is one. */
  generation: number
  asid: number
  /** TLB_CONTROL for the next VMRUN, after which KVM clears it. */
  pending: TlbControl
}

export interface AsidGenerationsOptions {
  readonly cores: number
  /** Number of ASIDs of the processor, ASID 0 included. @spec APM2 CPUID 8000_000A EBX */
  readonly asids: number
  /** Highest ASID of encrypted guests, 0 without any. @spec APM2 CPUID 8000_001F ECX */
  readonly maxSevAsid: number
  /** @spec APM2 CPUID 8000_000A EDX "FlushByAsid" */
  readonly flushByAsid: boolean
}

/** A VMCB that has not run yet. */
export const newAsidVcpu = (): AsidVcpu => ({ cpu: -1, generation: 0, asid: 0, pending: TLB_CONTROL.DO_NOTHING })

/**
 * ASIDs of guests without encryption. Every CPU counts through its ASIDs by itself; when they are used up it flushes all
 * of them and begins anew, which is a generation. An ASID is good on the CPU and in the generation that gave it, so a
 * vCPU that comes from elsewhere gets another one and finds none of its old translations.
 * Limitation, as in KVM: the generation is not expected to overflow.
 * @spec Linux arch/x86/kvm/svm/svm.c new_asid, pre_svm_run, svm_flush_tlb_asid
 */
export class AsidGenerations {
  readonly #cpus: ReadonlyArray<AsidCpu>
  readonly #flushByAsid: boolean

  constructor({ cores, asids, maxSevAsid, flushByAsid }: AsidGenerationsOptions) {
    const maxAsid = asids - 1
    const minAsid = maxSevAsid + 1
    if (!Number.isInteger(cores) || cores < 1) throw new RangeError(`cores is ${cores}, expected at least 1`)
    if (!Number.isInteger(minAsid) || !Number.isInteger(maxAsid) || minAsid < 1 || minAsid > maxAsid)
      throw new RangeError(`no ASID is left for ordinary guests: ${minAsid} to ${maxAsid}`)
    this.#flushByAsid = flushByAsid
    // The first VMRUN finds no ASID left: it starts generation 2 and flushes what was there before KVM.
    this.#cpus = Array.from({ length: cores }, () => ({ asidGeneration: 1, nextAsid: maxAsid + 1, minAsid, maxAsid }))
  }

  /** The state of one CPU, for tests and explanations. */
  cpu(core: number): Readonly<AsidCpu> {
    return this.#cpuOf(core)
  }

  /** pre_svm_run: the ASID with which the vCPU runs on this core, and what VMRUN is to flush first. */
  preSvmRun(core: number, vcpu: AsidVcpu): { readonly asid: number; readonly flush: TlbControl } {
    const cpu = this.#cpuOf(core)
    if (vcpu.cpu !== core) {
      vcpu.generation = 0
      vcpu.cpu = core
    }
    if (vcpu.generation !== cpu.asidGeneration) this.#newAsid(cpu, vcpu)
    const flush = vcpu.pending
    vcpu.pending = TLB_CONTROL.DO_NOTHING
    return { asid: vcpu.asid, flush }
  }

  /**
   * svm_flush_tlb_asid: what the vCPU has in the TLB is not to be used any more. Without FlushByAsid it gives up its
   * ASID instead, and the old translations stay behind under a number that nobody uses until all are flushed.
   */
  flushTlb(vcpu: AsidVcpu): void {
    if (this.#flushByAsid) vcpu.pending = TLB_CONTROL.FLUSH_ASID
    else vcpu.generation--
  }

  #newAsid(cpu: AsidCpu, vcpu: AsidVcpu): void {
    if (cpu.nextAsid > cpu.maxAsid) {
      cpu.asidGeneration++
      cpu.nextAsid = cpu.minAsid
      vcpu.pending = TLB_CONTROL.FLUSH_ALL_ASID
    }
    vcpu.generation = cpu.asidGeneration
    vcpu.asid = cpu.nextAsid++
  }

  #cpuOf(core: number): AsidCpu {
    const cpu = this.#cpus[core]
    if (cpu === undefined) throw new RangeError(`core ${core} of ${this.#cpus.length}`)
    return cpu
  }
}
