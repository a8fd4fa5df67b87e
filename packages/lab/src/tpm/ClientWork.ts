import { type ClientPort, callClient, clientBelow, levelEntry, lowerClient } from "@vmpl-lab/guest"
import { levelOneServices, type ServeCall } from "@vmpl-lab/svsm"
import type { LaunchNeeds } from "../SvsmLaunch.ts"
import type { Work } from "../workloads/Work.ts"

/** Levels at which somebody can call, and at which a service can run. */
export const CLIENT_LEVELS = [1, 2, 3] as const
export const SERVICE_LEVELS = [0, 1] as const

/** Who calls from where, and where services are. */
export interface ClientLevels {
  readonly vmpl: (typeof CLIENT_LEVELS)[number]
  /** 0: in the SVSM; 1: in a program at VMPL1 that boots the guest. Less than `vmpl`. */
  readonly serviceVmpl: (typeof SERVICE_LEVELS)[number]
}

/** A guest at VMPL2 with its services at VMPL0. */
export const PLAIN_LEVELS: ClientLevels = { vmpl: 2, serviceVmpl: 0 }

/** Level at which the guest boots, and the ones below that its vCPU gets. */
const levelsOf = ({ vmpl, serviceVmpl }: ClientLevels) => {
  if (serviceVmpl === 1) return { guestVmpl: 1, lowerLevels: [vmpl] }
  return vmpl === 3 ? { guestVmpl: 2, lowerLevels: [3] } : { guestVmpl: vmpl, lowerLevels: [] }
}

/** What such a guest's launch needs. */
export const clientNeeds = (levels: ClientLevels): Partial<LaunchNeeds> => {
  const { guestVmpl, lowerLevels } = levelsOf(levels)
  return { guestVmpl, lowerLevels: lowerLevels.length }
}

/** The guest's programs. @param calls what VMPL1 serves, by protocol; of no use where services are at VMPL0 */
export const clientWork = (
  port: ClientPort,
  levels: ClientLevels,
  calls: ReadonlyMap<number, ServeCall> = new Map()
): Work => {
  const { vmpl, serviceVmpl } = levels
  const { guestVmpl, lowerLevels } = levelsOf(levels)
  const isBelow = lowerLevels.length > 0
  const served = serviceVmpl === 1 ? calls : new Map<number, ServeCall>()
  const body =
    serviceVmpl === 1
      ? levelOneServices({ clientVmpl: vmpl, calls: served })
      : isBelow
        ? clientBelow(vmpl)
        : callClient(port)
  return {
    needs: clientNeeds(levels),
    guest: () => ({ guestVmpl, lowerLevels, body }),
    install: (programs, plan) => {
      if (!isBelow) return
      programs.install(levelEntry(vmpl), () =>
        lowerClient(port, plan, { vmpl, servedByBootLevel: new Set(served.keys()) })
      )
    }
  }
}
