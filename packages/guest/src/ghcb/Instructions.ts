// @ghcb 0x27, 0x37, 0x6e, 0x6f, 0x72, 0x76, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x8b
import { EXIT, type U64, u64 } from "@vmpl-lab/sev-es"
import type { Program } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import type { Outcome } from "./Exchange.ts"

// Events that stand for an intercepted instruction. Where the registers of the answer have 32 bits the rest is dropped.
// @spec GHCB "VMGEXIT events"

/** The four registers of CPUID. */
export interface CpuidResult {
  readonly eax: number
  readonly ebx: number
  readonly ecx: number
  readonly edx: number
}

const CPUID_XSTATE = 0xd

/** CPUID, event 0x72. @param xcr0 goes along with leaf 0xd, whose sizes hang on it */
export function* ghcbCpuid(ghcb: Ghcb, leaf: number, subleaf: number, xcr0: U64): Program<Outcome<CpuidResult>> {
  const registers = { rax: u64(leaf), rcx: u64(subleaf) }
  const fields = leaf === CPUID_XSTATE ? { ...registers, xcr0 } : registers
  const reply = yield* ghcb.request(EXIT.CPUID, fields, ["rax", "rbx", "rcx", "rdx"])
  if (!reply.ok) return reply
  const { rax, rbx, rcx, rdx } = reply.value
  return { ok: true, value: { eax: rax.lo, ebx: rbx.lo, ecx: rcx.lo, edx: rdx.lo } }
}

/** EDX:EAX as one value. */
const edxEax = (reply: Outcome<{ readonly rax: U64; readonly rdx: U64 }>): Outcome<U64> =>
  reply.ok ? { ok: true, value: { lo: reply.value.rax.lo, hi: reply.value.rdx.lo } } : reply

const done = (reply: Outcome<unknown>): Outcome<null> => (reply.ok ? { ok: true, value: null } : reply)

const MSR_WRITE: U64 = { lo: 1, hi: 0 }

/** RDMSR, event 0x7c with info1 = 0. */
export function* ghcbRdmsr(ghcb: Ghcb, msr: number): Program<Outcome<U64>> {
  return edxEax(yield* ghcb.request(EXIT.MSR, { rcx: u64(msr) }, ["rax", "rdx"]))
}

/** WRMSR, event 0x7c with info1 = 1. */
export function* ghcbWrmsr(ghcb: Ghcb, msr: number, value: U64): Program<Outcome<null>> {
  const fields = { info1: MSR_WRITE, rcx: u64(msr), rax: u64(value.lo), rdx: u64(value.hi) }
  return done(yield* ghcb.request(EXIT.MSR, fields))
}

/** RDTSC, event 0x6e. */
export function* ghcbRdtsc(ghcb: Ghcb): Program<Outcome<U64>> {
  return edxEax(yield* ghcb.request(EXIT.RDTSC, {}, ["rax", "rdx"]))
}

/** RDTSCP, event 0x87: the counter and TSC_AUX. */
export function* ghcbRdtscp(ghcb: Ghcb): Program<Outcome<{ readonly tsc: U64; readonly aux: number }>> {
  const reply = yield* ghcb.request(EXIT.RDTSCP, {}, ["rax", "rdx", "rcx"])
  if (!reply.ok) return reply
  const { rax, rdx, rcx } = reply.value
  return { ok: true, value: { tsc: { lo: rax.lo, hi: rdx.lo }, aux: rcx.lo } }
}

/** RDPMC, event 0x6f. */
export function* ghcbRdpmc(ghcb: Ghcb, counter: number): Program<Outcome<U64>> {
  return edxEax(yield* ghcb.request(EXIT.RDPMC, { rcx: u64(counter) }, ["rax", "rdx"]))
}

/** INVD, event 0x76. */
export function* ghcbInvd(ghcb: Ghcb): Program<Outcome<null>> {
  return done(yield* ghcb.request(EXIT.INVD))
}

/** WBINVD, event 0x89. */
export function* ghcbWbinvd(ghcb: Ghcb): Program<Outcome<null>> {
  return done(yield* ghcb.request(EXIT.WBINVD))
}

/** What a hypercall shows the hypervisor: RAX, CPL and the registers that KVM's ABI uses. */
export interface HypercallRegisters {
  readonly rax: U64
  readonly cpl: number
  readonly rbx?: U64
  readonly rcx?: U64
  readonly rdx?: U64
  readonly rsi?: U64
}

/** VMMCALL, event 0x81. The answer is RAX. */
export function* ghcbVmmcall(ghcb: Ghcb, registers: HypercallRegisters): Program<Outcome<U64>> {
  const reply = yield* ghcb.request(EXIT.VMMCALL, { ...registers, cpl: u64(registers.cpl) }, ["rax"])
  return reply.ok ? { ok: true, value: reply.value.rax } : reply
}

/** MONITOR, event 0x8a: address, extensions, hints. */
export function* ghcbMonitor(ghcb: Ghcb, address: U64, extensions = 0, hints = 0): Program<Outcome<null>> {
  return done(yield* ghcb.request(EXIT.MONITOR, { rax: address, rcx: u64(extensions), rdx: u64(hints) }))
}

/** MWAIT, event 0x8b. */
export function* ghcbMwait(ghcb: Ghcb, hints: number, extensions: number): Program<Outcome<null>> {
  return done(yield* ghcb.request(EXIT.MWAIT, { rax: u64(hints), rcx: u64(extensions) }))
}

/** DR7 read, event 0x27. */
export function* ghcbReadDr7(ghcb: Ghcb): Program<Outcome<U64>> {
  const reply = yield* ghcb.request(EXIT.READ_DR7, {}, ["rax"])
  return reply.ok ? { ok: true, value: reply.value.rax } : reply
}

/** DR7 write, event 0x37. */
export function* ghcbWriteDr7(ghcb: Ghcb, value: U64): Program<Outcome<null>> {
  return done(yield* ghcb.request(EXIT.WRITE_DR7, { rax: value }))
}
