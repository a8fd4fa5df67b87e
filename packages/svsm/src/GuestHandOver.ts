import { CALLING_AREA, CPUID_SEV, CPUID_SVSM, SVSM_RESULT, terminate } from "@vmpl-lab/guest"
import {
  CPUID_COUNT_MAX,
  CPUID_FUNCTION,
  CPUID_FUNCTION_BASE,
  CPUID_FUNCTION_SIZE,
  CPUID_PAGE,
  hi32,
  lo32,
  PAGE_SIZE,
  SECRETS,
  TERMINATE
} from "@vmpl-lab/sev-es"
import { type Program, pvalidate, readBytes, write, writeBytes, zeroPage } from "@vmpl-lab/vmpl"
import { FirmwareMessages } from "./FirmwareMessages.ts"
import type { GuestRange } from "./Parameters.ts"
import { grant } from "./protocols/Permissions.ts"
import type { SvsmState } from "./State.ts"

/** Bytes of a key for messages to the AMD-SP. */
const VMPCK_SIZE = 32

/**
 * Gives the guest's level what the launch has validated: the firmware, its pre-validated memory, the CPUID page, the
 * secrets page with the SVSM's fields filled in and the keys of higher levels cleared, and the first calling area.
 */
export function* handOverGuestMemory(state: SvsmState): Program {
  const { firmware, preValidated, secretsGpa, cpuidGpa, callingAreaGpa, callingAreaLaunched } = state.parameters
  yield* grantRange(state, firmware)
  for (const range of preValidated) yield* grantRange(state, range)
  yield* fillSecrets(state, secretsGpa)
  if (state.behaviour.marksCpuidPage) yield* markCpuidPage(cpuidGpa)
  for (const gpa of [secretsGpa, cpuidGpa]) yield* grantRange(state, { gpa, size: PAGE_SIZE })
  if (!callingAreaLaunched) {
    const { lo, carry } = yield pvalidate(callingAreaGpa, true)
    if (lo !== 0 || carry) yield* terminate(TERMINATE.PVALIDATE)
    yield zeroPage(callingAreaGpa)
  }
  yield* grantRange(state, { gpa: callingAreaGpa, size: PAGE_SIZE })
  yield write(callingAreaGpa, CALLING_AREA.SIZE, 0)
}

function* grantRange(state: SvsmState, { gpa, size }: GuestRange): Program {
  for (let page = gpa; page < gpa + size; page += PAGE_SIZE) {
    if ((yield* grant(state, page, state.parameters.guestVmpl)) !== SVSM_RESULT.SUCCESS)
      yield* terminate(TERMINATE.GENERAL)
    state.validated.add(page / PAGE_SIZE)
  }
}

/** Says in the guest's CPUID page that there is an SVSM. @spec SVSM 4.2 */
function* markCpuidPage(gpa: number): Program {
  const page = new Uint8Array(PAGE_SIZE)
  yield readBytes(gpa, page)
  const view = new DataView(page.buffer)
  const count = Math.min(view.getUint32(CPUID_PAGE.count, true), CPUID_COUNT_MAX)
  for (let i = 0; i < count; i++) {
    const at = CPUID_FUNCTION_BASE + CPUID_FUNCTION_SIZE * i
    if (view.getUint32(at + CPUID_FUNCTION.eax_in, true) !== CPUID_SEV) continue
    yield write(gpa + at + CPUID_FUNCTION.eax, 4, (view.getUint32(at + CPUID_FUNCTION.eax, true) | CPUID_SVSM) >>> 0)
  }
}

/**
 * The SVSM's fields of the secrets page. The key of VMPL0 is kept, and with those of the other levels more privileged
 * than the guest's it goes: the guest must not have them.
 * @spec SVSM 4.1
 */
function* fillSecrets(state: SvsmState, gpa: number): Program {
  const { svsm, callingAreaGpa, guestVmpl } = state.parameters
  const vmpck0 = new Uint8Array(VMPCK_SIZE)
  yield readBytes(gpa + SECRETS.vmpck0, vmpck0)
  state.messages = new FirmwareMessages(state, vmpck0)
  yield writeBytes(gpa + SECRETS.vmpck0, new Uint8Array(guestVmpl * VMPCK_SIZE))
  yield write(gpa + SECRETS.svsm_base, 8, lo32(svsm.gpa), hi32(svsm.gpa))
  yield write(gpa + SECRETS.svsm_size, 8, lo32(svsm.size), hi32(svsm.size))
  yield write(gpa + SECRETS.svsm_caa, 8, lo32(callingAreaGpa), hi32(callingAreaGpa))
  yield write(gpa + SECRETS.svsm_max_version, 4, 1)
  yield write(gpa + SECRETS.svsm_guest_vmpl, 1, guestVmpl)
}
