import { AP_CREATION } from "@vmpl-lab/sev-es"

/** An SNP AP creation as decoded from the GHCB. Nothing in it has been checked. @spec GHCB "SNP AP creation" */
export interface ApCreateRequest {
  /** sw_exit_info_1[15:0]: AP_CREATION. */
  readonly request: number
  readonly vmpl: number
  readonly apicId: number
  readonly vmsaGpa: number
  /** RAX: SEV_FEATURES of the new VMSA. */
  readonly sevFeatures: number
  /** VMPL that asks. */
  readonly fromVmpl: number
  readonly fromApicId: number
}

/** True for the requests that come with a VMSA. */
export const creates = (request: number): boolean =>
  request === AP_CREATION.CREATE || request === AP_CREATION.CREATE_ON_INIT
