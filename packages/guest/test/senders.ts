import type { Program } from "@vmpl-lab/vmpl"
import type { Ghcb, Outcome } from "../src/index.ts"
import * as guest from "../src/index.ts"
import { type FieldName, GHCB_GPA, type Half } from "./GhcbPage.ts"

/** One sender of the page protocol: what it has to put into the page, and what an obedient hypervisor answers. */
export interface Sender {
  readonly name: string
  readonly send: (ghcb: Ghcb) => Program<Outcome<unknown>>
  readonly code: number
  /** Fields beyond the exit code, with info1 and info2 where they are not zero. */
  readonly supplies: { readonly [name in FieldName]?: Half }
  readonly answers: { readonly [name in FieldName]?: Half }
  readonly value: unknown
}

const BUFFER: Half = [GHCB_GPA + 0x800, 0]
const ONES: Half = [0xffff_ffff, 0xffff_ffff]
const q = (lo: number, hi = 0): Half => [lo, hi]
const u = (lo: number, hi = 0) => ({ lo, hi })
const A = q(0x1111_1111, 0x2222_2222)
const B = q(0x3333_3333, 0x4444_4444)
const C = q(0x5555_5555, 0x6666_6666)
const D = q(0x7777_7777, 0x8888_8888)

const sender = (
  name: string,
  code: number,
  send: Sender["send"],
  supplies: Sender["supplies"] = {},
  answers: Sender["answers"] = {},
  value: unknown = null
): Sender => ({ name, code, send, supplies, answers, value })

const INSTRUCTIONS: ReadonlyArray<Sender> = [
  sender("DR7 read", 0x27, (g) => guest.ghcbReadDr7(g), {}, { rax: A }, u(...A)),
  sender("DR7 write", 0x37, (g) => guest.ghcbWriteDr7(g, u(0x455)), { rax: q(0x455) }),
  sender("RDTSC", 0x6e, (g) => guest.ghcbRdtsc(g), {}, { rax: A, rdx: B }, u(A[0], B[0])),
  sender("RDPMC", 0x6f, (g) => guest.ghcbRdpmc(g, 3), { rcx: q(3) }, { rax: A, rdx: B }, u(A[0], B[0])),
  sender(
    "CPUID",
    0x72,
    (g) => guest.ghcbCpuid(g, 0x8000_001f, 2, u(7)),
    { rax: q(0x8000_001f), rcx: q(2) },
    { rax: A, rbx: B, rcx: C, rdx: D },
    { eax: A[0], ebx: B[0], ecx: C[0], edx: D[0] }
  ),
  sender(
    "CPUID of leaf 0xd",
    0x72,
    (g) => guest.ghcbCpuid(g, 0xd, 1, u(7, 1)),
    { rax: q(0xd), rcx: q(1), xcr0: q(7, 1) },
    { rax: A, rbx: B, rcx: C, rdx: D },
    { eax: A[0], ebx: B[0], ecx: C[0], edx: D[0] }
  ),
  sender("INVD", 0x76, (g) => guest.ghcbInvd(g)),
  sender(
    "RDMSR",
    0x7c,
    (g) => guest.ghcbRdmsr(g, 0xc000_0103),
    { rcx: q(0xc000_0103) },
    { rax: A, rdx: B },
    u(A[0], B[0])
  ),
  sender("WRMSR", 0x7c, (g) => guest.ghcbWrmsr(g, 0x830, u(0x4500, 9)), {
    sw_exit_info_1: q(1),
    rcx: q(0x830),
    rax: q(0x4500),
    rdx: q(9)
  }),
  sender(
    "VMMCALL",
    0x81,
    (g) => guest.ghcbVmmcall(g, { rax: u(...A), cpl: 3, rbx: u(...B), rcx: u(...C), rdx: u(...D), rsi: u(5) }),
    { rax: A, cpl: q(3), rbx: B, rcx: C, rdx: D, rsi: q(5) },
    { rax: B },
    u(...B)
  ),
  sender(
    "VMMCALL without arguments",
    0x81,
    (g) => guest.ghcbVmmcall(g, { rax: u(...A), cpl: 0 }),
    { rax: A, cpl: q(0) },
    { rax: B },
    u(...B)
  ),
  sender("RDTSCP", 0x87, (g) => guest.ghcbRdtscp(g), {}, { rax: A, rdx: B, rcx: C }, { tsc: u(A[0], B[0]), aux: C[0] }),
  sender("WBINVD", 0x89, (g) => guest.ghcbWbinvd(g)),
  sender("MONITOR", 0x8a, (g) => guest.ghcbMonitor(g, u(...A), 1, 2), { rax: A, rcx: q(1), rdx: q(2) }),
  sender("MWAIT", 0x8b, (g) => guest.ghcbMwait(g, 0x10, 1), { rax: q(0x10), rcx: q(1) })
]

