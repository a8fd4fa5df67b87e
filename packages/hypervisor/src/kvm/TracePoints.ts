import { EXIT } from "@vmpl-lab/sev-es"
import type { HostThread } from "@vmpl-lab/sim"

/** Names of exit reasons as the kernel's SVM_EXIT_REASONS has them. */
const REASON: ReadonlyMap<number, string> = new Map<number, string>([
  [EXIT.INTR, "interrupt"],
  [EXIT.NMI, "nmi"],
  [EXIT.SMI, "smi"],
  [EXIT.INIT, "init"],
  [EXIT.VINTR, "vintr"],
  [EXIT.RDTSC, "rdtsc"],
  [EXIT.RDPMC, "rdpmc"],
  [EXIT.CPUID, "cpuid"],
  [EXIT.INVD, "invd"],
  [EXIT.PAUSE, "pause"],
  [EXIT.HLT, "hlt"],
  [EXIT.IOIO, "io"],
  [EXIT.MSR, "msr"],
  [EXIT.SHUTDOWN, "shutdown"],
  [EXIT.VMRUN, "vmrun"],
  [EXIT.VMMCALL, "hypercall"],
  [EXIT.VMLOAD, "vmload"],
  [EXIT.VMSAVE, "vmsave"],
  [EXIT.RDTSCP, "rdtscp"],
  [EXIT.WBINVD, "wbinvd"],
  [EXIT.MONITOR, "monitor"],
  [EXIT.MWAIT, "mwait"],
  [EXIT.XSETBV, "xsetbv"],
  [EXIT.EFER_WRITE_TRAP, "write_efer_trap"],
  [EXIT.CR0_WRITE_TRAP, "write_cr0_trap"],
  [EXIT.CR4_WRITE_TRAP, "write_cr4_trap"],
  [EXIT.CR8_WRITE_TRAP, "write_cr8_trap"],
  [EXIT.MC, "MC excp"],
  [EXIT.VC, "VC excp"],
  [EXIT.NPF, "npf"],
  [EXIT.VMGEXIT, "vmgexit"],
  [EXIT.INVALID, "invalid_guest_state"]
])

/** What the kernel prints for an exit code; one that it has no name for is printed as a number. */
export const exitReason = (code: number): string => REASON.get(code) ?? `0x${(code >>> 0).toString(16)}`

/** Names of the trace points of this model, as in the kernel's `events/kvm`. */
export const TRACE_POINTS = [
  "kvm_entry",
  "kvm_exit",
  "kvm_vmgexit_enter",
  "kvm_vmgexit_exit",
  "kvm_vmgexit_msr_protocol_enter",
  "kvm_vmgexit_msr_protocol_exit",
  "kvm_cr",
  "kvm_msr",
  "kvm_cpuid",
  "kvm_pio",
  "kvm_mmio",
  "kvm_page_fault",
  "kvm_inj_virq",
  "kvm_inj_exception",
  "kvm_apic_ipi",
  "kvm_apic_accept_irq",
  "kvm_eoi",
  "kvm_hypercall"
] as const
export type TracePoint = (typeof TRACE_POINTS)[number]

/** Receives a trace point at the moment at which it is passed: `thread.time` is the virtual time. */
export type KvmTraceSink = (thread: HostThread, point: TracePoint, text: string) => void

const hex = (value: number): string => (value < 0 ? value + 2 ** 64 : value).toString(16)
const hex64 = (lo: number, hi: number): string =>
  (hi >>> 0).toString(16).padStart(8, "0") + (lo >>> 0).toString(16).padStart(8, "0")
/** `%llx` of a 64-bit value. */
const short64 = (lo: number, hi: number): string => ((BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0)).toString(16)

/**
 * RIP of a vCPU whose registers are encrypted, as KVM's register cache still has it from the reset: what the kernel's
 * trace points print.
 */
const ENCRYPTED_RIP = "0xfff0"

const DELIVERY_MODES = ["Fixed", "LowPrio", "SMI", "Res3", "NMI", "INIT", "SIPI", "ExtINT"]
const SHORTHANDS = ["dst", "self", "all", "all-but-self"]
const EXCEPTIONS: { readonly [vector: number]: string } = {
  1: "#DB",
  6: "#UD",
  8: "#DF",
  13: "#GP",
  14: "#PF",
  18: "#MC"
}

/**
 * The kernel's trace points with the kernel's formats (arch/x86/kvm/trace.h). KVM holds null in place of one when
 * nobody listens.
 */
export class TracePoints {
  readonly #sink: KvmTraceSink

  constructor(sink: KvmTraceSink) {
    this.#sink = sink
  }

  entry(thread: HostThread, vcpu: number): void {
    this.#sink(thread, "kvm_entry", `vcpu ${vcpu}, rip ${ENCRYPTED_RIP}`)
  }

