import { OP, Operation } from "./Operation.ts"

// Instructions that a hypervisor may intercept. What is intercepted and is no automatic exit is #VC in the guest.

/** IN of 1, 2 or 4 bytes; the value in `lo`. */
export const portIn = (port: number, size: number): Operation => new Operation(OP.IN, port, 0, 0, size, true)

/** OUT of 1, 2 or 4 bytes. */
export const portOut = (port: number, size: number, value: number): Operation =>
  new Operation(OP.OUT, port, value >>> 0, 0, size, true)

/** REP INS: `count` elements from a port to private memory. */
export const portIns = (port: number, size: number, address: number, count: number): Operation =>
  new Operation(OP.INS, address, port, count, size, true)

/** REP OUTS: `count` elements from private memory to a port. */
export const portOuts = (port: number, size: number, address: number, count: number): Operation =>
  new Operation(OP.OUTS, address, port, count, size, true)

/** RDTSC: the counter as halves. */
export const rdtsc = (): Operation => new Operation(OP.RDTSC, 0, 0, 0, 0, true)

/** RDTSCP: the counter as halves, TSC_AUX in `ecx`. */
export const rdtscp = (): Operation => new Operation(OP.RDTSCP, 0, 0, 0, 0, true)

/** RDPMC of the counter in ECX. */
export const rdpmc = (counter: number): Operation => new Operation(OP.RDPMC, counter, 0, 0, 0, true)

export const invd = (): Operation => new Operation(OP.INVD, 0, 0, 0, 0, true)
export const wbinvd = (): Operation => new Operation(OP.WBINVD, 0, 0, 0, 0, true)

/** VMMCALL: number and arguments are in the registers, RAX is the answer. */
export const vmmcall = (): Operation => new Operation(OP.VMMCALL, 0, 0, 0, 0, true)

/** MONITOR of a linear address; ECX and EDX are 0. */
export const monitor = (address: number): Operation => new Operation(OP.MONITOR, address, 0, 0, 0, true)

/** MWAIT with hints EAX and extensions ECX. */
export const mwait = (hints = 0, extensions = 0): Operation => new Operation(OP.MWAIT, 0, hints, extensions, 0, true)

/** MOV from a debug register: 0 to 3, 6 or 7. */
export const readDr = (register: number): Operation => new Operation(OP.READ_DR, register, 0, 0, 8, true)

/** MOV to a debug register. */
export const writeDr = (register: number, lo: number, hi = 0): Operation =>
  new Operation(OP.WRITE_DR, register, lo >>> 0, hi >>> 0, 8, true)

/** MOV from a control register: 0, 3, 4 or 8. */
export const readCr = (register: number): Operation => new Operation(OP.READ_CR, register, 0, 0, 8, true)

/** MOV to a control register: 0, 4 or 8. For CR3 there is `writeCr3`. */
export const writeCr = (register: number, lo: number, hi = 0): Operation =>
  new Operation(OP.WRITE_CR, register, lo >>> 0, hi >>> 0, 8, true)

/** XSETBV of XCR0. */
export const xsetbv = (lo: number): Operation => new Operation(OP.XSETBV, 0, lo >>> 0, 0, 8, true)

/** STI: interrupts are taken after the next instruction. */
export const sti = (): Operation => new Operation(OP.STI, 0, 0, 0, 0, true)
export const cli = (): Operation => new Operation(OP.CLI, 0, 0, 0, 0, true)

/** VMRUN, VMLOAD and VMSAVE by a guest; the address is that in RAX. */
export const guestVmrun = (address: number): Operation => new Operation(OP.VMRUN, address, 0, 0, 0, true)
export const guestVmload = (address: number): Operation => new Operation(OP.VMLOAD, address, 0, 0, 0, true)
export const guestVmsave = (address: number): Operation => new Operation(OP.VMSAVE, address, 0, 0, 0, true)

/**
 * Far jump: CS.base and RIP become these, and what is installed there runs in place of the program. The selector is the
 * base in paragraphs, as in real mode.
 */
export const jmpFar = (codeBase: number, rip: number): Operation => new Operation(OP.JMP_FAR, codeBase, rip, 0, 0, true)
