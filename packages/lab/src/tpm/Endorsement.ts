import * as Effect from "effect/Effect"
import { endorsementTemplate } from "../attestation/EndorsementPublic.ts"
import { RunFailed } from "../RunFailed.ts"
import type { TpmBackEnd } from "./Swtpm.ts"
import {
  flushContext,
  responseCode,
  startupClear,
  TPM_CC,
  TPM_RC,
  u16,
  u32,
  WITH_SESSIONS,
  withSize
} from "./TpmMessage.ts"

const RH_ENDORSEMENT = 0x4000_000b
/** Authorisation by an empty password. */
const RS_PW = 0x4000_0009

const sized = (bytes: Iterable<number>): ReadonlyArray<number> => {
  const list = [...bytes]
  return [...u16(list.length), ...list]
}

const createPrimaryEk = (): Uint8Array => {
  const password = [...u32(RS_PW), ...sized([]), 0, ...sized([])]
  const sensitive = [...sized([]), ...sized([])]
  return withSize([
    ...u16(WITH_SESSIONS),
    ...u32(0),
    ...u32(TPM_CC.CreatePrimary),
    ...u32(RH_ENDORSEMENT),
    ...u32(password.length),
    ...password,
    ...sized(sensitive),
    ...sized(endorsementTemplate()),
    ...sized([]),
    ...u32(0)
  ])
}

const must = (name: string, response: Uint8Array): Effect.Effect<Uint8Array, RunFailed> => {
  const code = responseCode(response)
  return code === TPM_RC.SUCCESS
    ? Effect.succeed(response)
    : Effect.fail(new RunFailed({ why: `the TPM answers ${name} with 0x${code.toString(16)}` }))
}

/**
 * The public part of a TPM's RSA-2048 endorsement key, a TPMT_PUBLIC: what an SVSM puts in the attestation manifest of
 * its vTPM. Asked before the guest boots, as an SVSM does; the TPM has its power off and on again behind it, so that the
 * guest finds it as if nobody had used it.
 */
export const ekPublic = Effect.fnUntraced(function* (tpm: TpmBackEnd) {
  yield* must("TPM2_Startup", yield* tpm.send(startupClear()))
  const response = yield* must("TPM2_CreatePrimary", yield* tpm.send(createPrimaryEk()))
  const view = new DataView(response.buffer, response.byteOffset, response.length)
  // Header, handle, size of the parameters, and then the public area with its size before it.
  const begin = 10 + 4 + 4
  const bytes = response.slice(begin + 2, begin + 2 + view.getUint16(begin))
  yield* must("TPM2_FlushContext", yield* tpm.send(flushContext(view.getUint32(10))))
  yield* tpm.powerCycle
  return bytes
})