  /** Information words as halves; `intInfo` and `error` are EXITINTINFO. */
  exit(
    thread: HostThread,
    vcpu: number,
    code: number,
    info: readonly [info1Lo: number, info1Hi: number, info2Lo: number, info2Hi: number],
    intInfo: number,
    error: number
  ): void {
    const [info1Lo, info1Hi, info2Lo, info2Hi] = info
    const events = `intr_info 0x${hex(intInfo).padStart(8, "0")} error_code 0x${hex(error).padStart(8, "0")}`
    this.#sink(
      thread,
      "kvm_exit",
      `vcpu ${vcpu} reason ${exitReason(code)} rip ${ENCRYPTED_RIP} ` +
        `info1 0x${hex64(info1Lo, info1Hi)} info2 0x${hex64(info2Lo, info2Hi)} ${events}`
    )
  }

  vmgexit(
    thread: HostThread,
    point: "kvm_vmgexit_enter" | "kvm_vmgexit_exit",
    vcpu: number,
    code: readonly [lo: number, hi: number],
    info1: readonly [lo: number, hi: number],
    info2: readonly [lo: number, hi: number]
  ): void {
    this.#sink(
      thread,
      point,
      `vcpu ${vcpu}, exit_reason ${short64(...code)}, exit_info1 ${short64(...info1)}, exit_info2 ${short64(...info2)}`
    )
  }

  msrProtocolEnter(thread: HostThread, vcpu: number, lo: number, hi: number): void {
    this.#sink(thread, "kvm_vmgexit_msr_protocol_enter", `vcpu ${vcpu}, ghcb_gpa ${hex64(lo, hi)}`)
  }

  msrProtocolExit(thread: HostThread, vcpu: number, lo: number, hi: number, result: number): void {
    this.#sink(thread, "kvm_vmgexit_msr_protocol_exit", `vcpu ${vcpu}, ghcb_gpa ${hex64(lo, hi)}, result ${result}`)
  }

  cr(thread: HostThread, write: boolean, register: number, lo: number, hi: number): void {
    this.#sink(thread, "kvm_cr", `cr_${write ? "write" : "read"} ${hex(register)} = 0x${short64(lo, hi)}`)
  }

  msr(thread: HostThread, write: boolean, msr: number, lo: number, hi: number, exception: boolean): void {
    const text = `msr_${write ? "write" : "read"} ${hex(msr)} = 0x${short64(lo, hi)}${exception ? " (#GP)" : ""}`
    this.#sink(thread, "kvm_msr", text)
  }

  cpuid(
    thread: HostThread,
    leaf: number,
    index: number,
    [eax, ebx, ecx, edx]: readonly [number, number, number, number],
    found: boolean
  ): void {
    const registers = `rax ${hex(eax)} rbx ${hex(ebx)} rcx ${hex(ecx)} rdx ${hex(edx)}`
    const entry = `cpuid entry ${found ? "found" : "not found"}`
    this.#sink(thread, "kvm_cpuid", `func ${hex(leaf)} idx ${hex(index)} ${registers}, ${entry}`)
  }

  pio(thread: HostThread, write: boolean, port: number, size: number, count: number, value: number): void {
    const direction = write ? "write" : "read"
    const more = count > 1 ? "(...)" : ""
    this.#sink(
      thread,
      "kvm_pio",
      `pio_${direction} at 0x${hex(port)} size ${size} count ${count} val 0x${hex(value)} ${more}`
    )
  }

  mmio(
    thread: HostThread,
    type: "read" | "write" | "unsatisfied-read",
    length: number,
    gpa: number,
    value: bigint
  ): void {
    this.#sink(thread, "kvm_mmio", `mmio ${type} len ${length} gpa 0x${hex(gpa)} val 0x${value.toString(16)}`)
  }

  pageFault(thread: HostThread, vcpu: number, gpa: number, errorLo: number, errorHi: number): void {
    const address = hex(gpa).padStart(16, "0")
    this.#sink(
      thread,
      "kvm_page_fault",
      `vcpu ${vcpu} rip ${ENCRYPTED_RIP} address 0x${address} error_code 0x${short64(errorLo, errorHi)}`
    )
  }

  injVirq(thread: HostThread, vector: number, reinjected: boolean): void {
    this.#sink(thread, "kvm_inj_virq", `IRQ 0x${hex(vector)}${reinjected ? " [reinjected]" : ""}`)
  }

  injException(thread: HostThread, vector: number, error: number, reinjected: boolean): void {
    const name = EXCEPTIONS[vector] ?? `0x${hex(vector)}`
    this.#sink(thread, "kvm_inj_exception", `${name} (0x${hex(error)})${reinjected ? " [reinjected]" : ""}`)
  }

  apicIpi(thread: HostThread, icrLo: number, destination: number): void {
    const words = [
      DELIVERY_MODES[(icrLo >>> 8) & 7],
      (icrLo & 0x800) !== 0 ? "logical" : "physical",
      (icrLo & 0x4000) !== 0 ? "assert" : "de-assert",
      (icrLo & 0x8000) !== 0 ? "level" : "edge",
      SHORTHANDS[(icrLo >>> 18) & 3]
    ]
    this.#sink(thread, "kvm_apic_ipi", `dst ${hex(destination)} vec ${icrLo & 0xff} (${words.join("|")})`)
  }

  apicAcceptIrq(thread: HostThread, apicId: number, mode: number, level: boolean, vector: number): void {
    const text = `apicid ${hex(apicId)} vec ${vector} (${DELIVERY_MODES[mode & 7]}|${level ? "level" : "edge"})`
    this.#sink(thread, "kvm_apic_accept_irq", text)
  }

  eoi(thread: HostThread, apicId: number, vector: number): void {
    this.#sink(thread, "kvm_eoi", `apicid ${hex(apicId)} vector ${vector}`)
  }

  hypercall(thread: HostThread, [nr, a0, a1, a2, a3]: readonly [number, number, number, number, number]): void {
    const text = `nr 0x${hex(nr)} a0 0x${hex(a0)} a1 0x${hex(a1)} a2 0x${hex(a2)} a3 0x${hex(a3)}`
    this.#sink(thread, "kvm_hypercall", text)
  }
}
