import { AP_CREATION, MSR, TERMINATE, VMSA } from "@vmpl-lab/sev-es"
import {
  cpuid,
  jmpFar,
  lidt,
  type Program,
  pause,
  pvalidate,
  read,
  readRegister,
  rmpadjust,
  write,
  writeBytes,
  wrmsr,
  zeroPage
} from "@vmpl-lab/vmpl"
import { readApJumpTable, writeApJumpTable } from "../ApJumpTable.ts"
import { apVmsa } from "../ApVmsa.ts"
import { Ghcb } from "../Ghcb.ts"
import { apResetHold, getApJumpTable, setApJumpTable } from "../ghcb/Processors.ts"
import { initSipi } from "../InitSipi.ts"
import { negotiateVersion, terminate } from "../MsrProtocol.ts"
import { makeVcHandler, vcHandler } from "../VcHandler.ts"
import { BARE_AP_ENTRY_GPA, BARE_BLOCK, BARE_COMMON, type BarePlan, blockPage, commonPage } from "./BarePlan.ts"

/** PAUSEs between two looks at a page. */
const BACK_OFF = 50

/** APIC_BASE in x2APIC mode, and its bit of the boot processor. */
const APIC_BASE_X2APIC = 0xfee0_0c00
const APIC_BASE_BSP = 0x100

/** The APIC ID of this vCPU, before there is any GHCB. */
function* initialApicId(): Program<number> {
  return (yield cpuid(1)).hi >>> 24
}

/** Makes pages usable: an SNP guest validates them, and whatever key they were written with, they are zeros now. */
export function* acceptPages({ snp }: BarePlan, gpas: ReadonlyArray<number>): Program {
  for (const gpa of gpas) {
    if (snp) {
      const { lo, carry } = yield pvalidate(gpa, true)
      if (lo !== 0 || carry) yield* terminate(TERMINATE.PVALIDATE)
    }
    yield zeroPage(gpa)
  }
}

/** #VC handler over the MSR, version, GHCB, then the #VC handler that uses it. @returns APIC ID and GHCB */
export function* bareSetUp(plan: BarePlan): Program<{ readonly apicId: number; readonly ghcb: Ghcb }> {
  yield lidt(vcHandler)
  const apicId = yield* initialApicId()
  const version = yield* negotiateVersion()
  const page = (offset: number): number => blockPage(plan, apicId, offset)
  yield* acceptPages(plan, [page(BARE_BLOCK.BACKUP), page(BARE_BLOCK.STACK)])
  const { snp } = plan
  const options = { backup: page(BARE_BLOCK.BACKUP), registers: snp, makeShared: snp, version }
  const ghcb = new Ghcb(page(BARE_BLOCK.GHCB), options)
  yield* ghcb.setUp()
  yield lidt({ vc: makeVcHandler({ ghcb, ...cpuidPageOf(plan) }) })
  return { apicId, ghcb }
}

/** The CPUID page for a #VC handler's context, if there is one. */
export const cpuidPageOf = ({ cpuidGpa }: BarePlan): { readonly cpuidPage?: number } =>
  cpuidGpa === undefined ? {} : { cpuidPage: cpuidGpa }

/** x2APIC, by an MSR that KVM intercepts. */
export function* enableX2apic(apicId: number): Program {
  yield wrmsr(MSR.APIC_BASE, (APIC_BASE_X2APIC | (apicId === 0 ? APIC_BASE_BSP : 0)) >>> 0)
}

/** INIT and SIPI to all others; the page number of a SIPI is of no account to encrypted state. */
const initSipiAll = (): Program => initSipi("all-but-self", BARE_AP_ENTRY_GPA >>> 12)

const flagOf = (plan: BarePlan, apicId: number): number => commonPage(plan, BARE_COMMON.FLAGS) + apicId

/** This vCPU has come so far. */
function* report(plan: BarePlan, apicId: number, stage: number): Program {
  yield write(flagOf(plan, apicId), 1, stage)
}

/** Waits until every other vCPU has come so far. */
function* awaitAll(plan: BarePlan, stage: number): Program {
  for (let apicId = 1; apicId < plan.vcpus; apicId++) {
    while ((yield read(flagOf(plan, apicId), 1)).lo < stage) yield pause(BACK_OFF)
  }
}

const STAGE = { STARTED: 1, RESTARTED: 2 } as const

