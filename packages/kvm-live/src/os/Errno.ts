import { constants } from "node:os"

const NAMES = new Map<number, string>(Object.entries(constants.errno).map(([name, value]) => [value, name]))

/** What some errnos usually mean here, for people. */
const MEANING: { readonly [name: string]: string } = {
  EACCES: "this user may not open it",
  EPERM: "not allowed",
  ENOENT: "it does not exist",
  ENODEV: "KVM has no hardware or backend to run on",
  EMFILE: "the limit of open files is reached (RLIMIT_NOFILE)",
  ENFILE: "the system's limit of open files is reached",
  ENOMEM: "out of memory, or a limit of locked memory or mappings is reached",
  EAGAIN: "a limit of processes or locked memory is reached",
  EEXIST: "it exists already",
  EINVAL: "this KVM does not take it",
  ENOTTY: "this KVM does not know it",
  EFAULT: "KVM could not read or write the argument"
}

/** Name of an errno, such as EINVAL. */
export const errnoName = (errno: number): string => NAMES.get(errno) ?? `errno ${errno}`

/** Name and meaning, as an error line shows them. */
export const errnoText = (errno: number): string => {
  const name = errnoName(errno)
  const meaning = MEANING[name]
  return meaning === undefined ? name : `${name} (${meaning})`
}
