import {
  apCreationInfo1Lo,
  GHCB,
  GHCB_VERSION,
  hi32,
  lo32,
  MSR_GHCB,
  NAE,
  REPLY,
  TERMINATE,
  validByte,
  validMask
} from "@vmpl-lab/sev-es"
import { type Program, readShared, vmgexit, writeShared, wrmsr } from "@vmpl-lab/vmpl"
import { makeShared, registerGhcb, terminate } from "./MsrProtocol.ts"

/** Valid bits of the three exit fields, all in one byte of the bitmap. */
const EXIT_FIELDS = validMask(GHCB.sw_exit_code) | validMask(GHCB.sw_exit_info_1) | validMask(GHCB.sw_exit_info_2)

/**
 * The GHCB of one VMPL of one vCPU: bytes of a shared page, which the hypervisor may change at any moment. Nothing
 * read from it is believed before it has been checked.
 * @spec GHCB "GHCB layout", "VMGEXIT events"
 */
export class Ghcb {
  readonly gpa: number
  /** sw_exit_info_2 of the latest reply, lower half. */
  info2 = 0

  constructor(gpa: number) {
    this.gpa = gpa
  }

  /** Makes the page shared, registers it, and writes version and usage. Ends the guest when the host refuses. */
  *setUp(): Program {
    if (!(yield* makeShared(this.gpa))) yield* terminate(TERMINATE.PSC)
    if (!(yield* registerGhcb(this.gpa))) yield* terminate(TERMINATE.REGISTER_FAILED)
    yield writeShared(this.gpa + GHCB.protocol_version, 2, GHCB_VERSION.MAX)
    yield writeShared(this.gpa + GHCB.ghcb_usage, 4, 0)
    yield* this.use()
  }

  /** Points the GHCB MSR at this page. */
  *use(): Program {
    yield wrmsr(MSR_GHCB, lo32(this.gpa), hi32(this.gpa))
  }

  /**
   * One event: fills the fields and their valid bits, exits, checks the reply.
   * @param rax supplied when the event needs it, else -1
   * @returns true when the hypervisor reports no error
   */
  *event(code: number, info1Lo: number, info1Hi: number, info2: number, rax: number): Program<boolean> {
    const { gpa } = this
    yield writeShared(gpa + GHCB.sw_exit_code, 8, code)
    yield writeShared(gpa + GHCB.sw_exit_info_1, 8, info1Lo, info1Hi)
    yield writeShared(gpa + GHCB.sw_exit_info_2, 8, lo32(info2), hi32(info2))
    if (rax >= 0) {
      yield writeShared(gpa + GHCB.rax, 8, lo32(rax), hi32(rax))
      yield writeShared(gpa + validByte(GHCB.rax), 1, validMask(GHCB.rax))
    }
    yield writeShared(gpa + validByte(GHCB.sw_exit_code), 1, EXIT_FIELDS)
    yield vmgexit()
    const info1 = (yield readShared(gpa + GHCB.sw_exit_info_1, 4)).lo
    this.info2 = (yield readShared(gpa + GHCB.sw_exit_info_2, 4)).lo
    return info1 === REPLY.NO_ACTION
  }

  /** Run VMPL, event 0x80000018. @returns true when the level ran */
  runVmpl(vmpl: number): Program<boolean> {
    return this.event(NAE.SNP_RUN_VMPL, vmpl, 0, 0, -1)
  }

  /** SNP AP creation, event 0x80000013. `request` is one of AP_CREATION, `sevFeatures` those of the VMSA. */
  apCreation(request: number, vmpl: number, apicId: number, vmsaGpa: number, sevFeatures: number): Program<boolean> {
    return this.event(NAE.SNP_AP_CREATION, apCreationInfo1Lo(request, vmpl), apicId, vmsaGpa, sevFeatures)
  }

  /** Hypervisor features, event 0x8000fffd; 0 when the event is refused. */
  *hvFeatures(): Program<number> {
    return (yield* this.event(NAE.HV_FEATURES, 0, 0, 0, -1)) ? this.info2 : 0
  }
}