const DEVICES: ReadonlyArray<Sender> = [
  sender("IN of a byte", 0x7b, (g) => guest.ghcbIn(g, 0x3f8, 1), { sw_exit_info_1: q(0x03f8_0211) }, { rax: A }, 0x11),
  sender(
    "IN of a word",
    0x7b,
    (g) => guest.ghcbIn(g, 0x3f8, 2),
    { sw_exit_info_1: q(0x03f8_0221) },
    { rax: A },
    0x1111
  ),
  sender("IN of 4 bytes", 0x7b, (g) => guest.ghcbIn(g, 0xcfc, 4), { sw_exit_info_1: q(0x0cfc_0241) }, { rax: D }, D[0]),
  sender("OUT of a byte", 0x7b, (g) => guest.ghcbOut(g, 0x80, 1, 0xdead_beef), {
    sw_exit_info_1: q(0x0080_0210),
    rax: q(0xef)
  }),
  sender("OUT of 4 bytes", 0x7b, (g) => guest.ghcbOut(g, 0xcf8, 4, 0xdead_beef), {
    sw_exit_info_1: q(0x0cf8_0240),
    rax: q(0xdead_beef)
  }),
  sender(
    "REP INS",
    0x7b,
    (g) => guest.ghcbStringIo(g, true, { port: 0x1f0, size: 2, count: 5, address: 0x5000, cbit: true }),
    { sw_exit_info_1: q(0x01f0_022d), sw_exit_info_2: q(5), sw_scratch: BUFFER }
  ),
  sender(
    "REP OUTS",
    0x7b,
    (g) => guest.ghcbStringIo(g, false, { port: 0x1f0, size: 4, count: 3, address: 0x5000, cbit: true }),
    { sw_exit_info_1: q(0x01f0_0e4c), sw_exit_info_2: q(3), sw_scratch: BUFFER }
  ),
  sender(
    "MMIO read",
    0x8000_0001,
    (g) => guest.mmioRead(g, 0x1_fec0_0010, 4),
    {
      sw_exit_info_1: q(0xfec0_0010, 1),
      sw_exit_info_2: q(4),
      sw_scratch: BUFFER
    },
    {},
    u(0)
  ),
  sender("MMIO write", 0x8000_0002, (g) => guest.mmioWrite(g, 0xfec0_0010, 8, u(...A)), {
    sw_exit_info_1: q(0xfec0_0010),
    sw_exit_info_2: q(8),
    sw_scratch: BUFFER
  })
]

