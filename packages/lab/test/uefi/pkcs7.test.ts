import { spawnSync } from "node:child_process"
import { createHash, generateKeyPairSync } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { pkcs7Verifier } from "@vmpl-lab/lab"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { pemOf } from "../../src/attestation/Certificates.ts"
import { temporaryFolder } from "../attestation/fixture.ts"
import { type SignatureShape, signedData, signer } from "./signing.ts"

const { isSignedBy } = pkcs7Verifier
const root = signer("root", "ASK")
const middle = signer("middle", "ASVK", root)
const leaf = signer("leaf", "EK", middle, false)
const stranger = signer("stranger", "EK")
const content = Uint8Array.from(Buffer.from("what is signed"))

describe("a signature of a variable", () => {
  it.each<[string, SignatureShape]>([
    ["over the content", {}],
    ["over attributes", { hasAttributes: true }],
    ["in its ContentInfo", { isWrapped: true }],
    ["over attributes in its ContentInfo", { hasAttributes: true, isWrapped: true }],
    ["of SHA-384", { hash: "sha384" }]
  ])("%s is good for this content and this signer only", (_, shape) => {
    const der = signedData(content, stranger, shape)
    expect(isSignedBy(der, content, [stranger.der])).toBe(true)
    expect(isSignedBy(der, content, [root.der, stranger.der])).toBe(true)
    expect(isSignedBy(der, content, [root.der])).toBe(false)
    expect(isSignedBy(der, content, [])).toBe(false)
    expect(isSignedBy(der, content.subarray(1), [stranger.der])).toBe(false)
  })

  it("is not good with SHA-1", () => {
    expect(isSignedBy(signedData(content, stranger, { hash: "sha1" }), content, [stranger.der])).toBe(false)
  })

  it("is not good with its content, or without a signer", () => {
    for (const shape of [{ isAttached: true }, { hasNoSigner: true }]) {
      expect(isSignedBy(signedData(content, stranger, shape), content, [stranger.der])).toBe(false)
    }
  })

  it("is good by a chain to who is trusted, which must be whole", () => {
    const whole = signedData(content, leaf, { more: [middle] })
    expect(isSignedBy(whole, content, [root.der])).toBe(true)
    expect(isSignedBy(whole, content, [middle.der])).toBe(true)
    expect(isSignedBy(whole, content, [leaf.der])).toBe(true)
    expect(isSignedBy(signedData(content, leaf), content, [root.der])).toBe(false)
  })

  it("is not good by an issuer that is no authority", () => {
    const plain = signer("plain", "ASK", undefined, false)
    const below = signer("below", "EK", plain, false)
    expect(isSignedBy(signedData(content, below), content, [plain.der])).toBe(false)
  })

  it("is told by its signer's name and the last certificate", () => {
    const named = (der: Uint8Array) => Buffer.from(pkcs7Verifier.signer(der)?.digest ?? []).toString("hex")
    const one = named(signedData(content, leaf, { more: [middle, root] }))
    expect(one).toHaveLength(64)
    expect(named(signedData(content.subarray(1), leaf, { more: [root, middle] }))).toBe(one)
    expect(named(signedData(content, leaf, { more: [middle] }))).not.toBe(one)
    expect(named(signedData(content, stranger))).not.toBe(one)
    const other = signer("another leaf", "EK", middle, false)
    expect(named(signedData(content, other, { more: [middle, root] }))).not.toBe(one)
  })

  it("is bad with any byte of it changed, and never good for other content whatever is changed around it", () => {
    const der = signedData(content, stranger, { hasAttributes: true })
    const SIGNATURE = 256
    const key = Buffer.from(der).indexOf(stranger.publicKeyBits)
    const digest = Buffer.from(der).indexOf(createHash("sha256").update(content).digest())
    expect([key > 0, digest > 0]).toEqual([true, true])
    const at = fc.oneof(
      fc.integer({ min: der.length - SIGNATURE, max: der.length - 1 }),
      fc.integer({ min: key, max: key + SIGNATURE - 1 }),
      fc.integer({ min: digest, max: digest + 31 })
    )
    const changed = (index: number, change: number): Uint8Array => der.with(index, der[index]! ^ change)
    const change = fc.integer({ min: 1, max: 255 })
    fc.assert(
      fc.property(at, change, fc.nat(der.length - 1), (counts, bits, any) => {
        expect(isSignedBy(changed(counts, bits), content, [stranger.der])).toBe(false)
        expect(isSignedBy(changed(any, bits), content.subarray(1), [stranger.der])).toBe(false)
        pkcs7Verifier.signer(changed(any, bits))
      }),
      { seed: 7, numRuns: 100 }
    )
  })

  it("is bad where the bytes are none", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(isSignedBy(bytes, content, [stranger.der])).toBe(false)
        expect(pkcs7Verifier.signer(bytes)).toBe(null)
      }),
      { seed: 8, numRuns: 300 }
    )
  })
})

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0
// biome-ignore lint/suspicious/noConsole: a test that did not run must say so
if (!hasOpenssl) console.warn("openssl is not installed: only our own signatures of variables are verified here")

describe.skipIf(!hasOpenssl)("openssl, which is not ours", () => {
  const folder = temporaryFolder()
  const openssl = (...args: ReadonlyArray<string>) => {
    const { status, stderr } = spawnSync("openssl", args, { cwd: folder, encoding: "utf8" })
    return { status, stderr }
  }

  it.each(["rsa", "ec"])("signs what we accept, with a key of %s", (kind) => {
    const { privateKey } =
      kind === "rsa"
        ? generateKeyPairSync("rsa", { modulusLength: 2048 })
        : generateKeyPairSync("ec", { namedCurve: "P-256" })
    writeFileSync(join(folder, "key.pem"), privateKey.export({ format: "pem", type: "pkcs8" }))
    writeFileSync(join(folder, "content"), content)
    const made = openssl(..."req -new -x509 -key key.pem -subj /CN=openssl/O=x -days 9 -out own.pem".split(" "))
    expect(made.status, made.stderr).toBe(0)
    expect(openssl(..."x509 -in own.pem -outform DER -out own.der".split(" ")).status).toBe(0)
    const own = readFileSync(join(folder, "own.der"))
    for (const flags of ["", " -noattr"]) {
      const command = `cms -sign -binary -md sha256 -in content -signer own.pem -inkey key.pem -outform DER -out s.der`
      const signed = openssl(...`${command}${flags}`.split(" "))
      expect(signed.status, signed.stderr).toBe(0)
      const der = new Uint8Array(readFileSync(join(folder, "s.der")))
      expect(isSignedBy(der, content, [new Uint8Array(own)])).toBe(true)
      expect(isSignedBy(der, content, [stranger.der])).toBe(false)
    }
  })

  it("accepts what our tests sign", () => {
    writeFileSync(join(folder, "content"), content)
    writeFileSync(join(folder, "signer.pem"), pemOf(stranger.der))
    for (const hasAttributes of [false, true]) {
      writeFileSync(join(folder, "t.der"), signedData(content, stranger, { hasAttributes, isWrapped: true }))
      const command = "cms -verify -binary -inform DER -in t.der -content content -CAfile signer.pem -purpose any"
      const verified = openssl(...`${command} -out out`.split(" "))
      expect(verified.status, verified.stderr).toBe(0)
    }
  })
})
