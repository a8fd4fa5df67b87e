import { type ClientJob, PROTOCOL, VTPM_CALL } from "@vmpl-lab/guest"
import type { TpmService } from "../../tpm/GuestTpm.ts"
import { commandName, tpmNs } from "../../tpm/index.ts"
import {
  flushContext,
  startupClear,
  TPM_ALG,
  TPM_CC,
  tpmError,
  u16,
  u32,
  WITH_SESSIONS,
  withSize
} from "../../tpm/TpmMessage.ts"
import { type CallGroup, callJob } from "./CallGroup.ts"

const RS_PW = 0x4000_0009
const RH_NULL = 0x4000_0007
const ALG = { AES: 0x0006, SHA256: 0x000b, NULL: 0x0010, CFB: 0x0043 } as const
const NIST_P256 = 3
/** fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, decrypt: a storage key. @spec TPM2-PART2 8.3 */
const STORAGE_ATTRIBUTES = 0x0003_0072
/** Handle of the first object that a TPM loads. @spec TPM2-PART2 7.4 */
const FIRST_TRANSIENT = 0x8000_0000
/** TPM_CAP_TPM_PROPERTIES, from PT_FIXED on. */
const CAPABILITY = { PROPERTIES: 6, FIRST: 0x100, COUNT: 8 } as const

/** A command whose one handle is authorised by an empty password. */
const authorised = (code: number, handle: number, parameters: ReadonlyArray<number>): Uint8Array =>
  withSize([
    ...u16(WITH_SESSIONS),
    ...u32(0),
    ...u32(code),
    ...u32(handle),
    ...u32(9),
    ...u32(RS_PW),
    ...[0, 0, 0, 0, 0],
    ...parameters
  ])

const plain = (code: number, parameters: ReadonlyArray<number>): Uint8Array =>
  withSize([...tpmError(code), ...parameters])

const pcrExtend = (): Uint8Array =>
  authorised(TPM_CC.PCR_Extend, 16, [...u32(1), ...u16(ALG.SHA256), ...new Uint8Array(32).fill(0xaa)])

/** PCR 16 of the SHA-256 bank. */
const pcrRead = (): Uint8Array => plain(TPM_CC.PCR_Read, [...u32(1), ...u16(ALG.SHA256), 3, 0, 0, 1])

const storageKey = (): Uint8Array => {
  const template = [
    ...u16(TPM_ALG.ECC),
    ...u16(ALG.SHA256),
    ...u32(STORAGE_ATTRIBUTES),
    ...u16(0),
    ...u16(ALG.AES),
    ...u16(128),
    ...u16(ALG.CFB),
    ...u16(ALG.NULL),
    ...u16(NIST_P256),
    ...u16(ALG.NULL),
    ...u16(0),
    ...u16(0)
  ]
  const sensitive = [...u16(4), ...u16(0), ...u16(0)]
  return authorised(TPM_CC.CreatePrimary, RH_NULL, [
    ...sensitive,
    ...u16(template.length),
    ...template,
    ...u16(0),
    ...u32(0)
  ])
}

const tpm = (command: Uint8Array): ClientJob => ({ kind: "tpm", command, locality: 0, size: command.length })

const { PROPERTIES, FIRST, COUNT } = CAPABILITY

const COMMANDS: ReadonlyArray<readonly [command: Uint8Array, detail: string]> = [
  [plain(TPM_CC.GetRandom, u16(16)), ""],
  [plain(TPM_CC.GetCapability, [...u32(PROPERTIES), ...u32(FIRST), ...u32(COUNT)]), ""],
  [pcrRead(), ""],
  [pcrExtend(), ""],
  [storageKey(), ", P-256"],
  [flushContext(FIRST_TRANSIENT), ""]
]

/** Both calls of the vTPM protocol, the second with some commands. */
export const vtpmCalls = ({ service, answerer }: TpmService): CallGroup => ({
  protocol: "vTPM",
  services: [service],
  answerers: [answerer],
  setUp: () => [tpm(startupClear())],
  calls: () => [
    { name: "VTPM_QUERY", job: () => callJob(PROTOCOL.VTPM, VTPM_CALL.QUERY, {}) },
    ...COMMANDS.map(([command, detail]) => ({
      name: `VTPM_CMD, ${commandName(command)}${detail}`,
      job: () => tpm(command),
      givenNs: tpmNs(command)
    }))
  ]
})
