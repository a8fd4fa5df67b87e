import { hkdfSync } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import type { Profile } from "@vmpl-lab/sim"
import { PRIMITIVES } from "@vmpl-lab/sim"
import { SERVICE_GUID } from "@vmpl-lab/svsm"
import { afterAll } from "vitest"
import { type AttestInput, runAttest } from "../../src/attestation/AttestRun.ts"

export const NONCE = new Uint8Array(hkdfSync("sha256", "test", "nonce", "", 64))
export const EK = Uint8Array.of(1, 2, 3, 4, 5)

export const profile = {
  name: "test",
  machine: "none",
  primitives: Object.fromEntries(
    PRIMITIVES.map((name) => [name, { ns: 1, low: 1, high: 1, basis: "assumed", source: "none" }])
  ),
  sums: []
} as unknown as Profile

export const inputOf = (change: Partial<AttestInput> = {}): AttestInput => ({
  vmpl: 0,
  nonce: NONCE,
  service: null,
  services: [{ guid: SERVICE_GUID.VTPM, bytes: () => EK }],
  key: "VCEK",
  reportVersion: 3,
  strategy: STRATEGIES[0]!,
  profile,
  seed: 1,
  ...change
})

export const attestWith = (change: Partial<AttestInput> = {}) => runAttest(inputOf(change))

/** A folder that is gone after the tests. */
export const temporaryFolder = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-attest-"))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
