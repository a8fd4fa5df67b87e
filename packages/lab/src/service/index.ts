export { serviceTrouble } from "./CheckService.ts"
export * from "./Define.ts"
export { HANDLER_COST, hostService } from "./Handlers.ts"
export {
  type CallGroup,
  callJob,
  type LatencyCall,
  type LatencyPlace,
  pagesFrom,
  pvalidateJob
} from "./latency/CallGroup.ts"
