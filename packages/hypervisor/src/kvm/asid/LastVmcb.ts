import { TLB_CONTROL } from "@vmpl-lab/sev-es"
import type { TlbControl } from "./AsidGenerations.ts"

/**
 * svm_cpu_data.sev_vmcbs: per core, the VMCB that ran last with each ASID of an encrypted guest. All vCPUs and all VMPLs
 * of such a guest share its ASID, so their translations would mix.
 * @spec Linux arch/x86/kvm/svm/sev.c pre_sev_run
 */
export class LastVmcb {
  readonly #last: ReadonlyArray<Map<number, number>>

  constructor(cores: number) {
    this.#last = Array.from({ length: cores }, () => new Map<number, number>())
  }

  /**
   * pre_sev_run: what VMRUN of a VMCB is to flush. The entries of the ASID go when another VMCB of it ran last on this
   * core, or this vCPU ran on another core. With a VMCB per VMPL every switch on one core is such a change.
   * @param lastCore core of the vCPU's last VMRUN, or -1
   */
  preSevRun(core: number, asid: number, vmcb: number, lastCore: number): TlbControl {
    const last = this.#last[core]
    if (last === undefined) throw new RangeError(`core ${core} of ${this.#last.length}`)
    if (last.get(asid) === vmcb && lastCore === core) return TLB_CONTROL.DO_NOTHING
    last.set(asid, vmcb)
    return TLB_CONTROL.FLUSH_ASID
  }

  /** sev_asid_free: the ASID's next guest finds no VMCB of it on any core. */
  forget(asid: number): void {
    for (const last of this.#last) last.delete(asid)
  }
}
