import {
  apCreationBoot,
  BARE_AP_ENTRY_GPA,
  type BarePlan,
  createdAp,
  initSipiAp,
  initSipiBoot,
  jumpTableAp,
  jumpTableBoot,
  restartedAp
} from "@vmpl-lab/guest"
import { BARE_HEAP_GPA, type BareGuest, type BareMachine } from "./BareMachine.ts"
import { everyEventGuest } from "./EveryEventGuest.ts"

/** vCPUs of a guest without an SVSM unless told otherwise. */
export const USUAL_VCPUS = 16

const planOf = ({ vcpus, cpuidGpa }: BareMachine, snp: boolean): BarePlan => ({
  vcpus,
  heapGpa: BARE_HEAP_GPA,
  snp,
  ...(snp ? { cpuidGpa } : {})
})

/** SEV-ES: INIT and SIPI start the VMSAs that were launched. */
const initSipi = (): BareGuest => ({
  kind: "sev-es",
  boot: (machine) => initSipiBoot(planOf(machine, false)),
  ap: (machine) => initSipiAp(planOf(machine, false))
})

/** SEV-ES: firmware starts and holds the APs, the operating system restarts them through the AP jump table. */
const apJumpTable = (): BareGuest => ({
  kind: "sev-es",
  boot: (machine) => jumpTableBoot(planOf(machine, false)),
  ap: (machine) => jumpTableAp(planOf(machine, false)),
  // The jump leaves the firmware's program for good: this one's end is the vCPU's.
  prepare: (machine) => machine.install(BARE_AP_ENTRY_GPA, () => restartedAp(planOf(machine, false)))
})

/** SNP at VMPL0: AP creation. */
const apCreation = (): BareGuest => ({
  kind: "snp",
  boot: (machine) => apCreationBoot(planOf(machine, true)),
  ap: (machine) => createdAp(planOf(machine, true)),
  prepare: (machine) => machine.install(BARE_AP_ENTRY_GPA, () => createdAp(planOf(machine, true)))
})

/** Guests without an SVSM by the names that `vmpl-lab trace` knows. */
export const BARE_GUESTS = {
  "init-sipi": initSipi,
  "ap-jump-table": apJumpTable,
  "ap-creation": apCreation,
  events: everyEventGuest
} as const
export type BareGuestName = keyof typeof BARE_GUESTS
