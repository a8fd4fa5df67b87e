import { accessSync, constants, statSync } from "node:fs"

/** Whether this machine offers KVM to this user. */
export type KvmDevice =
  | { readonly state: "usable"; readonly path: string }
  | { readonly state: "absent" | "not a device" | "no permission"; readonly path: string; readonly why: string }

/** Linux' device node of KVM. */
export const KVM_DEVICE = "/dev/kvm"

/**
 * Looks at the device node without opening it: live measurements need it there, a character device, readable and
 * writable. One line says what is missing.
 */
export const probeKvmDevice = (path: string = KVM_DEVICE): KvmDevice => {
  const node = statSync(path, { throwIfNoEntry: false })
  if (node === undefined)
    return { state: "absent", path, why: `${path} does not exist: KVM is not loaded or not offered` }
  if (!node.isCharacterDevice()) return { state: "not a device", path, why: `${path} is no character device` }
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
  } catch {
    return { state: "no permission", path, why: `${path} may not be read and written by this user` }
  }
  return { state: "usable", path }
}
