import { AP_CREATION, TERMINATE, VMSA } from "@vmpl-lab/sev-es"
import { lidt, type Program, readRegister, rmpadjust, writeBytes } from "@vmpl-lab/vmpl"
import { apVmsa } from "../ApVmsa.ts"
import { Ghcb } from "../Ghcb.ts"
import { keepingGhcbMsr, runVmplMsr, terminate } from "../MsrProtocol.ts"
import { CORE_CALL, PROTOCOL, type Ring, SVSM_RESULT, type SvsmCaller } from "../SvsmCall.ts"
import { makeEarlyVcHandler } from "../VcHandler.ts"
import { GUEST_VMPL } from "./GuestBoot.ts"
import { AP_TRAMPOLINE_GPA, BLOCK, blockOf, type GuestPlan, LEVEL_BLOCK, levelBlockOf } from "./GuestPlan.ts"

/** RMPADJUST mask: read, write, user and supervisor execute. @spec APM2 table 15-39 */
const FULL_RIGHTS = 0xf
/** Offset of a level's code in the trampoline page. */
const ENTRY_SIZE = 0x100

/** Linear address at which a less privileged level starts, on every vCPU. */
export const levelEntry = (vmpl: number): number => AP_TRAMPOLINE_GPA + ENTRY_SIZE * vmpl

/** What a level's code needs in its hands: how it rings, and its GHCB. */
export interface LevelContext {
  readonly ghcb: Ghcb
  readonly ring: Ring
}

/** Asks the host to run another level of this vCPU. Ends the guest when it does not: nobody else would go on. */
export function* ringLevel({ ghcb, ring }: LevelContext, vmpl: number): Program {
  const ran = ring === "page" ? yield* ghcb.runVmpl(vmpl) : (yield* keepingGhcbMsr(runVmplMsr(vmpl))) === 0
  if (!ran) yield* terminate(TERMINATE.GENERAL)
}

/**
 * The guest's boot level gives its vCPU the less privileged ones: each gets its pages and a VMSA through the SVSM, is
 * registered with the host, and runs until it rings back that it is up.
 * @spec SVSM 6.3: a caller may create a vCPU at its own level or a less privileged one
 */
export function* startLowerLevels(plan: GuestPlan, apicId: number, svsm: SvsmCaller): Program {
  const ghcb = new Ghcb(blockOf(plan, apicId) + BLOCK.GHCB)
  for (const vmpl of plan.lowerLevels ?? []) yield* grantPages(plan, apicId, vmpl)
  for (const vmpl of plan.lowerLevels ?? []) {
    yield* createLevel(plan, apicId, vmpl, svsm, ghcb)
    yield* ringLevel({ ghcb, ring: plan.ring }, vmpl)
  }
}

/** A level's code and calling area are its own; requests to services are for those between it and the boot level too. */
function* grantPages(plan: GuestPlan, apicId: number, vmpl: number): Program {
  const block = levelBlockOf(plan, apicId, vmpl)
  yield* grantTo(AP_TRAMPOLINE_GPA, vmpl)
  yield* grantTo(block + LEVEL_BLOCK.CALLING_AREA, vmpl)
  for (const level of plan.lowerLevels!) if (level <= vmpl) yield* grantTo(block + LEVEL_BLOCK.SERVICE, level)
}

function* grantTo(gpa: number, vmpl: number): Program {
  if ((yield rmpadjust(gpa, vmpl, FULL_RIGHTS, false)).lo !== 0) yield* terminate(TERMINATE.GENERAL)
}

function* createLevel(plan: GuestPlan, apicId: number, vmpl: number, svsm: SvsmCaller, ghcb: Ghcb): Program {
  const block = levelBlockOf(plan, apicId, vmpl)
  const vmsaGpa = block + LEVEL_BLOCK.VMSA
  const { lo: sevFeatures } = yield readRegister(VMSA.sev_features)
  const rip = levelEntry(vmpl) - AP_TRAMPOLINE_GPA
  yield writeBytes(vmsaGpa, apVmsa({ vmpl, sevFeatures, codeBase: AP_TRAMPOLINE_GPA, rip, argument: apicId }))
  const created = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, {
    rcx: vmsaGpa,
    rdx: block + LEVEL_BLOCK.CALLING_AREA,
    r8: apicId
  })
  if (created !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.GENERAL)
  if (!(yield* ghcb.apCreation(AP_CREATION.CREATE_ON_INIT, vmpl, apicId, vmsaGpa, sevFeatures))) {
    yield* terminate(TERMINATE.GENERAL)
  }
}

/** The start of every less privileged level's code: RDI holds the APIC ID. It rings back once it is set up. */
export function* enterLevel(plan: GuestPlan, vmpl: number): Program<LevelContext & { readonly apicId: number }> {
  const svsm: { caGpa: number | null } = { caGpa: null }
  yield lidt(makeEarlyVcHandler(svsm))
  const apicId = (yield readRegister(VMSA.rdi)).lo
  const block = levelBlockOf(plan, apicId, vmpl)
  svsm.caGpa = block + LEVEL_BLOCK.CALLING_AREA
  const ghcb = new Ghcb(block + LEVEL_BLOCK.GHCB)
  yield* ghcb.setUp()
  const context = { ghcb, ring: plan.ring, apicId }
  yield* ringLevel(context, plan.guestVmpl ?? GUEST_VMPL)
  return context
}
