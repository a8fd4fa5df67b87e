/** What guest software can do to the hardware. A program is a generator of these. */
export const OP = {
  READ: 0,
  WRITE: 1,
  XCHG8: 2,
  READ_BYTES: 3,
  WRITE_BYTES: 4,
  ZERO_PAGE: 5,
  READ_REGISTER: 6,
  WRITE_REGISTER: 7,
  PVALIDATE: 8,
  RMPADJUST: 9,
  CPUID: 10,
  RDMSR: 11,
  WRMSR: 12,
  VMGEXIT: 13,
  HLT: 14,
  PAUSE: 15,
  LIDT: 16,
  RMPQUERY: 17,
  READ_SHADOW_STACK: 18,
  WRITE_SHADOW_STACK: 19,
  INVLPGB: 20,
  TLBSYNC: 21,
  INVLPG: 22,
  WRITE_CR3: 23,
  IN: 24,
  OUT: 25,
  INS: 26,
  OUTS: 27,
  RDTSC: 28,
  RDTSCP: 29,
  RDPMC: 30,
  INVD: 31,
  WBINVD: 32,
  VMMCALL: 33,
  MONITOR: 34,
  MWAIT: 35,
  READ_DR: 36,
  WRITE_DR: 37,
  READ_CR: 38,
  WRITE_CR: 39,
  XSETBV: 40,
  STI: 41,
  CLI: 42,
  VMRUN: 43,
  VMLOAD: 44,
  VMSAVE: 45,
  JMP_FAR: 46,
  WORK: 47,
  SEQUENCE: 48,
  OUTSIDE: 49
} as const

/** Second stage of #VC delivery: the handler runs as a program of its own, then the interrupted one goes on. */
export type VcHandler = (errorCode: number, operation: Operation, result: OperationResult) => Program

/** What the interrupt descriptor table of a VMPL leads to. An event without a handler ends in a triple fault. */
export interface Idt {
  readonly vc?: VcHandler
  /** #HV, vector 28. */
  readonly hv?: () => Program
  readonly nmi?: () => Program
  /** External interrupts. The handler begins with RFLAGS.IF clear; its return is an IRET. */
  readonly interrupt?: (vector: number) => Program
  /**
   * Linear address, 8-byte aligned, below which the CPU pushes what it interrupts: a private page. Without one nothing
   * is pushed.
   */
  readonly stack?: number
}

/** One architectural operation. One class for all, so that the hot loop sees a single shape. */
export class Operation {
  readonly op: number
  /**
   * Linear address, which is the guest physical one where the VMSA has paging off; negative ones are of the upper half,
   * in two's complement. For register operations the VMSA offset, for CPUID the leaf, for MSRs the number.
   */
  readonly address: number
  readonly lo: number
  readonly hi: number
  /** Bytes of a READ or WRITE (1, 2, 4, 8); for instructions their ECX or EDX input. */
  readonly size: number
  /** The C-bit of the mapping that the program uses: true is private. With paging on the page tables tell. */
  readonly cbit: boolean
  readonly bytes: Uint8Array | null
  readonly idt: Idt | null

  constructor(
    op: number,
    address: number,
    lo: number,
    hi: number,
    size: number,
    cbit: boolean,
    bytes: Uint8Array | null = null,
    idt: Idt | null = null
  ) {
    this.op = op
    this.address = address
    this.lo = lo
    this.hi = hi
    this.size = size
    this.cbit = cbit
    this.bytes = bytes
    this.idt = idt
  }
}

/**
 * Operations between which the program decides nothing, in their order. The program is resumed after the last one only,
 * which costs the simulator less than one resumption each; the hardware sees the same operations as without. Each is
 * fetched, interrupted, restarted and may fault on its own; an exception drops those after it.
 */
export class Sequence extends Operation {
  readonly operations: ReadonlyArray<Operation>
  /** Where wanted, the outcome of each operation once it has completed: `lo` and `hi` of its result, in turn. */
  readonly outcomes: Float64Array | null

  constructor(operations: ReadonlyArray<Operation>, outcomes: Float64Array | null) {
    super(OP.SEQUENCE, 0, 0, 0, 0, true)
    this.operations = operations
    this.outcomes = outcomes
  }
}

/** A sequence whose outcomes are kept. */
export type RecordedSequence = Sequence & { readonly outcomes: Float64Array }

/**
 * A stretch of the program's own code whose outcome is worked out outside of the simulation: it is complete as soon as
 * there is an answer, and until then the core stands still. It takes no virtual time; who answers says what the program
 * is to charge for it.
 */
