import { CPUID_COUNT_MAX, CPUID_FUNCTION, CPUID_FUNCTION_BASE, CPUID_FUNCTION_SIZE, CPUID_PAGE } from "@vmpl-lab/sev-es"
import { isZero, type MessageAnswer, type MessageScene, replyOf, viewOf } from "./MessageScene.ts"
import { STATUS } from "./Status.ts"

/** The four registers that CPUID answers with. */
export interface CpuidValues {
  readonly eax: number
  readonly ebx: number
  readonly ecx: number
  readonly edx: number
}

/** A question of CPUID with the answer that the hypervisor gave the guest. */
export interface CpuidFunction extends CpuidValues {
  readonly eaxIn: number
  readonly ecxIn: number
  readonly xcr0In: bigint
  readonly xssIn: bigint
}

/** The values that a processor accepts in place of those that were claimed; the same ones where it accepts them. */
export type CpuidPolicy = (claimed: CpuidFunction) => CpuidValues

/** Takes the hypervisor's word. The tables of a real firmware are those of one processor. @spec-silent their contents */
export const ANY_CPUID: CpuidPolicy = (claimed) => claimed

/** Functions that the firmware looks at; others it neither checks nor counts. */
const isArchitectural = (eax: number): boolean => eax <= 0xffff || (eax >= 0x8000_0000 && eax <= 0x8000_ffff)

const REGISTERS = ["eax", "ebx", "ecx", "edx"] as const

/** Checks one function in place; whether all of it was acceptable. */
const isAccepted = (policy: CpuidPolicy, row: Uint8Array): boolean => {
  const view = viewOf(row)
  const register = (name: keyof typeof CPUID_FUNCTION): number => view.getUint32(CPUID_FUNCTION[name], true)
  const accepted = policy({
    eaxIn: register("eax_in"),
    ecxIn: register("ecx_in"),
    xcr0In: view.getBigUint64(CPUID_FUNCTION.xcr0_in, true),
    xssIn: view.getBigUint64(CPUID_FUNCTION.xss_in, true),
    eax: register("eax"),
    ebx: register("ebx"),
    ecx: register("ecx"),
    edx: register("edx")
  })
  let isSame = isZero(row, CPUID_FUNCTION.reserved, CPUID_FUNCTION_SIZE)
  for (const name of REGISTERS) {
    if (register(name) !== accepted[name] >>> 0) isSame = false
    view.setUint32(CPUID_FUNCTION[name], accepted[name], true)
  }
  return isSame
}

/** A table of functions after the look at it: with the values that may be there, wherever others were. */
export interface PolicedCpuid {
  readonly table: Uint8Array
  readonly areAccepted: boolean
  /** Functions that were looked at. */
  readonly checked: number
}

/**
 * Looks at the functions of a CPUID page or message; `page` stays as it is. Its count must be at most 64.
 * @spec SNP-ABI LAUNCH_UPDATE, "CPUID page"; MSG_CPUID_REQ
 * @spec-silent which values a processor accepts: they are the policy's
 */
export const policedCpuid = (policy: CpuidPolicy, page: Uint8Array): PolicedCpuid => {
  const table = page.slice()
  const end = CPUID_FUNCTION_BASE + viewOf(table).getUint32(CPUID_PAGE.count, true) * CPUID_FUNCTION_SIZE
  let checked = 0
  let areAccepted = true
  for (let start = CPUID_FUNCTION_BASE; start < end; start += CPUID_FUNCTION_SIZE) {
    const row = table.subarray(start, start + CPUID_FUNCTION_SIZE)
    if (!isArchitectural(viewOf(row).getUint32(CPUID_FUNCTION.eax_in, true))) continue
    checked++
    if (!isAccepted(policy, row)) areAccepted = false
  }
  return { table, areAccepted, checked }
}

/** Offset of the reply's count of functions that were checked; the functions lie where the request has them. */
export const CPUID_REPLY_COUNT = 4

/** The reply before it is cut to the size of the request. */
const wholeReply = (scene: MessageScene, payload: Uint8Array): Uint8Array => {
  const all = CPUID_FUNCTION_BASE + CPUID_COUNT_MAX * CPUID_FUNCTION_SIZE
  const asked = viewOf(payload).getUint32(CPUID_PAGE.count, true)
  const isReservedZero = isZero(payload, CPUID_PAGE.reserved1, CPUID_FUNCTION_BASE)
  if (!isReservedZero || asked > CPUID_COUNT_MAX) return replyOf("INVALID_PARAM", all)
  const reply = replyOf("SUCCESS", all)
  const { table, areAccepted, checked } = policedCpuid(scene.cpuidPolicy, payload)
  const end = CPUID_FUNCTION_BASE + asked * CPUID_FUNCTION_SIZE
  reply.set(table.subarray(CPUID_FUNCTION_BASE, end), CPUID_FUNCTION_BASE)
  const view = viewOf(reply)
  view.setUint32(CPUID_REPLY_COUNT, checked, true)
  if (!areAccepted) view.setUint32(0, STATUS.INVALID_PARAM, true)
  return reply
}

/**
 * MSG_CPUID_REQ: the guest shows CPUID values and learns which ones are acceptable. The reply has the size of the
 * request. @spec SNP-ABI MSG_CPUID_REQ
 */
export const answerCpuid: MessageAnswer = (scene, payload, size) => {
  const whole = wholeReply(scene, payload)
  const reply = new Uint8Array(size)
  reply.set(whole.subarray(0, size))
  return reply
}