/** Boot processor: starts the others by INIT and SIPI, which run the VMSAs they were launched with. */
export function* initSipiBoot(plan: BarePlan): Program {
  const { apicId } = yield* bareSetUp(plan)
  yield* acceptPages(plan, [commonPage(plan, BARE_COMMON.FLAGS)])
  yield* enableX2apic(apicId)
  yield* initSipiAll()
  yield* awaitAll(plan, STAGE.STARTED)
}

/** Application processor at the firmware's entry: says that it is up. */
export function* initSipiAp(plan: BarePlan): Program {
  const { apicId } = yield* bareSetUp(plan)
  yield* report(plan, apicId, STAGE.STARTED)
}

/**
 * Boot processor as firmware and operating system in one: the firmware starts the others once and has them hold; the
 * operating system writes where they are to go on into the AP jump table, and starts them again.
 * @spec GHCB "AP jump table"
 */
export function* jumpTableBoot(plan: BarePlan): Program {
  const { apicId, ghcb } = yield* bareSetUp(plan)
  const table = commonPage(plan, BARE_COMMON.JUMP_TABLE)
  yield* acceptPages(plan, [commonPage(plan, BARE_COMMON.FLAGS), table, BARE_AP_ENTRY_GPA])
  if (!(yield* setApJumpTable(ghcb, table)).ok) yield* terminate(TERMINATE.GENERAL)
  yield* enableX2apic(apicId)
  yield* initSipiAll()
  yield* awaitAll(plan, STAGE.STARTED)

  const known = yield* getApJumpTable(ghcb)
  if (!known.ok || known.value !== table) yield* terminate(TERMINATE.GENERAL)
  yield* writeApJumpTable(table, { ip: 0, cs: BARE_AP_ENTRY_GPA >>> 4 })
  yield* initSipiAll()
  yield* awaitAll(plan, STAGE.RESTARTED)
}

/** Application processor in the firmware: holds, and jumps to where the table says once it is let go. */
export function* jumpTableAp(plan: BarePlan): Program {
  const { apicId, ghcb } = yield* bareSetUp(plan)
  yield* report(plan, apicId, STAGE.STARTED)
  if (!(yield* apResetHold(ghcb)).ok) yield* terminate(TERMINATE.GENERAL)
  const { ip, cs } = yield* readApJumpTable(commonPage(plan, BARE_COMMON.JUMP_TABLE))
  yield jmpFar(cs << 4, ip)
}

/** Application processor in the operating system, where the jump table leads. */
export function* restartedAp(plan: BarePlan): Program {
  yield lidt(vcHandler)
  yield* report(plan, yield* initialApicId(), STAGE.RESTARTED)
}

/** Boot processor of an SNP guest at VMPL0: builds the others' VMSAs and has the host run them. */
export function* apCreationBoot(plan: BarePlan): Program {
  const { ghcb } = yield* bareSetUp(plan)
  yield* acceptPages(plan, [commonPage(plan, BARE_COMMON.FLAGS), BARE_AP_ENTRY_GPA])
  const { lo: sevFeatures } = yield readRegister(VMSA.sev_features)
  for (let apicId = 1; apicId < plan.vcpus; apicId++) {
    const page = blockPage(plan, apicId, BARE_BLOCK.VMSA)
    yield* acceptPages(plan, [page])
    const vmsa = apVmsa({ vmpl: 0, sevFeatures, codeBase: BARE_AP_ENTRY_GPA, rip: 0, argument: apicId })
    yield writeBytes(page, vmsa)
    if ((yield rmpadjust(page, 1, 0, true)).lo !== 0) yield* terminate(TERMINATE.GENERAL)
    if (!(yield* ghcb.apCreation(AP_CREATION.CREATE, 0, apicId, page, sevFeatures))) yield* terminate(TERMINATE.GENERAL)
  }
  yield* awaitAll(plan, STAGE.STARTED)
}

/** Application processor of an SNP guest; RDI holds its APIC ID, and CPUID says the same. */
export function* createdAp(plan: BarePlan): Program {
  const argument = (yield readRegister(VMSA.rdi)).lo
  const { apicId } = yield* bareSetUp(plan)
  if (apicId !== argument) yield* terminate(TERMINATE.GENERAL)
  yield* report(plan, apicId, STAGE.STARTED)
}
