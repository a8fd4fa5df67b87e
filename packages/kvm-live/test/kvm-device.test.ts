import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { probeKvmDevice } from "@vmpl-lab/kvm-live"
import { expect, it } from "vitest"

it("says that a machine has no KVM when the node is missing", () => {
  expect(probeKvmDevice("/nowhere/kvm")).toMatchObject({
    state: "absent",
    why: expect.stringContaining("/nowhere/kvm")
  })
})

it("is not taken in by an ordinary file", () => {
  const folder = mkdtempSync(join(tmpdir(), "kvm-"))
  try {
    writeFileSync(join(folder, "kvm"), "")
    expect(probeKvmDevice(join(folder, "kvm")).state).toBe("not a device")
  } finally {
    rmSync(folder, { recursive: true })
  }
})

it("accepts a character device that this user may read and write", () => {
  // Every Linux has one, whether KVM is there or not.
  expect(probeKvmDevice("/dev/null")).toEqual({ state: "usable", path: "/dev/null" })
})