const MACHINE: ReadonlyArray<Sender> = [
  sender("AP reset hold", 0x8000_0004, (g) => guest.apResetHold(g), {}, { sw_exit_info_2: q(1) }),
  sender("AP jump table set", 0x8000_0005, (g) => guest.setApJumpTable(g, 0x9_f000), { sw_exit_info_2: q(0x9_f000) }),
  sender(
    "AP jump table get",
    0x8000_0005,
    (g) => guest.getApJumpTable(g),
    { sw_exit_info_1: q(1) },
    { sw_exit_info_2: q(0x9_f000) },
    0x9_f000
  ),
  sender("AP jump table get, none", 0x8000_0005, (g) => guest.getApJumpTable(g), { sw_exit_info_1: q(1) }, {}, null),
  sender(
    "guest request",
    0x8000_0011,
    (g) => guest.guestRequest(g, { request: 0x1_0000_7000, response: 0x8000 }),
    { sw_exit_info_1: q(0x7000, 1), sw_exit_info_2: q(0x8000) },
    { sw_exit_info_2: q(0x16) },
    { vmmError: 0, firmware: 0x16, pagesNeeded: 0 }
  ),
  sender(
    "extended guest request",
    0x8000_0012,
    (g) => guest.extendedGuestRequest(g, { request: 0x7000, response: 0x8000 }, { gpa: 0xa000, pages: 4 }),
    { sw_exit_info_1: q(0x7000), sw_exit_info_2: q(0x8000), rax: q(0xa000), rbx: q(4) },
    {},
    { vmmError: 0, firmware: 0, pagesNeeded: 0 }
  ),
  sender(
    "extended guest request, too few pages",
    0x8000_0012,
    (g) => guest.extendedGuestRequest(g, { request: 0x7000, response: 0x8000 }, { gpa: 0xa000, pages: 1 }),
    { sw_exit_info_1: q(0x7000), sw_exit_info_2: q(0x8000), rax: q(0xa000), rbx: q(1) },
    { sw_exit_info_2: q(0, 1), rbx: q(4) },
    { vmmError: 1, firmware: 0, pagesNeeded: 4 }
  ),
  sender(
    "AP creation on INIT",
    0x8000_0013,
    (g) => guest.createApOnInit(g, { vmpl: 2, apicId: 5 }, 0x1_0000_3000, u(9, 8)),
    {
      sw_exit_info_1: q(0x2_0000, 5),
      sw_exit_info_2: q(0x3000, 1),
      rax: q(9, 8)
    }
  ),
  sender("AP creation", 0x8000_0013, (g) => guest.createAp(g, { vmpl: 0, apicId: 5 }, 0x3000, u(1)), {
    sw_exit_info_1: q(1, 5),
    sw_exit_info_2: q(0x3000),
    rax: q(1)
  }),
  sender("AP destruction", 0x8000_0013, (g) => guest.destroyAp(g, { vmpl: 3, apicId: 5 }), {
    sw_exit_info_1: q(0x3_0002, 5)
  }),
  sender("APIC ID list, its size", 0x8000_0017, (g) => guest.apicIdListSize(g), { rax: q(0) }, { rax: q(2) }, 2),
  sender(
    "APIC ID list, too few pages",
    0x8000_0017,
    (g) => guest.apicIdList(g, 0xb000, 1),
    { sw_exit_info_1: q(0xb000), rax: q(1) },
    { rax: q(2) },
    null
  ),
  sender("run VMPL", 0x8000_0018, (g) => guest.requestVmpl(g, 1), { sw_exit_info_1: q(1) }),
  sender(
    "hypervisor features",
    0x8000_fffd,
    (g) => guest.hypervisorFeatures(g),
    {},
    { sw_exit_info_2: q(0x3f, 1) },
    u(0x3f, 1)
  ),
  sender("unsupported event", 0x8000_ffff, (g) => guest.unsupportedEvent(g, 0x8e), { sw_exit_info_1: q(0x8e) }),
  sender("unsupported event of a negative code", 0x8000_ffff, (g) => guest.unsupportedEvent(g, -2), {
    sw_exit_info_1: q(0xffff_fffe, 0xffff_ffff)
  })
]

const INTERRUPTS: ReadonlyArray<Sender> = [
  sender("doorbell, preferred", 0x8000_0014, (g) => guest.preferredDoorbell(g), {}, { sw_exit_info_2: ONES }, null),
  sender(
    "doorbell, set",
    0x8000_0014,
    (g) => guest.setDoorbell(g, 0xc000),
    { sw_exit_info_1: q(1), sw_exit_info_2: q(0xc000) },
    { sw_exit_info_2: q(0xc000) }
  ),
  sender(
    "doorbell, query",
    0x8000_0014,
    (g) => guest.queryDoorbell(g),
    { sw_exit_info_1: q(2) },
    { sw_exit_info_2: q(0xc000, 1) },
    0x1_0000_c000
  ),
  sender("doorbell, clear", 0x8000_0014, (g) => guest.clearDoorbell(g), { sw_exit_info_1: q(3) }),
  sender("HV IPI", 0x8000_0015, (g) => guest.hvIpi(g, u(0xfd, 7)), { sw_exit_info_1: q(0xfd, 7) }),
  sender("Secure AVIC, register", 0x8000_001a, (g) => guest.registerSecureAvic(g, 0xd000), {
    rax: ONES,
    rbx: q(0xd000)
  }),
  sender(
    "Secure AVIC, unregister",
    0x8000_001a,
    (g) => guest.unregisterSecureAvic(g),
    { sw_exit_info_1: q(1), rax: ONES },
    { rbx: q(0xd000) },
    0xd000
  ),
  sender("configure interrupt injection", 0x8000_001b, (g) => guest.configureInterruptInjection(g, 0xe2), {
    sw_exit_info_1: q(0xe2)
  }),
  sender(
    "disable alternate injection",
    0x8000_001c,
    (g) => guest.disableAlternateInjection(g, { vmpl: 2, tpr: 0x45, shadow: true, interruptsEnabled: true }),
    { sw_exit_info_1: q(0x2_4503) }
  ),
  sender("specific EOI", 0x8000_001d, (g) => guest.specificEoi(g, 3, 0x31), { sw_exit_info_1: q(0x3_0031) })
]

export const SENDERS: ReadonlyArray<Sender> = [...INSTRUCTIONS, ...DEVICES, ...MACHINE, ...INTERRUPTS]
