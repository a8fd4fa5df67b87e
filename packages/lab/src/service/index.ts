export { HANDLER_COST } from "./Capabilities.ts"
export { serviceTrouble } from "./CheckService.ts"
export * from "./Define.ts"
export { type HostedService, hostService } from "./Handlers.ts"
export {
  type CallGroup,
  callJob,
  type LatencyCall,
  type LatencyPlace,
  pagesFrom,
  pvalidateJob
} from "./latency/CallGroup.ts"
export { type RunServiceOptions, runService, type ServiceRun } from "./RunService.ts"
export {
  type BytesField,
  bytes,
  decodeStruct,
  encodeStruct,
  type StructField,
  type StructFields,
  structSize
} from "./Struct.ts"