export class Outside extends Operation {
  readonly isAnswered: () => boolean

  constructor(isAnswered: () => boolean) {
    super(OP.OUTSIDE, 0, 0, 0, 0, true)
    this.isAnswered = isAnswered
  }
}

/** Where the hardware puts an operation's outcome. One object per execution, overwritten by the next operation. */
export class OperationResult {
  /** Value read, or EAX. */
  lo = 0
  hi = 0
  /** Third and fourth register of CPUID; RCX and RDX of RMPQUERY. */
  ecx = 0
  edx = 0
  /** rFLAGS.CF, where the instruction defines it. */
  carry = false
}

/** Guest software: yields operations, receives their outcome. */
export type Program<R = void> = Generator<Operation, R, OperationResult>

export type ExceptionName = "#GP" | "#UD" | "#PF" | "#DB" | "#DF" | "#MC"

/** An exception other than #VC, raised in the program that caused it. Uncaught, the vCPU shuts down. */
export class GuestException {
  readonly vector: ExceptionName
  /** Of #PF the bits PF; the address is in CR2. */
  readonly errorCode: number

  constructor(vector: ExceptionName, errorCode = 0) {
    this.vector = vector
    this.errorCode = errorCode
  }
}

/** Load of 1, 2, 4 or 8 bytes from private (C=1) memory. */
export const read = (gpa: number, size: number): Operation => new Operation(OP.READ, gpa, 0, 0, size, true)

/** Load from shared (C=0) memory. */
export const readShared = (gpa: number, size: number): Operation => new Operation(OP.READ, gpa, 0, 0, size, false)

/** Store of 1, 2, 4 or 8 bytes to private memory. */
export const write = (gpa: number, size: number, lo: number, hi = 0): Operation =>
  new Operation(OP.WRITE, gpa, lo >>> 0, hi >>> 0, size, true)

/** Store to shared memory. */
export const writeShared = (gpa: number, size: number, lo: number, hi = 0): Operation =>
  new Operation(OP.WRITE, gpa, lo >>> 0, hi >>> 0, size, false)

/** Atomic exchange of one private byte; the old value is the result. */
export const xchg8 = (gpa: number, value: number): Operation => new Operation(OP.XCHG8, gpa, value, 0, 1, true)

/** Copies private memory of one page into `into`. */
export const readBytes = (gpa: number, into: Uint8Array): Operation =>
  new Operation(OP.READ_BYTES, gpa, 0, 0, into.length, true, into)

/** Copies `from` into private memory of one page. */
export const writeBytes = (gpa: number, from: Uint8Array): Operation =>
  new Operation(OP.WRITE_BYTES, gpa, 0, 0, from.length, true, from)

/** Copies `from` into shared memory of one page. */
export const writeBytesShared = (gpa: number, from: Uint8Array): Operation =>
  new Operation(OP.WRITE_BYTES, gpa, 0, 0, from.length, false, from)

/** Clears a private 4 KiB page. */
export const zeroPage = (gpa: number): Operation => new Operation(OP.ZERO_PAGE, gpa, 0, 0, 4096, true)

/** Clears a private 2 MiB region, as one string store that is restarted where it faults. */
export const zeroRegion = (gpa: number): Operation => new Operation(OP.ZERO_PAGE, gpa, 0, 0, 0x20_0000, true)

/** Reads one of the own registers; `register` is its VMSA offset. */
export const readRegister = (register: number): Operation => new Operation(OP.READ_REGISTER, register, 0, 0, 8, true)

/** Writes one of the own general registers; `register` is its VMSA offset. */
export const writeRegister = (register: number, lo: number, hi = 0): Operation =>
  new Operation(OP.WRITE_REGISTER, register, lo >>> 0, hi >>> 0, 8, true)

/** PVALIDATE: ECX[0] is the size, 0 for 4 KiB and 1 for 2 MiB. EAX in `lo`, CF in `carry`. @spec APM3 PVALIDATE */
export const pvalidate = (gpa: number, validate: boolean, size: 0 | 1 = 0): Operation =>
  new Operation(OP.PVALIDATE, gpa, validate ? 1 : 0, size, 0, true)

/**
 * RMPADJUST: RDX = target VMPL [7:0], mask [15:8], VMSA bit 16; RCX[0] is the size as for PVALIDATE. EAX in `lo`.
 * @spec APM3 RMPADJUST
 */
