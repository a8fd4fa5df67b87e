export { serviceTrouble } from "./CheckService.ts"
export * from "./Define.ts"
export { HANDLER_COST, hostService } from "./Handlers.ts"
