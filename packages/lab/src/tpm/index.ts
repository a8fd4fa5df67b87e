export { CLIENT_LEVELS, type ClientLevels, PLAIN_LEVELS, SERVICE_LEVELS } from "./ClientWork.ts"
export { ekPublic } from "./Endorsement.ts"
export { GuestMachine, type GuestMachineOptions, type JobOutcome, type OutsideAnswerer } from "./GuestMachine.ts"
export { type GuestTpm, type GuestTpmOutcome, guestTpm, type TpmTiming } from "./GuestTpm.ts"
export { type ListenAddress, listenAddress, type ProxyOptions, serveProxy } from "./ProxyServer.ts"
export { serviceGuest, serviceScenario } from "./ServiceGuest.ts"
export { SWTPM_MISSING, swtpm, type TpmBackEnd } from "./Swtpm.ts"
export { costClass, TPM_COSTS, TPM_COSTS_SOURCE, tpmNs } from "./TpmCosts.ts"
export {
  commandName,
  createdType,
  flushContext,
  framingError,
  responseCode,
  startupClear,
  TPM_CC,
  TPM_RC,
  tpmError,
  WITH_SESSIONS,
  withSize
} from "./TpmMessage.ts"
