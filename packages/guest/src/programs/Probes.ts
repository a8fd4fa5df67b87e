// @ghcb 0x72, 0x7b, 0x7c, 0x81
import { MSR, TERMINATE, u64 } from "@vmpl-lab/sev-es"
import { cpuid, type Program, portIn, pvalidate, rdmsr, rmpadjust, vmmcall } from "@vmpl-lab/vmpl"
import type { Ghcb } from "../Ghcb.ts"
import type { Outcome } from "../ghcb/Exchange.ts"
import { ghcbCpuid, ghcbRdmsr, ghcbVmmcall } from "../ghcb/Instructions.ts"
import { ghcbIn } from "../ghcb/PortIo.ts"
import { terminate } from "../MsrProtocol.ts"
import { bareSetUp } from "./BareBoot.ts"
import type { BarePlan } from "./BarePlan.ts"

const PAGE = 0x1000
const PIT_CHANNEL0 = 0x40
/** Line status of COM1, a device of user space. */
const COM1_LSR = 0x3fd
const HYPERVISOR_LEAF = 0x4000_0000

/** A guest that does one thing again and again, for somebody who watches the clock. */
export interface ProbePlan extends BarePlan {
  /** Executions of each instruction that are timed; one more goes before them. */
  readonly repeats: number
  /** First page, and length in pages, of each sweep. The pages are neither validated nor touched before it. */
  readonly sweeps: ReadonlyArray<{ readonly gpa: number; readonly pages: number }>
  /** Called at the beginning and at the end of each probe: its name and how often it is done between the two. */
  readonly mark: (probe: string, executions: number) => void
}

function* served(reply: Program<Outcome<unknown>>): Program {
  if (!(yield* reply).ok) yield* terminate(TERMINATE.GENERAL)
}

/** An instruction by an explicit VMGEXIT, as code does that knows it would take #VC. */
const explicit = (ghcb: Ghcb): { readonly [probe: string]: () => Program } => ({
  "cpuid-1": () => served(ghcbCpuid(ghcb, 1, 0, u64(1))),
  "cpuid-hypervisor": () => served(ghcbCpuid(ghcb, HYPERVISOR_LEAF, 0, u64(1))),
  "rdmsr-apic-base": () => served(ghcbRdmsr(ghcb, MSR.APIC_BASE)),
  hypercall: () => served(ghcbVmmcall(ghcb, { rax: u64(0), cpl: 0 })),
  "in-pit": () => served(ghcbIn(ghcb, PIT_CHANNEL0, 1)),
  "in-user-space": () => served(ghcbIn(ghcb, COM1_LSR, 1))
})

/** The same as plain instructions: each takes #VC first. */
const intercepted: { readonly [probe: string]: () => Program } = {
  "cpuid-1": function* () {
    yield cpuid(1)
  },
  "cpuid-hypervisor": function* () {
    yield cpuid(HYPERVISOR_LEAF)
  },
  "rdmsr-apic-base": function* () {
    yield rdmsr(MSR.APIC_BASE)
  },
  hypercall: function* () {
    yield vmmcall()
  },
  "in-pit": function* () {
    yield portIn(PIT_CHANNEL0, 1)
  }
}

/** Boot processor: each instruction by explicit VMGEXIT and through #VC, then PVALIDATE and RMPADJUST over pages. */
export function* probesBoot(plan: ProbePlan): Program {
  const { ghcb } = yield* bareSetUp(plan)
  for (const [name, once] of Object.entries(explicit(ghcb))) yield* timed(plan, `explicit ${name}`, once)
  for (const [name, once] of Object.entries(intercepted)) yield* timed(plan, `#VC ${name}`, once)
  for (const { gpa, pages } of plan.sweeps) {
    const gpas = Array.from({ length: pages }, (_, i) => gpa + i * PAGE)
    yield* swept(plan, "PVALIDATE", gpas, function* (page) {
      const { lo, carry } = yield pvalidate(page, true)
      return lo === 0 && !carry
    })
    yield* swept(plan, "RMPADJUST", gpas, function* (page) {
      return (yield rmpadjust(page, 1, 0, false)).lo === 0
    })
  }
}

/** The first execution may fault pages in: it is not timed. */
function* timed({ repeats, mark }: ProbePlan, probe: string, once: () => Program): Program {
  yield* once()
  mark(probe, repeats)
  for (let i = 0; i < repeats; i++) yield* once()
  mark(probe, repeats)
}

function* swept(
  { mark }: ProbePlan,
  instruction: string,
  gpas: ReadonlyArray<number>,
  adjust: (page: number) => Program<boolean>
): Program {
  const probe = `${instruction} ${gpas.length}`
  mark(probe, gpas.length)
  for (const gpa of gpas) if (!(yield* adjust(gpa))) yield* terminate(TERMINATE.PVALIDATE)
  mark(probe, gpas.length)
}
