import { EXIT } from "@vmpl-lab/sev-es"
import {
  APIC_REG,
  ApicMap,
  type ApicMessage,
  DELIVERY_MODE,
  encodeIcr,
  IoApic,
  Lapic,
  x2apicMsr
} from "../apic/index.ts"
import { kick, kickFromInterrupt } from "./Kick.ts"
import { monitorOf } from "./LowerLevels.ts"
import { REQUEST, type Vcpu } from "./Vcpu.ts"
import type { Vm } from "./Vm.ts"

/** Where an interrupt of the VM goes: to the local APICs of one VMPL. */
export interface IrqRoute {
  readonly message: ApicMessage
  readonly vmpl: number
  /** Observer: when the source raised it, in virtual ns, where that was before it reached KVM. */
  readonly raisedAt?: number
}

/**
 * The interrupt controllers of one VM object: a local APIC for each vCPU object, whichever VMPLs that holds, and an I/O
 * APIC. Interrupts from outside carry the level that they are for; IPIs stay at the sender's.
 *
 * Where several vCPU objects of one VM have the same APIC ID, the APIC map is one per level, as the 2023 VSM series had
 * one per group of APIC IDs and the planes series has one per plane: the level decides the map, the destination the APIC
 * in it. A map for all levels would bring every message to as many APICs as there are levels.
 */
export class Irqchip {
  readonly #vm: Vm
  readonly #vcpuOf = new Map<Lapic, Vcpu>()
  readonly ioapic: IoApic
  /** Level that interrupts of the I/O APIC go to. */
  ioapicVmpl = 0
  readonly #map = new ApicMap()
  /** For the trace: what is on its way to the APICs. */
  #delivering: ApicMessage | null = null
  /** Observer: when what is on its way was raised; -1 for just now. */
  #raisedAt = -1

  constructor(vm: Vm) {
    this.#vm = vm
    this.ioapic = new IoApic((message) => this.deliver({ message, vmpl: this.ioapicVmpl }))
  }

  /** KVM_CREATE_VCPU with an irqchip in the kernel. */
  addVcpu(vcpu: Vcpu): void {
    const { host } = this.#vm.kvm
    let timer = -1
    const lapic: Lapic = new Lapic(
      vcpu.apicId,
      {
        now: () => this.#now(),
        armTimer: (at) => {
          if (timer >= 0) host.cancelTimer(timer)
          timer =
            at === null
              ? -1
              : host.setTimer(Math.ceil(at), () => {
                  timer = -1
                  this.#fromInterrupt(() => lapic.timerExpired())
                })
        },
        send: (message) => this.send(vcpu, message),
        endOfInterrupt: (vector) => this.ioapic.endOfInterrupt(vector),
        raise: () => this.#raise(vcpu),
        requested: (vector, merged) => {
          const time = this.#raisedAt >= 0 ? this.#raisedAt : this.#now()
          this.#vm.kvm.interruptMeter?.requested(vcpu.apicId, vector, merged, time)
        }
      },
      vcpu.apicId === 0
    )
    vcpu.lapic = lapic
    this.#vcpuOf.set(lapic, vcpu)
  }

  /** Interrupts from outside of the guest: MSIs, routes. @returns how many APICs took it */
  deliver({ message, vmpl, raisedAt = -1 }: IrqRoute): number {
    const level = this.#vm.operations.outsideVmpl?.(this.#vm, vmpl) ?? vmpl
    this.#raisedAt = raisedAt
    const taken = this.#deliver(message, (vcpu) => vcpu.slot(level) !== undefined)
    this.#raisedAt = -1
    return taken
  }

  /** An IPI of a vCPU: it stays at the sender's level. */
  send(from: Vcpu, message: ApicMessage): void {
    const { kvm } = this.#vm
    if (kvm.trace !== null && kvm.running !== null) {
      kvm.trace.apicIpi(kvm.running, encodeIcr(message).lo, message.destination)
    }
    this.#deliver(message, (vcpu) => vcpu.current.vmpl === from.current.vmpl || vcpu.slots.length > 1)
  }

  /** kvm_eoi, before a vCPU's EOI takes effect: the vector of highest priority that is in service. */
  observeEoi({ lapic, apicId, current }: Vcpu): void {
    const { trace, running, interruptMeter } = this.#vm.kvm
    if (running === null || lapic === null) return
    const foundWithoutRing = interruptMeter !== null && current.doorbellVector >= 0
    if (trace === null && !foundWithoutRing) return
    const vector = highestInService(lapic)
    if (vector < 0) return
    trace?.eoi(running, apicId, vector)
    if (!foundWithoutRing || vector !== current.doorbellVector) return
    // It was put beside what the guest had not looked at yet: no #HV came for it, and the end is the first that shows.
    interruptMeter.delivered(apicId, current.vmpl, vector, running.time)
    current.doorbellVector = -1
  }

  #deliver(message: ApicMessage, isMeant: (vcpu: Vcpu) => boolean): number {
    const lapics = [...this.#vcpuOf].filter(([, vcpu]) => isMeant(vcpu)).map(([lapic]) => lapic)
    this.#delivering = message
    const taken = this.#map.deliver(message, lapics)
    this.#delivering = null
    if (taken === 0 && hasVector(message)) this.#vm.kvm.interruptMeter?.refused(message.vector)
    return taken
  }

  /** Runs something in the context of a timer's interrupt: no thread is behind it. */
  #fromInterrupt(expired: () => void): void {
    const { kvm } = this.#vm
    const { running } = kvm
    kvm.running = null
    expired()
    kvm.running = running
  }

  /** kvm_make_request(KVM_REQ_EVENT) and kick: the vCPU looks at its local APIC before it goes on. */
  #raise(meant: Vcpu): void {
    const { running, host, trace } = this.#vm.kvm
    // What the host may not inject is an event of the level that may.
    const vcpu = monitorOf(meant) ?? meant
    vcpu.requests |= REQUEST.EVENT
    if (trace !== null && running !== null && this.#delivering !== null) {
      const { deliveryMode, levelTriggered, vector } = this.#delivering
      trace.apicAcceptIrq(running, vcpu.apicId, deliveryMode, levelTriggered, vector)
    }
    if (vcpu.common.current !== vcpu) this.#vm.operations.wakeLevel(vcpu, vcpu.current.vmpl, running)
    else if (running === null) kickFromInterrupt(vcpu, host.now, EXIT.INTR)
    else if (running !== vcpu.thread) kick(vcpu, running, null)
  }

  /** Virtual ns, as whoever acts has it: a thread in KVM's code, or an interrupt. */
  #now(): number {
    return this.#vm.kvm.running?.time ?? this.#vm.kvm.host.now
  }
}

const hasVector = ({ deliveryMode }: ApicMessage): boolean =>
  deliveryMode === DELIVERY_MODE.FIXED || deliveryMode === DELIVERY_MODE.LOWEST_PRIORITY

/** The vector of highest priority in service, or -1. */
const highestInService = (lapic: Lapic): number => {
  for (let word = 7; word >= 0; word--) {
    const bits = lapic.x2apic
      ? (lapic.readMsr(x2apicMsr(APIC_REG.ISR + 16 * word))?.lo ?? 0)
      : (lapic.read(APIC_REG.ISR + 16 * word) ?? 0)
    if (bits !== 0) return 32 * word + 31 - Math.clz32(bits)
  }
  return -1
}