export const rmpadjust = (gpa: number, targetVmpl: number, mask: number, vmsa: boolean, size: 0 | 1 = 0): Operation =>
  new Operation(OP.RMPADJUST, gpa, (targetVmpl & 0xff) | ((mask & 0xff) << 8) | (vmsa ? 0x1_0000 : 0), size, 0, true)

/** RMPQUERY: EAX in `lo`; on success RDX in `edx`, with mask [15:8] and VMSA bit 16, and the size of the page in `ecx`. */
export const rmpquery = (gpa: number, targetVmpl: number): Operation =>
  new Operation(OP.RMPQUERY, gpa, targetVmpl & 0xff, 0, 0, true)

/** Supervisor shadow-stack load of 8 bytes. */
export const readShadowStack = (address: number): Operation =>
  new Operation(OP.READ_SHADOW_STACK, address, 0, 0, 8, true)

/** Supervisor shadow-stack store of 8 bytes. */
export const writeShadowStack = (address: number, lo: number, hi = 0): Operation =>
  new Operation(OP.WRITE_SHADOW_STACK, address, lo >>> 0, hi >>> 0, 8, true)

/** INVLPG: drops what this core's TLB has of a page for this VMSA. */
export const invlpg = (address: number): Operation => new Operation(OP.INVLPG, address, 0, 0, 0, true)

/** INVLPGB of all entries of the own ASID, the only one that a guest can name: on other cores done by TLBSYNC. */
export const invlpgb = (): Operation => new Operation(OP.INVLPGB, 0, 0, 0, 0, true)

/** TLBSYNC: waits until all cores have done what this one's INVLPGBs ask. */
export const tlbsync = (): Operation => new Operation(OP.TLBSYNC, 0, 0, 0, 0, true)

/** MOV to CR3: other page tables; drops what this core's TLB has for this VMSA. */
export const writeCr3 = (address: number): Operation => new Operation(OP.WRITE_CR3, address, 0, 0, 8, true)

/** CPUID: always intercepted for an SNP guest, hence #VC 0x72. EAX in `lo`, EBX in `hi`. */
export const cpuid = (leaf: number, subleaf = 0): Operation => new Operation(OP.CPUID, leaf, subleaf, 0, 0, true)

/** RDMSR. What the hypervisor intercepts is #VC 0x7c. */
export const rdmsr = (msr: number): Operation => new Operation(OP.RDMSR, msr, 0, 0, 8, true)

/** WRMSR. What the hypervisor intercepts is #VC 0x7c. */
export const wrmsr = (msr: number, lo: number, hi = 0): Operation =>
  new Operation(OP.WRMSR, msr, lo >>> 0, hi >>> 0, 8, true)

/** VMGEXIT, REP VMMCALL: always an automatic exit (0x403). */
export const vmgexit = (): Operation => VMGEXIT
/** HLT: an automatic exit (0x78). */
export const hlt = (): Operation => HLT
/** At least one operation, none of them a sequence. The program gets the result of the last one. */
export const sequence = (operations: ReadonlyArray<Operation>): Sequence => new Sequence(operations, null)
/** A sequence that keeps all outcomes. It may be yielded again, which overwrites them: not by two programs at once. */
export const recordedSequence = (operations: ReadonlyArray<Operation>): RecordedSequence =>
  new Sequence(operations, new Float64Array(2 * operations.length)) as RecordedSequence
/** PAUSE in a spin loop, `times` in a row: a loop that backs off looks less often. */
export const pause = (times = 1): Operation => (times === 1 ? PAUSE : new Operation(OP.PAUSE, 0, 0, 0, times, true))
/** Loads the interrupt descriptor table of this VMPL; with a handler alone that of #VC. */
export const lidt = (idt: Idt | VcHandler): Operation =>
  new Operation(OP.LIDT, 0, 0, 0, 0, true, null, typeof idt === "function" ? { vc: idt } : idt)

/**
 * Any stretch of the guest's own instructions that takes `ns` of its core's time (from 1 on) and touches nothing that is
 * modelled. It can be interrupted anywhere, and then goes on with what is left.
 */
export const work = (ns: number): Operation => new Operation(OP.WORK, 0, ns, 0, 0, true)

const VMGEXIT = new Operation(OP.VMGEXIT, 0, 0, 0, 0, true)
const HLT = new Operation(OP.HLT, 0, 0, 0, 0, true)
const PAUSE = new Operation(OP.PAUSE, 0, 0, 0, 1, true)
