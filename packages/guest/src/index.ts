export * from "./ApJumpTable.ts"
export * from "./ApVmsa.ts"
export * from "./CpuidTable.ts"
export * from "./Ghcb.ts"
export * from "./GuestIdt.ts"
export * from "./GuestMessenger.ts"
export * from "./ghcb/Control.ts"
export {
  type EventFields,
  type Failure,
  type Outcome,
  REFUSED,
  type RegisterName,
  type Reply,
  type ReplyName,
  VMM_ERROR
} from "./ghcb/Exchange.ts"
export * from "./ghcb/GuestRequest.ts"
export * from "./ghcb/Instructions.ts"
export * from "./ghcb/Interrupts.ts"
export * from "./ghcb/Mmio.ts"
export * from "./ghcb/PageStateChanges.ts"
export * from "./ghcb/PortIo.ts"
export * from "./ghcb/Processors.ts"
export { copyBytes, xchg8Shared } from "./ghcb/SharedMemory.ts"
export * from "./HvHandler.ts"
export * from "./InitSipi.ts"
export * from "./MsrProtocol.ts"
export * from "./PvalidateList.ts"
export * from "./programs/Attest.ts"
export * from "./programs/BareBoot.ts"
export * from "./programs/BarePlan.ts"
export * from "./programs/CallClient.ts"
export * from "./programs/EveryEvent.ts"
export * from "./programs/FourLevels.ts"
export * from "./programs/GuestBody.ts"
export * from "./programs/GuestBoot.ts"
export * from "./programs/GuestPlan.ts"
export * from "./programs/Hands.ts"
export * from "./programs/InterruptGuest.ts"
export * from "./programs/LowerLevels.ts"
export * from "./programs/MemoryAcceptance.ts"
export * from "./programs/Pace.ts"
export * from "./programs/Probes.ts"
export * from "./programs/Workload.ts"
export * from "./SvsmCall.ts"
export * from "./VcHandler.ts"
export * from "./VtpmDriver.ts"
export * from "./X2apic.ts"
