import {
  EDU_MSI_VECTOR,
  EDU_PIN,
  EVERY_FEATURE,
  type EveryEventPlan,
  everyEventAp,
  everyEventBoot
} from "@vmpl-lab/guest"
import { DEFAULT_CAPABILITIES, decodeMsi, EduDevice, Uart } from "@vmpl-lab/hypervisor"
import { BARE_HEAP_GPA, type BareGuest, type BareMachine } from "./BareMachine.ts"

/** Where the devices are, above all memory. */
const EDU_GPA = 0xd000_0000
const EDU_MSI_GPA = 0xd000_1000

const planOf = (machine: BareMachine): EveryEventPlan => ({
  vcpus: machine.vcpus,
  heapGpa: BARE_HEAP_GPA,
  snp: true,
  cpuidGpa: machine.cpuidGpa,
  edu: EDU_GPA,
  eduMsi: EDU_MSI_GPA,
  hvFeatures: EVERY_FEATURE,
  checked: (event, ok) => {
    machine.checks.push({ event, ok })
    if (!ok) machine.platform.vmm.fail(`the answer to ${event} is not what the protocol says`)
  }
})

/** SNP at VMPL0: every event and every MSR request once, on a host that offers all of them, with devices. */
export const everyEventGuest = (): BareGuest => ({
  kind: "snp",
  vmConfig: { hvFeatures: EVERY_FEATURE, capabilities: { ...DEFAULT_CAPABILITIES, tscExit: true } },
  boot: (machine) => everyEventBoot(planOf(machine)),
  // The second vCPU holds; any further one has nothing to do.
  ap: (machine) => everyEventAp(planOf(machine)),
  vcpus: 2,
  prepare: (machine) => {
    const { vmm } = machine.platform
    vmm.devices.addPort(new Uart())
    vmm.devices.addMmio(new EduDevice(EDU_GPA, (level) => vmm.owner.irqchip?.ioapic.setIrq(EDU_PIN, level)))
    const message = decodeMsi(0xfee0_0000, 0, EDU_MSI_VECTOR)
    vmm.devices.addMmio(
      new EduDevice(EDU_MSI_GPA, (level) => {
        if (level) vmm.owner.irqchip?.deliver({ message, vmpl: 0 })
      })
    )
  }
})
