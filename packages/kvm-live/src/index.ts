/** Real KVM on this machine: for now, whether it is there to be measured. */
export * from "./KvmDevice.ts"
