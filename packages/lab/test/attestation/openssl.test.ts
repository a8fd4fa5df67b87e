import { spawnSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { decodeCertificateTable } from "@vmpl-lab/sev-es"
import { describe, expect, it } from "vitest"
import { type AttestProcessor, PROCESSORS } from "../../src/attestation/AttestRun.ts"
import { pemOf } from "../../src/attestation/Certificates.ts"
import { attestWith, temporaryFolder } from "./fixture.ts"

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0
// biome-ignore lint/suspicious/noConsole: a test that did not run must say so
if (!hasOpenssl) console.warn("openssl is not installed: nobody but ourselves verifies our signatures here")

const folder = temporaryFolder()
const openssl = (...args: ReadonlyArray<string>) => {
  const { status, stdout, stderr } = spawnSync("openssl", args, { cwd: folder, encoding: "utf8" })
  return { status, text: stdout + stderr }
}

/** DER of an ECDSA signature out of AMD's form: r and s little-endian. */
const derSignature = (report: Uint8Array): Buffer => {
  const integer = (at: number): Buffer => {
    const digits = Buffer.from(report.slice(at, at + 72)).reverse()
    const first = digits.findIndex((byte) => byte !== 0)
    const value = digits.subarray(first)
    const signed = value[0]! >= 0x80 ? Buffer.concat([Buffer.of(0), value]) : value
    return Buffer.concat([Buffer.of(2, signed.length), signed])
  }
  const both = Buffer.concat([integer(0x2a0), integer(0x2a0 + 72)])
  return Buffer.concat([Buffer.of(0x30, both.length), both])
}

describe.skipIf(!hasOpenssl)("openssl, which is not ours", () => {
  const processors = Object.keys(PROCESSORS) as ReadonlyArray<AttestProcessor>
  const kinds = processors.flatMap((processor) => (["VCEK", "VLEK"] as const).map((key) => ({ processor, key })))
  it.each(kinds)("accepts report and chain of $processor's $key, and no forgery", ({ processor, key }) => {
    const { report, certificates } = attestWith({ key, processor, reportVersion: 5 })
    const table = decodeCertificateTable(certificates)
    if (typeof table === "string") throw new Error(table)
    for (const [i, name] of ["leaf", "ask", "ark"].entries()) {
      writeFileSync(join(folder, `${name}.pem`), pemOf(table[i]!.bytes))
    }
    const chain = ["-CAfile", "ark.pem", "-untrusted", "ask.pem"]
    expect(openssl("verify", "-check_ss_sig", ...chain, "leaf.pem")).toMatchObject({ status: 0 })
    expect(openssl("verify", "-CAfile", "ark.pem", "leaf.pem").status).not.toBe(0)

    const text = openssl("x509", "-in", "leaf.pem", "-noout", "-text").text
    expect(text).toContain(`CN = SEV-${key}`)
    expect(text.includes("1.3.6.1.4.1.3704.1.3.9")).toBe(processor === "Turin")
    expect(text.includes("1.3.6.1.4.1.3704.1.3.4")).toBe(processor !== "Turin")
    expect(text.includes("1.3.6.1.4.1.3704.1.4: ")).toBe(key === "VCEK")
    expect(text.includes("1.3.6.1.4.1.3704.1.5: ")).toBe(key === "VLEK")
    expect(text).toContain("Hash Algorithm: sha384")

    writeFileSync(join(folder, "key.pem"), openssl("x509", "-in", "leaf.pem", "-noout", "-pubkey").text)
    writeFileSync(join(folder, "signature.der"), derSignature(report))
    const verify = ["dgst", "-sha384", "-verify", "key.pem", "-signature", "signature.der", "signed.bin"]
    writeFileSync(join(folder, "signed.bin"), report.subarray(0, 0x2a0))
    expect(openssl(...verify)).toEqual({ status: 0, text: "Verified OK\n" })
    writeFileSync(join(folder, "signed.bin"), Buffer.from(report.subarray(0, 0x2a0)).fill(9, 0x90, 0x91))
    expect(openssl(...verify).status).not.toBe(0)
  })

  it("refuses a certificate that was changed", () => {
    const { certificates } = attestWith({ vmpl: 2 })
    const [leaf, ask, ark] = decodeCertificateTable(certificates) as ReadonlyArray<{ bytes: Uint8Array }>
    const at = Buffer.from(leaf!.bytes).indexOf("Genoa", 400)
    expect(at).toBeGreaterThan(0)
    leaf!.bytes[at + 4] = "b".charCodeAt(0)
    writeFileSync(join(folder, "a.pem"), pemOf(ark!.bytes))
    writeFileSync(join(folder, "b.pem"), pemOf(ask!.bytes))
    writeFileSync(join(folder, "c.pem"), pemOf(leaf!.bytes))
    expect(openssl("verify", "-CAfile", "a.pem", "-untrusted", "b.pem", "c.pem").status).not.toBe(0)
  })
})
