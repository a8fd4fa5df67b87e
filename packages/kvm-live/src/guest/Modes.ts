import { REGS, SEGMENT, SREGS } from "../kvm/Abi.ts"
import type { KvmVcpu } from "../kvm/KvmVcpu.ts"
import type { Mapping } from "../os/Os.ts"

/** Guest memory of every machine here: 2 MiB from address 0. */
export const GUEST = {
  BYTES: 0x20_0000,
  HANDLER: 0x800,
  PML4: 0x1000,
  PDPT: 0x2000,
  PD: 0x3000,
  CALLING_AREA: 0x4000,
  /** Programs, one page each. */
  CODE: 0x8000,
  OTHER_CODE: 0x9000
} as const

export type Mode = "real" | "long"

const PAGE_PRESENT_WRITE_USER = 7
const PAGE_SIZE_BIT = 0x80
/** The vector that ends a halt; its real-mode table entry is four bytes. */
export const WAKE_VECTOR = 0x41
const IVT_ENTRY = 4
const CODE_SELECTOR = 8
const DATA_SELECTOR = 16
const CODE_TYPE = 11
const DATA_TYPE = 3
/** PG, AM, WP, NE, ET, MP, PE. */
const CR0_LONG = 0x8005_0033
/** PAE, OSFXSR, OSXMMEXCPT. */
const CR4_LONG = 0x620
/** LMA, LME. */
const EFER_LONG = 0x500
const RFLAGS_RESERVED = 2

/** Identity-mapped page tables for long mode and the wake vector of real mode. */
export const prepareMemory = (memory: Mapping): void => {
  const { view } = memory
  view.setUint32(IVT_ENTRY * WAKE_VECTOR, GUEST.HANDLER, true)
  view.setBigUint64(GUEST.PML4, BigInt(GUEST.PDPT | PAGE_PRESENT_WRITE_USER), true)
  view.setBigUint64(GUEST.PDPT, BigInt(GUEST.PD | PAGE_PRESENT_WRITE_USER), true)
  view.setBigUint64(GUEST.PD, BigInt(PAGE_PRESENT_WRITE_USER | PAGE_SIZE_BIT), true)
}

const setSegment = (view: DataView, at: number, selector: number, type: number, long: boolean): void => {
  view.setBigUint64(at + SEGMENT.base, 0n, true)
  view.setUint32(at + SEGMENT.limit, 0xffff_ffff, true)
  view.setUint16(at + SEGMENT.selector, selector, true)
  view.setUint8(at + SEGMENT.type, type)
  for (const field of [SEGMENT.present, SEGMENT.s, SEGMENT.g]) view.setUint8(at + field, 1)
  view.setUint8(at + SEGMENT.dpl, 0)
  view.setUint8(at + SEGMENT.l, long ? 1 : 0)
  view.setUint8(at + SEGMENT.db, long ? 0 : 1)
}

/**
 * Brings a fresh vCPU into a mode, with its first instruction and the registers that programs here use.
 * @throws LiveFailed naming KVM_SET_SREGS where KVM refuses the mode
 */
export const enterMode = (vcpu: KvmVcpu, mode: Mode, start: Readonly<Start>): void => {
  const sregs = new Uint8Array(SREGS.BYTES)
  vcpu.registers("GET_SREGS", sregs)
  const view = new DataView(sregs.buffer)
  if (mode === "real") {
    view.setBigUint64(SREGS.cs + SEGMENT.base, 0n, true)
    view.setUint16(SREGS.cs + SEGMENT.selector, 0, true)
  } else {
    setSegment(view, SREGS.cs, CODE_SELECTOR, CODE_TYPE, true)
    for (const segment of [SREGS.ds, SREGS.es, SREGS.fs, SREGS.gs, SREGS.ss]) {
      setSegment(view, segment, DATA_SELECTOR, DATA_TYPE, false)
    }
    view.setBigUint64(SREGS.cr0, BigInt(CR0_LONG), true)
    view.setBigUint64(SREGS.cr3, BigInt(GUEST.PML4), true)
    view.setBigUint64(SREGS.cr4, BigInt(CR4_LONG), true)
    view.setBigUint64(SREGS.efer, BigInt(EFER_LONG), true)
  }
  vcpu.registers("SET_SREGS", sregs)
  vcpu.registers("SET_REGS", registers(start))
}

/** Where a program starts and what it finds in registers. */
export interface Start {
  readonly rip: number
  readonly rbx?: number
  readonly rsi?: number
  readonly rdi?: number
}

/** struct kvm_regs of a start. */
export const registers = ({ rip, rbx = 0, rsi = 0, rdi = 0 }: Readonly<Start>): Uint8Array => {
  const regs = new Uint8Array(REGS.BYTES)
  const view = new DataView(regs.buffer)
  view.setBigUint64(REGS.rip, BigInt(rip), true)
  view.setBigUint64(REGS.rbx, BigInt(rbx), true)
  view.setBigUint64(REGS.rsi, BigInt(rsi), true)
  view.setBigUint64(REGS.rdi, BigInt(rdi), true)
  view.setBigUint64(REGS.rsp, BigInt(GUEST.CODE), true)
  view.setBigUint64(REGS.rflags, BigInt(RFLAGS_RESERVED), true)
  return regs
}
