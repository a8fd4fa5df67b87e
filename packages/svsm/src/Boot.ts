import { apVmsa, Ghcb, sevInfo, terminate, vcHandler } from "@vmpl-lab/guest"
import { AP_CREATION, GHCB_VERSION, HV_FEATURE, PAGE_SIZE, TERMINATE, VMSA } from "@vmpl-lab/sev-es"
import { lidt, type Program, pause, read, readBytes, readRegister, rmpadjust, write, writeBytes } from "@vmpl-lab/vmpl"
import { BEHAVIOUR } from "./Behaviour.ts"
import { canServe } from "./GuestFeatures.ts"
import { handOverGuestMemory } from "./GuestHandOver.ts"
import { IMAGE, svsmGhcbGpa, svsmVmsaGpa } from "./Image.ts"
import { setUpInterrupts } from "./Interrupts.ts"
import { validateOwn } from "./OwnPages.ts"
import { decodeParameters } from "./Parameters.ts"
import { requestLoop } from "./RequestLoop.ts"
import type { SvsmState } from "./State.ts"

/** The boot processor at VMPL0: from the launched image to the request loop, in COCONUT's order. */
export function* svsmBootProcessor(state: SvsmState, base: number): Program {
  yield lidt(vcHandler)
  const { min, max } = yield* sevInfo()
  if (min > GHCB_VERSION.MAX || max < GHCB_VERSION.MAX) yield* terminate(TERMINATE.PROTOCOL_UNSUPPORTED)
  const page = new Uint8Array(PAGE_SIZE)
  yield readBytes(base + IMAGE.PARAMETERS, page)
  const parameters = decodeParameters(page)
  if (parameters === null) return yield* terminate(TERMINATE.GENERAL)
  state.parameters = parameters
  state.behaviour = BEHAVIOUR[parameters.behaviour ?? "specification"]
  for (let apicId = 0; apicId < parameters.vcpus; apicId++) state.served[apicId] = []

  const ghcb = new Ghcb(svsmGhcbGpa(base, 0))
  yield* ghcb.setUp()
  const needed = HV_FEATURE.SNP | HV_FEATURE.AP_CREATION | HV_FEATURE.MULTI_VMPL
  if (((yield* ghcb.hvFeatures()) & needed) !== needed) yield* terminate(TERMINATE.SNP_UNSUPPORTED)

  yield* validateOwn(base + IMAGE.ONLINE)
  for (let apicId = 1; apicId < parameters.vcpus; apicId++) yield* startSvsmAp(ghcb, base, apicId)
  yield* handOverGuestMemory(state)
  yield* makeGuestBootVmsa(state, base, ghcb)
  yield* setUpInterrupts(state, base, 0)
  yield* requestLoop(state, 0)
}

/** An application processor at VMPL0; RDI holds its APIC ID. */
export function* svsmApplicationProcessor(state: SvsmState, base: number): Program {
  yield lidt(vcHandler)
  const apicId = (yield readRegister(VMSA.rdi)).lo
  yield* new Ghcb(svsmGhcbGpa(base, apicId)).setUp()
  yield* setUpInterrupts(state, base, apicId)
  yield write(base + IMAGE.ONLINE + apicId, 1, 1)
  yield* requestLoop(state, apicId)
}

/** Turns a page of the SVSM's own into a VMSA. Target VMPL1 with no rights: no guest level may read it. */
function* makeVmsa(gpa: number, bytes: Uint8Array): Program {
  yield* validateOwn(gpa)
  yield writeBytes(gpa, bytes)
  if ((yield rmpadjust(gpa, 1, 0, true)).lo !== 0) yield* terminate(TERMINATE.GENERAL)
}

/** Starts the SVSM on one AP and waits until it is there. */
function* startSvsmAp(ghcb: Ghcb, base: number, apicId: number): Program {
  const { lo: sevFeatures } = yield readRegister(VMSA.sev_features)
  const vmsaGpa = svsmVmsaGpa(base, apicId)
  yield* makeVmsa(vmsaGpa, apVmsa({ vmpl: 0, sevFeatures, codeBase: base, rip: IMAGE.AP_ENTRY, argument: apicId }))
  if (!(yield* ghcb.apCreation(AP_CREATION.CREATE, 0, apicId, vmsaGpa, sevFeatures))) {
    yield* terminate(TERMINATE.GENERAL)
  }
  while ((yield read(base + IMAGE.ONLINE + apicId, 1)).lo === 0) yield pause()
}

/** Builds the guest's boot VMSA and registers it with the host: it runs when the guest's level is asked for. */
function* makeGuestBootVmsa(state: SvsmState, base: number, ghcb: Ghcb): Program {
  const { resetVector, callingAreaGpa, guestVmpl: vmpl } = state.parameters
  // As after a processor reset: the segment's base is the 64 KiB that end at the vector's page.
  const codeBase = resetVector - (resetVector % 0x1_0000)
  const { lo: own } = yield readRegister(VMSA.sev_features)
  const sevFeatures = state.parameters.interrupts?.guestFeatures ?? own
  if (!canServe(sevFeatures, own)) yield* terminate(TERMINATE.GENERAL)
  state.startUpFeatures = sevFeatures
  const vmsaGpa = base + IMAGE.GUEST_VMSA
  yield* makeVmsa(vmsaGpa, apVmsa({ vmpl, sevFeatures, codeBase, rip: resetVector - codeBase, argument: 0 }))
  state.register({ vmsaGpa, caGpa: callingAreaGpa, apicId: 0, vmpl, guestOwned: false })
  const registered = yield* ghcb.apCreation(AP_CREATION.CREATE_ON_INIT, vmpl, 0, vmsaGpa, sevFeatures)
  if (!registered) yield* terminate(TERMINATE.GENERAL)
}
