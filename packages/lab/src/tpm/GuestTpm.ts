import { SVSM_RESULT, VTPM_BUFFER } from "@vmpl-lab/guest"
import { type Protocol, SERVICE_GUID, type TpmPort, vtpm } from "@vmpl-lab/svsm"
import { OutsidePort } from "@vmpl-lab/vmpl"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { RunFailed } from "../RunFailed.ts"
import { GuestMachine, type GuestMachineOptions, type OutsideAnswerer } from "./GuestMachine.ts"
import type { TpmBackEnd } from "./Swtpm.ts"
import { tpmNs } from "./TpmCosts.ts"
import { responseCode, startupClear, TPM_RC, tpmError } from "./TpmMessage.ts"

/** One command's virtual time, and where it went; the parts add up. */
export interface TpmTiming {
  readonly ns: number
  /** Switches between the guest's level and VMPL0. */
  readonly switchNs: number
  /** What the SVSM does around the TPM, and the guest's driver. */
  readonly serviceNs: number
  readonly tpmNs: number
}

/** What somebody who uses a guest's TPM gets. */
export interface GuestTpmOutcome {
  readonly response: Uint8Array
  /** Result code of the SVSM. */
  readonly result: number
  readonly timing: TpmTiming
}

/** A guest with a TPM. */
export interface GuestTpm {
  /** One command on its way through guest and SVSM; several wait for each other. */
  readonly send: (command: Uint8Array, locality: number) => Effect.Effect<GuestTpmOutcome, RunFailed>
  /** The guest comes to its end. */
  readonly end: Effect.Effect<void, RunFailed>
  readonly guest: GuestMachine
}

/** What a driver tells its user when the SVSM refuses: the TPM's own code where one says it. */
const refusal = (locality: number, length: number): number => {
  if (locality !== 0) return TPM_RC.LOCALITY
  return length > VTPM_BUFFER.REQUEST.DATA_MAX ? TPM_RC.COMMAND_SIZE : TPM_RC.FAILURE
}

/** The vTPM protocol with the TPM behind it. */
export interface TpmService {
  readonly service: Protocol
  readonly answerer: OutsideAnswerer
  /** Virtual ns of the TPM's own work so far. */
  readonly workedNs: () => number
}

/** A TPM as one SVSM serves it. */
export const tpmService = (tpm: TpmBackEnd): TpmService => {
  const port: TpmPort = new OutsidePort()
  let worked = 0
  const answer = Effect.suspend(() => {
    const command = port.open!.ask
    const ns = tpmNs(command)
    return Effect.map(tpm.send(command), (response) => {
      worked += ns
      port.answer({ response, ns })
    })
  })
  return { service: vtpm(port), answerer: { port, answer }, workedNs: () => worked }
}

/** Boots a guest whose SVSM has a TPM; its firmware has started the TPM up when this returns. */
export const guestTpm = Effect.fnUntraced(function* (
  tpm: TpmBackEnd,
  options: Omit<GuestMachineOptions, "services" | "answerers"> & {
    /** TPMT_PUBLIC of the TPM's EK, which the SVSM then attests; without it the service says nothing of itself. */
    readonly endorsementKey?: Uint8Array | undefined
  }
) {
  const { endorsementKey } = options
  const { service, answerer, workedNs } = tpmService(tpm)
  const guest = new GuestMachine({ ...options, services: [service], answerers: [answerer] })
  if (endorsementKey !== undefined) {
    guest.machine.svsm.services.push({ guid: SERVICE_GUID.VTPM, bytes: () => endorsementKey })
  }
  const turn = Semaphore.makeUnsafe(1)
  const send: GuestTpm["send"] = (command, locality) =>
    Effect.gen(function* () {
      const before = workedNs()
      const { result, response, ns, switchNs } = yield* guest.run({
        kind: "tpm",
        command,
        locality,
        size: command.length
      })
      const inTpm = workedNs() - before
      const timing = { ns, switchNs, tpmNs: inTpm, serviceNs: ns - switchNs - inTpm }
      const served = result === SVSM_RESULT.SUCCESS
      return { response: served ? response : tpmError(refusal(locality, command.length)), result, timing }
      // A client that goes away must not leave the guest in the middle of a command.
    }).pipe(Effect.uninterruptible, turn.withPermits(1))
  yield* guest.boot
  const { response } = yield* send(startupClear(), 0)
  if (responseCode(response) !== TPM_RC.SUCCESS) {
    return yield* new RunFailed({ why: `the TPM answers TPM2_Startup with 0x${responseCode(response).toString(16)}` })
  }
  const end = turn.withPermits(1)(guest.end)
  return { send, end, guest } satisfies GuestTpm as GuestTpm
})
