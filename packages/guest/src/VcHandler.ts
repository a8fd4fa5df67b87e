import { EXIT, TERMINATE } from "@vmpl-lab/sev-es"
import type { VcHandler } from "@vmpl-lab/vmpl"
import { cpuidRegister, terminate } from "./MsrProtocol.ts"

/**
 * The #VC handler: emulates what was intercepted with the hypervisor's help. A page that is not validated means that
 * the host swapped it: the guest stops rather than validate it again.
 * @spec APM2 15.35, 15.36.6
 */
export const vcHandler: VcHandler = function* (errorCode, operation, result) {
  switch (errorCode) {
    case EXIT.CPUID: {
      const eax = yield* cpuidRegister(operation.address, 0)
      const ebx = yield* cpuidRegister(operation.address, 1)
      const ecx = yield* cpuidRegister(operation.address, 2)
      const edx = yield* cpuidRegister(operation.address, 3)
      result.lo = eax
      result.hi = ebx
      result.ecx = ecx
      result.edx = edx
      return
    }
    case EXIT.PAGE_NOT_VALIDATED:
      yield* terminate(TERMINATE.PVALIDATE)
      return
    default:
      yield* terminate(TERMINATE.GENERAL)
  }
}
