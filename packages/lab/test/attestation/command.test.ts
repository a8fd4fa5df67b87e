import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { IgvmBuilder } from "../../../../test/support/igvmBuilder.ts"
import { temporaryFolder } from "./fixture.ts"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const folder = temporaryFolder()
const run = (...args: ReadonlyArray<string>) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--conditions=source", main, ...args], {
    cwd: folder,
    encoding: "utf8"
  })
  return { status, stdout, stderr }
}

it("attest writes what verify accepts; a changed report fails, a cut one is no input", () => {
  expect(run("attest", "--service", "vtpm", "--nonce", "0a0b", "-o", "e")).toMatchObject({ status: 0, stderr: "" })
  const { status, stdout } = run("verify", "e", "--json")
  expect([status, JSON.parse(stdout).verified]).toEqual([0, true])
  expect(run("verify", "e", "--nonce", "0a0c")).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/nonce and manifest/)
  })

  const report = readFileSync(join(folder, "e/report.bin"))
  report[0x91]! ^= 1
  writeFileSync(join(folder, "r.bin"), report)
  const files = ["--vcek", "e/vcek.der", "--ask", "e/ask.pem", "--ark", "e/ark.der"]
  expect(run("verify", "--report", "e/report.bin", ...files).status).toBe(0)
  const forged = run("verify", "--report", "r.bin", ...files)
  expect([forged.status, forged.stderr]).toEqual([
    1,
    "vmpl-lab: the run failed: not verified: signature of the report\n"
  ])
  writeFileSync(join(folder, "r.bin"), report.subarray(0, 100))
  expect(run("verify", "--report", "r.bin", ...files)).toEqual({
    status: 2,
    stdout: "",
    stderr: "vmpl-lab: r.bin: ends at byte 0x64, expected an attestation report of 0x4a0 bytes\n"
  })
}, 60_000)

it("measure --igvm prints the digest alone, and names what SNP does not allow", () => {
  const plain = () => new IgvmBuilder().platform().page(0x1000, new Uint8Array(4096))
  writeFileSync(join(folder, "g.igvm"), plain().build())
  // One NORMAL page of zeros at 0x1000: published as a vector of one step.
  const digest = "e6e4d78904d9d6b33c0cbfd121998fd2d11744dae606b3aee35e2a45d6869b60b35c63928a9232bef72d6be386f48ec6"
  expect(run("measure", "--igvm", "g.igvm")).toEqual({ status: 0, stdout: `${digest}\n`, stderr: "" })
  writeFileSync(join(folder, "g.igvm"), plain().idBlock(new Uint8Array(48)).build())
  expect(run("measure", "--igvm", "g.igvm")).toMatchObject({ status: 2, stdout: "" })
  writeFileSync(
    join(folder, "g.igvm"),
    plain()
      .header(0x311, Uint8Array.of(1, ...new Uint8Array(863)))
      .build()
  )
  const refused = run("measure", "--igvm", "g.igvm")
  expect([refused.status, refused.stdout]).toEqual([2, ""])
  expect(refused.stderr).toMatch(
    /^vmpl-lab: g\.igvm: header 2, VBS_MEASUREMENT, bytes 0x50 to 0x53: is for SEV-SNP too/
  )
}, 60_000)
