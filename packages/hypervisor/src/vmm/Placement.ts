import { PRIMITIVE } from "@vmpl-lab/sim"

/**
 * Where the VMM's vCPU threads may run. `spread`: each is pinned to a core of its own while there are enough;
 * `same-core`: all threads of one guest vCPU are pinned to one core; `two-cores`: those at VMPL0 are pinned to one core
 * of the guest vCPU, all others to a second one; `unpinned`: the scheduler places them.
 */
export const PLACEMENTS = ["spread", "same-core", "two-cores", "unpinned"] as const
export type Placement = (typeof PLACEMENTS)[number]

/** One thread's core, whatever the placement says; without a VMPL, the core of all threads of that guest vCPU. */
export interface Pin {
  readonly vcpu: number
  readonly vmpl?: number | undefined
  readonly core: number
}

/**
 * The core to which a vCPU thread is pinned, or -1; the host takes it modulo its cores.
 * @param vmpl the level of the thread's vCPU object; -1 when it holds them all
 * @param thread the number that the thread will have on the host
 */
export const affinityOf = (
  placement: Placement,
  pins: ReadonlyArray<Pin>,
  apicId: number,
  vmpl: number,
  thread: number
): number => {
  const own = pins.filter((pin) => pin.vcpu === apicId)
  const pin = own.find((pin) => pin.vmpl === vmpl) ?? own.find((pin) => pin.vmpl === undefined)
  if (pin !== undefined) return pin.core
  switch (placement) {
    case "spread":
      return thread
    case "same-core":
      return apicId
    case "two-cores":
      return 2 * apicId + (vmpl > 0 ? 1 : 0)
    case "unpinned":
      return -1
  }
}

/** By which system calls one thread of the VMM lets another one run: the step of the waker and the step of the sleeper. */
export const HAND_OFF = {
  futex: { signal: PRIMITIVE.futex_wake, wait: PRIMITIVE.futex_wait },
  eventfd: { signal: PRIMITIVE.eventfd_signal, wait: PRIMITIVE.eventfd_wait }
} as const
export type HandOffMeans = keyof typeof HAND_OFF

export const HAND_OFF_MEANS = ["futex", "eventfd"] as const satisfies ReadonlyArray<HandOffMeans>
