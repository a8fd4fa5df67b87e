// @ghcb 0x80000013, 0x80000018, 0x8000fffd, 0x80000003
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
import {
  type Operation,
  type Program,
  type RecordedSequence,
  readShared,
  recordedSequence,
  vmgexit,
  writeShared,
  wrmsr
} from "@vmpl-lab/vmpl"
import {
  clearBitmap,
  type EventFields,
  exchange,
  fillPage,
  type Outcome,
  type Reply,
  type ReplyName
} from "./ghcb/Exchange.ts"
import { restorePage, savePage } from "./ghcb/SharedMemory.ts"
import { makeShared, registerGhcb, terminate } from "./MsrProtocol.ts"

/** Valid bits of the three exit fields, all in one byte of the bitmap. */
const EXIT_FIELDS = validMask(GHCB.sw_exit_code) | validMask(GHCB.sw_exit_info_1) | validMask(GHCB.sw_exit_info_2)

export interface GhcbOptions {
  /** GPA of a private page that keeps the GHCB's contents while an NMI or a second #VC uses it. */
  readonly backup?: number
  /** An SNP guest registers its GHCB. */
  readonly registers?: boolean
  /** The negotiated protocol version. */
  readonly version?: number
  /** An SNP guest has the page made shared; an SEV-ES guest just maps it so. */
  readonly makeShared?: boolean
}

/**
 * The GHCB of one VMPL of one vCPU: bytes of a shared page, which the hypervisor may change at any moment. Nothing
 * read from it is believed before it has been checked.
 * @spec GHCB "GHCB layout", "VMGEXIT events"
 */
export class Ghcb {
  readonly gpa: number
  readonly version: number
  /** sw_exit_info_2 of the latest reply to `event`, lower half. */
  info2 = 0
  readonly #options: GhcbOptions
  /** Who is in the middle of an event: nobody, one, or one whom another has interrupted. */
  #uses = 0
  /** The innermost user reads no reply any more: who interrupts it need not save the page. */
  #spare = false

  /** Operations of each event that are always the same. */
  readonly #markValid: Operation
  readonly #readInfo1: Operation
  readonly #readInfo2: Operation
  /** The whole exchange of run VMPL by level: it is made with every call. */
  readonly #runVmpl: Array<RecordedSequence | undefined> = []

  constructor(gpa: number, options: GhcbOptions = {}) {
    this.gpa = gpa
    this.#markValid = writeShared(gpa + validByte(GHCB.sw_exit_code), 1, EXIT_FIELDS)
    this.#readInfo1 = readShared(gpa + GHCB.sw_exit_info_1, 4)
    this.#readInfo2 = readShared(gpa + GHCB.sw_exit_info_2, 4)
    this.version = options.version ?? GHCB_VERSION.MAX
    this.#options = options
  }

