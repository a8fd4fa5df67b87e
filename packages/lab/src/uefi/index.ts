export { type UefiVariableJob, uefiVariableJobs } from "../service/UefiVariableJobs.ts"
export { pkcs7Verifier } from "./Pkcs7.ts"
export { platformKey } from "./PlatformKey.ts"
