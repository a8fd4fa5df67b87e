import { type Attested, attestBody, GUEST_VMPL } from "@vmpl-lab/guest"
import type { Strategy } from "@vmpl-lab/hv-strategies"
import { type IgvmFile, measureSnp } from "@vmpl-lab/hypervisor"
import type { EndorsementKey, PlatformIdentity, PlatformIdentityOptions, ReportVersion } from "@vmpl-lab/psp"
import { CERTIFICATE_GUID, encodeCertificateTable, guidBytes } from "@vmpl-lab/sev-es"
import type { Profile } from "@vmpl-lab/sim"
import type { Protocol, ServiceManifest } from "@vmpl-lab/svsm"
import { builtInFirmware } from "../Compare.ts"
import { DEFAULT_SCENARIO } from "../DefaultScenario.ts"
import { igvmLaunch } from "../IgvmLaunch.ts"
import { Machine } from "../Machine.ts"
import { RunFailed } from "../RunFailed.ts"
import { svsmLaunch } from "../SvsmLaunch.ts"
import { certificateChain } from "./Certificates.ts"

/** Processors that reports can be of, with TCBs of their kind. */
export const PROCESSORS = {
  Milan: { fms: 0xa00f11, currentTcb: { bootLoader: 4, tee: 0, snp: 24, microcode: 219 } },
  Genoa: {},
  Turin: { fms: 0xb00f21, currentTcb: { fmc: 1, bootLoader: 1, tee: 1, snp: 4, microcode: 81 } }
} as const satisfies { readonly [name: string]: PlatformIdentityOptions }
export type AttestProcessor = keyof typeof PROCESSORS

/** What is asked of a guest that is booted for it. */
export interface AttestInput {
  /** Level that the report is about; 0: the SVSM's services. */
  readonly vmpl: number
  /** 64 bytes. */
  readonly nonce: Uint8Array
  /** GUID of the one service asked for; null: all. */
  readonly service: string | null
  /** Services that attest, beside those of `protocols`. */
  readonly services: ReadonlyArray<ServiceManifest>
  /** What the SVSM serves beside what it always does. */
  readonly protocols?: ReadonlyArray<Protocol>
  readonly key: EndorsementKey
  readonly reportVersion: ReportVersion
  /** Whose reports and certificates these are; Genoa's when left out. */
  readonly processor?: AttestProcessor | undefined
  readonly strategy: Strategy
  readonly profile: Profile
  readonly seed: number
  /** What the guest is launched from; the built-in firmware and SVSM when left out. */
  readonly igvm?: IgvmFile | undefined
}

export interface AttestOutcome extends Attested {
  /** Launch digest that the guest's owner expects, computed from what is launched, 48 bytes. */
  readonly measurement: Uint8Array
}

/** The guest's attestation pages lie behind its other ones, in the same 2 MiB of RAM. */
export const ATTEST_PAGES_OFFSET = 0x10_0000
const EVENTS_PER_CHUNK = 50_000

/** The certificates that the host has for its guests. */
export const hostCertificates = (identity: PlatformIdentity, kind: EndorsementKey): Uint8Array => {
  const { leaf, ask, ark } = certificateChain(identity, kind, identity.tcbBytes(identity.reportedTcb))
  return encodeCertificateTable([
    { guid: CERTIFICATE_GUID[kind], bytes: leaf },
    { guid: CERTIFICATE_GUID.ASK, bytes: ask },
    { guid: CERTIFICATE_GUID.ARK, bytes: ark }
  ])
}

/**
 * Boots a guest with its SVSM and has it ask for a report. Throws RunFailed when it does not come to its end; a refusal
 * is in the outcome's `result`.
 */
export const runAttest = (input: AttestInput): AttestOutcome => {
  const { vmpl, nonce, service, key, reportVersion, strategy, profile, seed, igvm, processor = "Genoa" } = input
  const guestVmpl = vmpl === 1 ? 1 : GUEST_VMPL
  const svsm = igvm === undefined ? svsmLaunch(builtInFirmware(), 1, { guestVmpl }) : igvmLaunch(igvm, 1, { guestVmpl })
  let attested: Attested | null = null
  const machine = new Machine({
    strategy,
    scenario: { ...DEFAULT_SCENARIO, vcpus: 1, calls: 0, boots: 1 },
    profile,
    seed,
    calls: true,
    svsm,
    guestVmpl,
    identity: { ...PROCESSORS[processor], vlekLoaded: key === "VLEK", reportVersion, aliasCheckComplete: true },
    services: input.protocols ?? [],
    certificates: (identity) => hostCertificates(identity, key),
    body: attestBody({
      gpa: svsm.heapGpa + ATTEST_PAGES_OFFSET,
      nonce,
      vmpl,
      service: service === null ? null : guidBytes(service),
      keySelect: 0,
      attested: (found) => {
        attested = found
      }
    })
  })
  machine.svsm.services.push(...input.services)
  while (machine.stepMany(EVENTS_PER_CHUNK));
  const failure = machine.failure() ?? (attested === null ? "the guest has not asked" : null)
  if (failure !== null) throw new RunFailed({ why: `${strategy.key}: ${failure}` })
  return { ...(attested as unknown as Attested), measurement: measureSnp(svsm.plan) }
}