  /** Makes the page shared, registers it, and writes version and usage. Ends the guest when the host refuses. */
  *setUp(): Program {
    const { gpa } = this
    if (this.#options.makeShared !== false && !(yield* makeShared(gpa))) yield* terminate(TERMINATE.PSC)
    if (this.#options.registers !== false && !(yield* registerGhcb(gpa))) yield* terminate(TERMINATE.REGISTER_FAILED)
    yield* clearBitmap(gpa)
    yield writeShared(gpa + GHCB.protocol_version, 2, this.version)
    yield writeShared(gpa + GHCB.ghcb_usage, 4, 0)
    yield* this.use()
  }

  /** Points the GHCB MSR at this page. */
  *use(): Program {
    yield wrmsr(MSR_GHCB, lo32(this.gpa), hi32(this.gpa))
  }

  /** One event in full, with what the caller needs of the reply. Raises #GP or #UD where the hypervisor asks for it. */
  request<K extends ReplyName = never>(
    code: number,
    fields: EventFields = {},
    returns: ReadonlyArray<K> = []
  ): Program<Outcome<Reply<K>>> {
    return this.holding(() => this.exchange(code, fields, returns))
  }

  /** One event by who holds the page. */
  exchange<K extends ReplyName = never>(
    code: number,
    fields: EventFields,
    returns: ReadonlyArray<K> = []
  ): Program<Outcome<Reply<K>>> {
    return exchange(this.gpa, this.version, code, fields, returns)
  }

  /**
   * Runs a program that has the page, its shared buffer too, to itself. When it interrupts another user, that one's
   * bytes go to the backup and come back afterwards; with the backup in use as well there is no way on.
   * @spec Linux __sev_get_ghcb, __sev_put_ghcb
   */
  *holding<R>(body: () => Program<R>): Program<R> {
    const spare = this.#spare
    const saves = this.#uses > 0 && !spare
    if (saves && (this.#uses === 2 || this.#options.backup === undefined)) yield* terminate(TERMINATE.GENERAL)
    this.#spare = false
    if (!spare) this.#uses++
    try {
      if (saves) yield* savePage(this.gpa, this.#options.backup!)
      return yield* body()
    } finally {
      if (this.#uses === 2) yield* restorePage(this.gpa, this.#options.backup!)
      if (!spare) this.#uses--
      this.#spare = spare
    }
  }

  /**
   * The event of the run-VMPL path: fills the fields and their valid bits, exits, checks the reply. The GHCB MSR points
   * at the page already, and the hypervisor has cleared the bits of the event before.
   * @param rax supplied when the event needs it, else -1
   * @returns true when the hypervisor reports no error
   */
  event(code: number, info1Lo: number, info1Hi: number, info2: number, rax: number): Program<boolean> {
    return this.#quick(this.#exchangeOf(code, info1Lo, info1Hi, info2, rax))
  }

  *#quick(exchange: RecordedSequence): Program<boolean> {
    if (this.#uses > 0) return yield* this.holding(() => this.#make(exchange))
    this.#uses = 1
    try {
      yield exchange
    } finally {
      this.#uses = 0
    }
    return this.#answered(exchange)
  }

  *#make(exchange: RecordedSequence): Program<boolean> {
    yield exchange
    return this.#answered(exchange)
  }

  #exchangeOf(code: number, info1Lo: number, info1Hi: number, info2: number, rax: number): RecordedSequence {
    const { gpa } = this
    const fields = [
      writeShared(gpa + GHCB.sw_exit_code, 8, code),
      writeShared(gpa + GHCB.sw_exit_info_1, 8, info1Lo, info1Hi),
      writeShared(gpa + GHCB.sw_exit_info_2, 8, lo32(info2), hi32(info2))
    ]
    if (rax >= 0) {
      fields.push(writeShared(gpa + GHCB.rax, 8, lo32(rax), hi32(rax)))
      fields.push(writeShared(gpa + validByte(GHCB.rax), 1, validMask(GHCB.rax)))
    }
    return recordedSequence([...fields, this.#markValid, vmgexit(), this.#readInfo1, this.#readInfo2])
  }

  /** Both information words of the reply are what the exchange read last. */
  #answered({ outcomes }: RecordedSequence): boolean {
    this.info2 = outcomes[outcomes.length - 2]!
    return outcomes[outcomes.length - 4] === REPLY.NO_ACTION
  }

  /** Run VMPL, event 0x80000018. @returns true when the level ran */
  runVmpl(vmpl: number): Program<boolean> {
    // Who interrupts an exchange needs operations of its own.
    if (this.#uses > 0) return this.event(NAE.SNP_RUN_VMPL, vmpl, 0, 0, -1)
    this.#runVmpl[vmpl] ??= this.#exchangeOf(NAE.SNP_RUN_VMPL, vmpl, 0, 0, -1)
    return this.#quick(this.#runVmpl[vmpl])
  }

  /** SNP AP creation, event 0x80000013. `request` is one of AP_CREATION, `sevFeatures` those of the VMSA. */
  apCreation(request: number, vmpl: number, apicId: number, vmsaGpa: number, sevFeatures: number): Program<boolean> {
    return this.event(NAE.SNP_AP_CREATION, apCreationInfo1Lo(request, vmpl), apicId, vmsaGpa, sevFeatures)
  }

  /** Hypervisor features, event 0x8000fffd; 0 when the event is refused, and in version 1, which has none. */
  *hvFeatures(): Program<number> {
    if (this.version < 2) return 0
    return (yield* this.event(NAE.HV_FEATURES, 0, 0, 0, -1)) ? this.info2 : 0
  }

  /**
   * NMI complete, event 0x80000003: the next NMI may come right after the exit, before the page is put back, so that
   * one finds the page spare. There is nothing in the reply that a guest could act upon.
   */
  nmiComplete(): Program {
    return this.holding(() => this.#completeNmi())
  }

  *#completeNmi(): Program {
    yield* fillPage(this.gpa, this.version, NAE.NMI_COMPLETE, {})
    this.#spare = true
    yield vmgexit()
  }
}
