import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { pkcs7Verifier, platformKey } from "@vmpl-lab/lab"
import { BEHAVIOUR, SECURE_BOOT, SERVICE_GUID, SvsmState, UEFI_MM_FLAG, uefiMm } from "@vmpl-lab/svsm"
import { describe, expect, it } from "vitest"
import { pemOf } from "../../src/attestation/Certificates.ts"
import { attestWith, EK, temporaryFolder } from "../attestation/fixture.ts"
import { signedWrite, signer } from "./signing.ts"

const platform = signer("platform", "ASK")
const enrolled = { PK: platformKey(platform.der, "test") }
const { SECURE_BOOT: SECURE, DATABASE_UPDATE } = UEFI_MM_FLAG
const flagsOf = (manifest: Uint8Array | undefined): ReadonlyArray<number> => {
  expect(manifest).toHaveLength(8)
  const view = new DataView(manifest!.buffer, manifest!.byteOffset)
  return [view.getUint32(0, true), view.getUint32(4, true)]
}

describe("the manifest of UEFI variables", () => {
  const asked = (protocol: ReturnType<typeof uefiMm>, behaviour: "specification" | "coconut") => {
    const state = new SvsmState([protocol])
    state.behaviour = BEHAVIOUR[behaviour]
    expect(state.services.map(({ guid }) => guid)).toEqual([SERVICE_GUID.UEFI_MM])
    return { state, manifest: () => flagsOf(state.services[0]?.bytes()) }
  }

  it("tells version 0, and secure boot where there is a PK", () => {
    for (const behaviour of ["specification", "coconut"] as const) {
      expect(asked(uefiMm(), behaviour).manifest()).toEqual([0, 0])
      expect(asked(uefiMm({ enrolled }), behaviour).manifest()).toEqual([0, SECURE])
    }
  })

  it("tells that databases can be updated where signatures are verified: COCONUT-SVSM does not", () => {
    const both = { enrolled, verifier: pkcs7Verifier }
    expect(asked(uefiMm(both), "specification").manifest()).toEqual([0, SECURE | DATABASE_UPDATE])
    expect(asked(uefiMm(both), "coconut").manifest()).toEqual([0, SECURE])
  })

  it("is of the moment of the call", () => {
    const protocol = uefiMm({ verifier: pkcs7Verifier })
    const { state, manifest } = asked(protocol, "specification")
    expect(manifest()).toEqual([0, 0])
    const { variables } = protocol.managementMode(state)
    expect(variables.set(signedWrite(SECURE_BOOT.PK, enrolled.PK, 1, platform))).toBe(0)
    expect(manifest()).toEqual([0, SECURE | DATABASE_UPDATE])
  })

  it("is in a report alone, and beside the TPM's", () => {
    const protocols = () => [uefiMm({ enrolled })]
    expect(flagsOf(attestWith({ protocols: protocols(), service: SERVICE_GUID.UEFI_MM }).manifest)).toEqual([0, SECURE])
    const { manifest } = attestWith({ protocols: protocols() })
    const view = new DataView(manifest.buffer, manifest.byteOffset)
    expect([view.getUint32(20, true), manifest.length]).toEqual([2, 24 + 2 * 24 + 8 + EK.length])
  })
})

describe("attest --service uefi", () => {
  const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
  const folder = temporaryFolder()
  const run = (...args: ReadonlyArray<string>) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ["--conditions=source", main, ...args], {
      cwd: folder,
      encoding: "utf8"
    })
    return { status, stdout, stderr }
  }
  const attest = (...args: ReadonlyArray<string>) => run("attest", "--nonce", "0a", ...args)

  it("writes a manifest that verify finds bound, with and without secure boot", () => {
    writeFileSync(join(folder, "pk.pem"), pemOf(platform.der))
    expect(attest("-o", "e", "--service", "uefi", "--pk", "pk.pem")).toMatchObject({ status: 0, stderr: "" })
    expect(flagsOf(readFileSync(join(folder, "e/manifest.bin")))).toEqual([0, SECURE | DATABASE_UPDATE])
    expect(run("verify", "e")).toMatchObject({ status: 0, stderr: "" })
    expect(attest("-o", "f", "--service", "uefi").status).toBe(0)
    expect(flagsOf(readFileSync(join(folder, "f/manifest.bin")))).toEqual([0, 0])
  }, 60_000)

  it("refuses a PK that is none, or that nothing asks for, in one line", () => {
    writeFileSync(join(folder, "bad.der"), "nothing")
    for (const [args, line] of [
      [["--service", "uefi", "--pk", "bad.der"], /^vmpl-lab: --pk: bad\.der: bytes 0x0 to 0x1 .*\n$/],
      [["--service", "uefi", "--pk", "absent"], /^vmpl-lab: absent: cannot be read: .*\n$/],
      [["--pk", "pk.pem"], /^vmpl-lab: --pk: given without --service uefi, expected both.*\n$/]
    ] as const) {
      expect(attest("-o", "g", ...args)).toEqual({ status: 2, stdout: "", stderr: expect.stringMatching(line) })
    }
  }, 60_000)
})
