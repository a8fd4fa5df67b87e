import { AP_CREATION, GHCB_VERSION, HV_FEATURE, PAGE_SIZE, SECRETS, TERMINATE, toNumber, VMSA } from "@vmpl-lab/sev-es"
import { cpuid, lidt, type Program, read, readRegister, rmpadjust, writeBytes } from "@vmpl-lab/vmpl"
import { apVmsa } from "../ApVmsa.ts"
import { Ghcb } from "../Ghcb.ts"
import { sevInfo, terminate } from "../MsrProtocol.ts"
import { type PvalidateEntry, pvalidateCapacity, pvalidateList } from "../PvalidateList.ts"
import { CALLING_AREA, CORE_CALL, PROTOCOL, SVSM_RESULT, SvsmCaller } from "../SvsmCall.ts"
import { CPUID_SEV } from "../SvsmPresence.ts"
import { makeEarlyVcHandler } from "../VcHandler.ts"
import { AP_TRAMPOLINE_GPA, BLOCK, blockOf, type GuestPlan, LEVEL_BLOCK, levelBlockOf } from "./GuestPlan.ts"
import { workload } from "./Workload.ts"

/** CPUID 8000_001F EAX: SEV-SNP. */
const CPUID_SNP = 1 << 4

/** Where a segment register's base is. */
const SEGMENT_BASE = 8

/** The guest's boot processor at its level: finds the SVSM, accepts memory through it, starts the APs, makes its calls. */
export function* bootProcessor(plan: GuestPlan): Program {
  const presence: { caGpa: number | null } = { caGpa: null }
  yield lidt(makeEarlyVcHandler(presence))
  const { lo: eax } = yield cpuid(CPUID_SEV)
  if ((eax & CPUID_SNP) === 0) yield* terminate(TERMINATE.SNP_UNSUPPORTED)
  const { min, max } = yield* sevInfo()
  if (min > GHCB_VERSION.MAX || max < GHCB_VERSION.MAX) yield* terminate(TERMINATE.PROTOCOL_UNSUPPORTED)
  const caGpa = yield* findSvsm(plan)
  presence.caGpa = caGpa
  const early = new SvsmCaller(caGpa, "msr", null)
  yield* acceptHeap(plan, early)

  const block = blockOf(plan, 0)
  const ghcb = new Ghcb(block + BLOCK.GHCB)
  yield* ghcb.setUp()
  const needed = HV_FEATURE.SNP | HV_FEATURE.AP_CREATION | HV_FEATURE.MULTI_VMPL
  if (((yield* ghcb.hvFeatures()) & needed) !== needed) yield* terminate(TERMINATE.SNP_UNSUPPORTED)

  const svsm = new SvsmCaller(caGpa, plan.ring, ghcb)
  const remapped = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.REMAP_CA, { rcx: block + BLOCK.CALLING_AREA })
  if (remapped !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.CA_REMAP)
  svsm.caGpa = block + BLOCK.CALLING_AREA
  presence.caGpa = svsm.caGpa
  const started = plan.incoming === true ? 1 : plan.vcpus
  for (let apicId = 1; apicId < started; apicId++) yield* startAp(plan, svsm, ghcb, apicId)
  yield* plan.body?.(plan, 0, svsm.caGpa) ?? workload(plan, 0, svsm)
}

/** An application processor at the same level; RDI holds its APIC ID. */
export function* applicationProcessor(plan: GuestPlan): Program {
  const presence: { caGpa: number | null } = { caGpa: null }
  yield lidt(makeEarlyVcHandler(presence))
  const apicId = (yield readRegister(VMSA.rdi)).lo
  const block = blockOf(plan, apicId)
  // Its creator has named the calling area to CREATE_VCPU.
  presence.caGpa = block + BLOCK.CALLING_AREA
  const ghcb = new Ghcb(block + BLOCK.GHCB)
  yield* ghcb.setUp()
  const svsm = new SvsmCaller(block + BLOCK.CALLING_AREA, plan.ring, ghcb)
  yield* plan.body?.(plan, apicId, svsm.caGpa) ?? workload(plan, apicId, svsm)
}

/**
 * An RMPADJUST that only VMPL0 may do: changing the rights of VMPL1. The page is that of the code itself, of which the
 * guest knows before it knows anything else.
 * @spec Linux svsm_setup_ca
 */
