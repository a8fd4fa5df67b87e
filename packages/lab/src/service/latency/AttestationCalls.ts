import { ATTEST_PAGES, ATTESTATION_CALL, attestOperation, type ClientJob, PROTOCOL } from "@vmpl-lab/guest"
import { guidBytes } from "@vmpl-lab/sev-es"
import { SERVICE_GUID } from "@vmpl-lab/svsm"
import { testEndorsementPublic } from "../../attestation/EndorsementPublic.ts"
import { type CallGroup, callJob, pagesFrom, pvalidateJob } from "./CallGroup.ts"

const NONCE = new Uint8Array(64).fill(0x5a)
const PAGES = (ATTEST_PAGES.SIZE - ATTEST_PAGES.OPERATION) / 0x1000

const attest = (gpa: number, single: boolean, certificatePages: number): ClientJob => {
  const service = single ? guidBytes(SERVICE_GUID.VTPM) : null
  return callJob(
    PROTOCOL.ATTESTATION,
    single ? ATTESTATION_CALL.ATTEST_SINGLE_SERVICE : ATTESTATION_CALL.ATTEST_SERVICES,
    { rcx: gpa + ATTEST_PAGES.OPERATION },
    [
      { gpa: gpa + ATTEST_PAGES.OPERATION, bytes: attestOperation(gpa, NONCE.length, service, certificatePages) },
      { gpa: gpa + ATTEST_PAGES.NONCE, bytes: NONCE }
    ]
  )
}

/** Both calls of the attestation protocol. What the one service says of itself is the key of the project's own test EK. */
export const attestationCalls: CallGroup = {
  protocol: "attestation",
  prepare: ({ services }) => services.push({ guid: SERVICE_GUID.VTPM, bytes: testEndorsementPublic }),
  setUp: ({ buffers: [list], pages }) => [pvalidateJob(list!, pagesFrom(pages + ATTEST_PAGES.OPERATION, PAGES, true))],
  calls: ({ pages }) =>
    [false, true].flatMap((single) =>
      [0, ATTEST_PAGES.CERTIFICATE_PAGES].map((certificatePages) => {
        const job = attest(pages, single, certificatePages)
        const call = single ? "ATTEST_SINGLE_SERVICE" : "ATTEST_SERVICES"
        return { name: certificatePages === 0 ? call : `${call}, certificates`, job: () => job }
      })
    )
}
