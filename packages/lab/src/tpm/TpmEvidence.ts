import { ATTEST_PAGES, ATTESTATION_CALL, attestOperation, type ClientJob, PROTOCOL, SVSM_RESULT } from "@vmpl-lab/guest"
import { measureSnp } from "@vmpl-lab/hypervisor"
import { guidBytes, PAGE_SIZE } from "@vmpl-lab/sev-es"
import { SERVICE_GUID } from "@vmpl-lab/svsm"
import * as Effect from "effect/Effect"
import { ATTEST_PAGES_OFFSET } from "../attestation/AttestRun.ts"
import { evidenceFiles } from "../attestation/EvidenceFiles.ts"
import { RunFailed } from "../RunFailed.ts"
import type { SvsmLaunch } from "../SvsmLaunch.ts"
import { pagesFrom, pvalidateJob } from "../service/latency/CallGroup.ts"
import { resultName } from "../service/ServiceJobs.ts"
import type { GuestMachine } from "./GuestMachine.ts"

/** What the SVSM writes: from its report on to the end. */
const OUTPUT_PAGES = (ATTEST_PAGES.SIZE - ATTEST_PAGES.REPORT) / PAGE_SIZE
const PRIVATE_PAGES = (ATTEST_PAGES.SIZE - ATTEST_PAGES.OPERATION) / PAGE_SIZE

/**
 * A guest that is up asks its SVSM for the manifest of its vTPM: `report.bin`, certificates, manifest and what they are
 * about, by file name, as `attest` writes them.
 *
 * @param nonce 64 bytes
 */
export const tpmEvidence = Effect.fnUntraced(function* (guest: GuestMachine, svsm: SvsmLaunch, nonce: Uint8Array) {
  const gpa = svsm.heapGpa + ATTEST_PAGES_OFFSET
  const run = (what: string, job: ClientJob) =>
    Effect.flatMap(guest.run(job), (outcome) =>
      outcome.result === SVSM_RESULT.SUCCESS
        ? Effect.succeed(outcome)
        : Effect.fail(new RunFailed({ why: `${what}: the SVSM answers ${resultName(outcome.result)}` }))
    )
  const accepted = pagesFrom(gpa + ATTEST_PAGES.OPERATION, PRIVATE_PAGES, true)
  yield* run("PVALIDATE", pvalidateJob(guest.buffers[0]!, accepted))
  const service = guidBytes(SERVICE_GUID.VTPM)
  const operation = attestOperation(gpa, nonce.length, service, ATTEST_PAGES.CERTIFICATE_PAGES)
  const output = new Uint8Array(OUTPUT_PAGES * PAGE_SIZE)
  const { rcx, rdx, r8 } = yield* run("ATTEST_SINGLE_SERVICE", {
    kind: "call",
    protocol: PROTOCOL.ATTESTATION,
    call: ATTESTATION_CALL.ATTEST_SINGLE_SERVICE,
    registers: { rcx: gpa + ATTEST_PAGES.OPERATION },
    writes: [
      { gpa: gpa + ATTEST_PAGES.OPERATION, bytes: operation },
      { gpa: gpa + ATTEST_PAGES.NONCE, bytes: nonce }
    ],
    reads: Array.from({ length: OUTPUT_PAGES }, (_, page) => ({
      gpa: gpa + ATTEST_PAGES.REPORT + page * PAGE_SIZE,
      bytes: output.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
    }))
  })
  const at = (place: number, size: number): Uint8Array => {
    const begin = place - ATTEST_PAGES.REPORT
    return output.slice(begin, begin + size)
  }
  return evidenceFiles(
    { key: "VCEK", vmpl: 0, nonce, service: SERVICE_GUID.VTPM },
    {
      result: SVSM_RESULT.SUCCESS,
      manifest: at(ATTEST_PAGES.MANIFEST, rcx),
      certificates: at(ATTEST_PAGES.SVSM_CERTIFICATES, rdx),
      report: at(ATTEST_PAGES.REPORT, r8),
      measurement: measureSnp(svsm.plan)
    }
  )
})
