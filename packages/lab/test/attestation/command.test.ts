import { spawnSync } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
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

it("attest leaves a folder alone that has something in it, and verify takes a chain in one file", () => {
  mkdirSync(join(folder, "kept"))
  writeFileSync(join(folder, "kept/notes.txt"), "mine")
  expect(run("attest", "--nonce", "01", "-o", "kept")).toEqual({
    status: 2,
    stdout: "",
    stderr: "vmpl-lab: --output: kept: not empty, expected a new or an empty folder\n"
  })
  expect(readdirSync(join(folder, "kept"))).toEqual(["notes.txt"])
  expect(run("attest", "--nonce", "01", "-o", "kept/notes.txt")).toMatchObject({
    status: 2,
    stdout: "",
    stderr: expect.stringMatching(/--output: kept\/notes\.txt: cannot be read as a folder/)
  })
  expect(readFileSync(join(folder, "kept/notes.txt"), "utf8")).toBe("mine")

  const nowhere = run("attest", "--nonce", "01", "-o", "/proc/none/of/this")
  expect([nowhere.status, nowhere.stdout]).toEqual([2, ""])
  expect(nowhere.stderr).toMatch(/^vmpl-lab: --output: \/proc\/none\/of\/this: cannot be written: /)

  const asked = ["--processor", "Turin", "--key", "VLEK", "--report-version", "2", "--vmpl", "3", "--nonce", "0c"]
  expect(run("attest", ...asked, "--strategy", "planes/user-space", "-o", "t")).toMatchObject({ status: 0, stderr: "" })
  const pem = ["ark", "ask", "vlek"].map((name) => readFileSync(join(folder, `t/${name}.pem`), "utf8"))
  writeFileSync(join(folder, "chain.pem"), pem.join(""))
  const one = run("verify", "--report", "t/report.bin", "--vcek", "t/vlek.der", "--ask", "chain.pem", "--vmpl", "3")
  expect([one.status, one.stderr]).toEqual([0, ""])
  expect(one.stdout).toMatch(/TCB: fmc +│ ok/)
  const late = run("verify", "t", "--at", "2055-01-01")
  expect([late.status, late.stderr]).toEqual([1, "vmpl-lab: the run failed: not verified: dates of certificates\n"])
  expect(run("verify", "t", "--at", "2025-02-30")).toMatchObject({ status: 2, stdout: "" })
  expect(run("verify", "--report", "t/report.bin", "--vcek", "t/vlek.der", "--ask", "t/ask.pem")).toEqual({
    status: 2,
    stdout: "",
    stderr: "vmpl-lab: t/ask.pem: no certificate of the one that issued its first, expected it, or --ark\n"
  })
}, 240_000)

it("igvm writes what measure, compare and attest agree on", () => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-384" })
  writeFileSync(join(folder, "id.pem"), privateKey.export({ type: "pkcs8", format: "pem" }))
  const made = run("igvm", "-o", "svsm.igvm", "--id-key", "id.pem", "--svn", "5", "--vcpus", "2")
  expect([made.status, made.stderr]).toEqual([0, ""])
  const digest = made.stdout.trim()
  expect(digest).toMatch(/^[0-9a-f]{96}$/)
  expect(run("measure", "--igvm", "svsm.igvm", "--check-kvm")).toEqual({ status: 0, stdout: `${digest}\n`, stderr: "" })
  const native = run("measure", "--igvm", "svsm.igvm", "--native-zero")
  expect([native.status, native.stdout]).toEqual([2, ""])
  expect(native.stderr).toMatch(/the ID block is for digest/)

  const few = ["--vcpus", "2", "--calls", "5", "--boots", "1", "--replications", "0", "--strategy", "planes/kernel"]
  const compared = run("compare", "--igvm", "svsm.igvm", ...few, "--json")
  expect(compared.status).toBe(0)
  expect(JSON.parse(compared.stdout)).toMatchObject({ launchDigest: digest, firmware: { name: "svsm.igvm" } })

  const attested = run("attest", "--igvm", "svsm.igvm", "--nonce", "01", "-o", "i", "--json")
  expect(JSON.parse(attested.stdout).measurement).toBe(digest)
  const { report, verified } = JSON.parse(run("verify", "i", "--measurement", digest, "--json").stdout)
  expect({ verified, ...report }).toMatchObject({ verified: true, measurement: digest, guestSvn: 5 })

  const refusals: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
    [["compare", "--igvm", "svsm.igvm", "--firmware", "x.fd"], /^vmpl-lab: --igvm: given with --firmware/],
    [["compare", "--firmware", "svsm.igvm"], /^vmpl-lab: --firmware: svsm\.igvm begins as an IGVM file/],
    [["attest", "--igvm", "svsm.igvm", "--vmpl", "1", "--nonce", "1f", "-o", "none"], /guest level 2, expected 1/],
    [["measure", "--firmware", "x.fd", "--native-zero"], /^vmpl-lab: --native-zero: given without --igvm/],
    [["igvm", "-o", "y.igvm", "--svn", "1"], /^vmpl-lab: --svn: given without --id-key/],
    [["igvm", "-o", "y.igvm", "--id-key", "chain.pem"], /no private key of P-384/]
  ]
  for (const [args, line] of refusals) {
    const { status, stdout, stderr } = run(...args)
    expect([status, stdout, stderr]).toEqual([2, "", expect.stringMatching(line)])
  }
  expect(["none", "y.igvm"].filter((name) => existsSync(join(folder, name)))).toEqual([])
}, 240_000)

it("a folder in place of a file, and a file in place of a folder, are said in words", () => {
  writeFileSync(join(folder, "plain"), "")
  mkdirSync(join(folder, "sub"))
  expect(run("measure", "--igvm", "sub").stderr).toBe("vmpl-lab: sub: cannot be read: is a directory\n")
  expect(run("igvm", "-o", "sub").stderr).toBe("vmpl-lab: sub: cannot be written: is a directory\n")
  expect(run("verify", "plain").stderr).toBe("vmpl-lab: plain/evidence.json: cannot be read: not a directory\n")
  const attested = run("attest", "--nonce", "00", "-o", "plain")
  expect(attested).toEqual({
    status: 2,
    stdout: "",
    stderr: "vmpl-lab: --output: plain: cannot be read as a folder: not a directory\n"
  })
}, 60_000)