function* isAtVmpl0(): Program<boolean> {
  const base = yield readRegister(VMSA.cs + SEGMENT_BASE)
  const code = toNumber(base.lo, base.hi) + (yield readRegister(VMSA.rip)).lo
  return (yield rmpadjust(code - (code % PAGE_SIZE), 1, 0, false)).lo === 0
}

/**
 * The secrets page tells whether there is an SVSM, and where the first calling area is. At VMPL0 there is nothing to
 * find, and this boot code is not for it.
 * @spec SVSM 4.1; Linux svsm_setup_ca
 */
function* findSvsm({ secretsGpa }: GuestPlan): Program<number> {
  if (yield* isAtVmpl0()) yield* terminate(TERMINATE.GENERAL)
  if (secretsGpa === 0) yield* terminate(TERMINATE.SECRETS_PAGE)
  const size = yield read(secretsGpa + SECRETS.svsm_size, 8)
  if (size.lo === 0 && size.hi === 0) yield* terminate(TERMINATE.NO_SVSM)
  const vmpl = (yield read(secretsGpa + SECRETS.svsm_guest_vmpl, 1)).lo
  if (vmpl === 0) yield* terminate(TERMINATE.SVSM_VMPL0)
  const { lo, hi } = yield read(secretsGpa + SECRETS.svsm_caa, 8)
  const caGpa = toNumber(lo, hi)
  if (caGpa % PAGE_SIZE !== 0) yield* terminate(TERMINATE.SVSM_CAA)
  return caGpa
}

/** Has the SVSM validate the guest's own pages; the lists stand behind the calling area's header. */
function* acceptHeap(plan: GuestPlan, svsm: SvsmCaller): Program {
  const entries: Array<PvalidateEntry> = [{ gpa: AP_TRAMPOLINE_GPA, validate: true }]
  for (let apicId = 0; apicId < (plan.incoming === true ? 1 : plan.vcpus); apicId++) {
    const block = blockOf(plan, apicId)
    for (const page of [BLOCK.VMSA, BLOCK.CALLING_AREA, BLOCK.OTHER_CALLING_AREA, BLOCK.LIST]) {
      entries.push({ gpa: block + page, validate: true })
    }
    for (const vmpl of plan.lowerLevels ?? []) {
      const level = levelBlockOf(plan, apicId, vmpl)
      for (const page of [LEVEL_BLOCK.SERVICE, LEVEL_BLOCK.VMSA, LEVEL_BLOCK.CALLING_AREA]) {
        entries.push({ gpa: level + page, validate: true })
      }
    }
  }
  const capacity = pvalidateCapacity(CALLING_AREA.SIZE)
  for (let start = 0; start < entries.length; start += capacity) {
    const listGpa = svsm.caGpa + CALLING_AREA.SIZE
    yield writeBytes(listGpa, pvalidateList(entries.slice(start, start + capacity)))
    const result = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.PVALIDATE, { rcx: listGpa })
    if (result !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.PVALIDATE)
  }
}

/** Builds an AP's VMSA, has the SVSM make it one, and asks the host to run it. @spec SVSM 6.3, GHCB "SNP AP creation" */
function* startAp(plan: GuestPlan, svsm: SvsmCaller, ghcb: Ghcb, apicId: number): Program {
  const block = blockOf(plan, apicId)
  const { lo: sevFeatures } = yield readRegister(VMSA.sev_features)
  const vmpl = plan.guestVmpl ?? GUEST_VMPL
  const vmsa = apVmsa({ vmpl, sevFeatures, codeBase: AP_TRAMPOLINE_GPA, rip: 0, argument: apicId })
  yield writeBytes(block + BLOCK.VMSA, vmsa)
  const created = yield* svsm.call(PROTOCOL.CORE, CORE_CALL.CREATE_VCPU, {
    rcx: block + BLOCK.VMSA,
    rdx: block + BLOCK.CALLING_AREA,
    r8: apicId
  })
  if (created !== SVSM_RESULT.SUCCESS) yield* terminate(TERMINATE.GENERAL)
  const started = yield* ghcb.apCreation(AP_CREATION.CREATE, vmpl, apicId, block + BLOCK.VMSA, sevFeatures)
  if (!started) yield* terminate(TERMINATE.GENERAL)
}

/** The level at which a guest runs under an SVSM unless it wants another. */
export const GUEST_VMPL = 2
