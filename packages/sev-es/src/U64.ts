/**
 * A 64-bit register as two unsigned 32-bit halves. Protocol words put fields into either half (APIC ID, VMPL, error),
 * so halves decode without bigint and without losing the bits above 2^53.
 */
export interface U64 {
  lo: number
  hi: number
}

const TWO_32 = 0x1_0000_0000

/** An exact integer below 2^53 as halves. */
export const u64 = (value: number): U64 => ({ lo: value >>> 0, hi: Math.floor(value / TWO_32) >>> 0 })

/** The halves as one number; exact below 2^53. */
export const toNumber = (lo: number, hi: number): number => hi * TWO_32 + (lo >>> 0)

/** Lower half of an exact integer. */
export const lo32 = (value: number): number => value >>> 0

/** Upper half of an exact integer below 2^53. */
export const hi32 = (value: number): number => Math.floor(value / TWO_32) >>> 0

/** Writes an exact integer below 2^53 as a little-endian quadword. */
export const setU64 = (view: DataView, offset: number, value: number): void => {
  view.setUint32(offset, value >>> 0, true)
  view.setUint32(offset + 4, Math.floor(value / TWO_32) >>> 0, true)
}

/** Reads a little-endian quadword; exact below 2^53. */
export const getU64 = (view: DataView, offset: number): number =>
  view.getUint32(offset + 4, true) * TWO_32 + view.getUint32(offset, true)
