import { APIC_CALL, APIC_CONFIGURE, APIC_VECTOR, PROTOCOL, X2APIC } from "@vmpl-lab/guest"
import { type CallGroup, callJob } from "./CallGroup.ts"

/** A vector of the guest's that no interrupt comes with. */
const VECTOR = 0x40

const apic = (name: string, call: number, registers: { readonly rcx?: number; readonly rdx?: number } = {}) => {
  const job = callJob(PROTOCOL.APIC, call, registers)
  return { name, job: () => job }
}

/** The five calls of the APIC protocol. */
export const apicCalls: CallGroup = {
  protocol: "APIC",
  alternateInjection: true,
  calls: () => [
    apic("QUERY_FEATURES", APIC_CALL.QUERY_FEATURES),
    apic("CONFIGURE, query", APIC_CALL.CONFIGURE, { rcx: APIC_CONFIGURE.QUERY }),
    apic("READ_REGISTER, TPR", APIC_CALL.READ_REGISTER, { rcx: X2APIC.TPR }),
    apic("WRITE_REGISTER, TPR", APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.TPR, rdx: 0 }),
    apic("WRITE_REGISTER, EOI", APIC_CALL.WRITE_REGISTER, { rcx: X2APIC.EOI, rdx: 0 }),
    apic("CONFIGURE_VECTOR, one", APIC_CALL.CONFIGURE_VECTOR, { rcx: APIC_VECTOR.ENABLE | VECTOR }),
    apic("CONFIGURE_VECTOR, all", APIC_CALL.CONFIGURE_VECTOR, { rcx: APIC_VECTOR.ENABLE | APIC_VECTOR.ALL })
  ]
}
