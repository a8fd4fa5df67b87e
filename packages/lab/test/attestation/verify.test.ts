import { checkPrimeSync, createHash } from "node:crypto"
import { STRATEGIES } from "@vmpl-lab/hv-strategies"
import { PlatformIdentity, tcbBytes } from "@vmpl-lab/psp"
import { decodeCertificateTable, encodeCertificateTable, guidBytes } from "@vmpl-lab/sev-es"
import { SERVICE_GUID } from "@vmpl-lab/svsm"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  type AttestInput,
  type AttestOutcome,
  type AttestProcessor,
  PROCESSORS
} from "../../src/attestation/AttestRun.ts"
import { BadBytes } from "../../src/attestation/BadBytes.ts"
import { certificateChain, pemOf } from "../../src/attestation/Certificates.ts"
import { testEndorsementPublic } from "../../src/attestation/EndorsementPublic.ts"
import { chainOf, productOf, readCertificates } from "../../src/attestation/ReadCertificate.ts"
import { parseReport } from "../../src/attestation/Report.ts"
import { generationOf, TCB_BYTES } from "../../src/attestation/Tcb.ts"
import { primeStart, TEST_KEYS, type TestKeyName } from "../../src/attestation/TestKeys.ts"
import { AMD_ROOTS, type Evidence, testRootFingerprint, verifyEvidence } from "../../src/attestation/Verify.ts"
import { attestWith, EK, NONCE } from "./fixture.ts"

const AT = new Date("2030-01-01T00:00:00Z")
const runs = new Map<string, AttestOutcome>()

/** A guest's attestation, simulated once for all tests that want the same. */
const attested = (change: Partial<AttestInput> = {}): AttestOutcome => {
  const key = JSON.stringify(change, (name, value) => (name === "strategy" ? value.variant + value.key : value))
  const found = runs.get(key) ?? attestWith(change)
  runs.set(key, found)
  return found
}

const evidenceOf = (outcome: AttestOutcome, vmpl: number): Evidence => {
  const table = decodeCertificateTable(outcome.certificates)
  if (typeof table === "string") throw new Error(table)
  const [leaf, ask, ark] = table.map(({ bytes }) => readCertificates(bytes, "certificate")[0]!)
  return {
    report: parseReport(outcome.report.slice(), "report"),
    leaf: leaf!,
    ask: ask!,
    ark: ark!,
    at: AT,
    rootKey: testRootFingerprint(),
    measurement: outcome.measurement,
    vmpl,
    nonce: NONCE,
    manifest: outcome.manifest.length === 0 ? undefined : outcome.manifest
  }
}

const failed = (evidence: Evidence): ReadonlyArray<string> =>
  verifyEvidence(evidence).flatMap(({ check, ok }) => (ok ? [] : [check]))

describe("what a simulated guest gets", () => {
  it.each([0, 1, 2, 3])("is verified for VMPL%i", (vmpl) => {
    const outcome = attested({ vmpl })
    expect(outcome.result).toBe(0)
    expect(failed(evidenceOf(outcome, vmpl))).toEqual([])
    expect(verifyEvidence(evidenceOf(outcome, vmpl)).length).toBe(15)
  })

  it.each([2, 3, 5] as const)("in version %i of the report, by the VLEK too", (reportVersion) => {
    const outcome = attested({ vmpl: 2, reportVersion, key: "VLEK" })
    const evidence = evidenceOf(outcome, 2)
    expect(failed(evidence)).toEqual([])
    expect(evidence.report).toMatchObject({ version: reportVersion, signer: "VLEK" })
    expect(evidence.report.mitigations === null).toBe(reportVersion < 5)
    expect(evidence.report.generation).toBe(reportVersion === 2 ? null : "Genoa")
  })

  const kinds = (Object.keys(PROCESSORS) as ReadonlyArray<AttestProcessor>).flatMap((processor) =>
    ([2, 3, 5] as const).flatMap((reportVersion) =>
      (["VCEK", "VLEK"] as const).map((key) => ({ processor, reportVersion, key }))
    )
  )
  it.each(kinds)("is verified on $processor in version $reportVersion by the $key", (change) => {
    const outcome = attested({ vmpl: 2, ...change })
    const evidence = evidenceOf(outcome, 2)
    expect(failed(evidence)).toEqual([])
    const { processor, reportVersion, key } = change
    const { report, leaf } = evidence
    expect(report).toMatchObject({ version: reportVersion, signer: key })
    // Version 2 does not say it: only the certificate does.
    expect(report.generation).toBe(reportVersion === 2 ? null : processor)
    expect(productOf(leaf)).toBe(processor)
    const hidden = key === "VLEK" && reportVersion >= 3
    const shown = report.chipId.findLastIndex((byte) => byte !== 0) + 1
    expect(shown).toBe(hidden ? 0 : processor === "Turin" ? 8 : 64)
    expect(leaf.extensions.get("hwid")?.length).toBe(key === "VLEK" ? undefined : processor === "Turin" ? 8 : 64)
    expect(leaf.extensions.has("fmc")).toBe(processor === "Turin")
    // Each component of the certificate counts, the FMC of Turin too.
    for (const [component, byte] of Object.entries(TCB_BYTES[processor])) {
      const reportedTcb = report.reportedTcb.slice()
      reportedTcb[byte]! += 1
      const changed = { ...evidence, report: { ...report, reportedTcb } }
      expect(failed(changed)).toEqual([`TCB: ${component}`])
    }
  })

  const everywhere = STRATEGIES.flatMap((strategy) => [1, 2, 3].map((vmpl) => ({ strategy, vmpl })))
  it.each(everywhere)("is verified for VMPL$vmpl under $strategy.key $strategy.variant", ({ strategy, vmpl }) => {
    const outcome = attested({ strategy, vmpl })
    expect(failed(evidenceOf(outcome, vmpl))).toEqual([])
    expect(Buffer.compare(outcome.report, attested({ vmpl }).report)).toBe(0)
  })

  it("is the same under every strategy, certificates included", () => {
    const outcomes = STRATEGIES.map((strategy) => attested({ strategy }))
    expect(STRATEGIES.length).toBe(9)
    for (const { report, certificates, manifest } of outcomes) {
      expect(Buffer.compare(report, outcomes[0]!.report)).toBe(0)
      expect(Buffer.compare(certificates, outcomes[0]!.certificates)).toBe(0)
      expect(Buffer.compare(manifest, outcomes[0]!.manifest)).toBe(0)
    }
  }, 60_000)

  it("binds the nonce and the manifest of all services, as the layout has it", () => {
    const { report, manifest } = attested()
    const view = Buffer.from(manifest)
    expect([...view.subarray(0, 16)]).toEqual([...guidBytes(SERVICE_GUID.MANIFEST)])
    expect([view.readUInt32LE(16), view.readUInt32LE(20)]).toEqual([48 + EK.length, 1])
    expect([...view.subarray(24, 40)]).toEqual([...guidBytes(SERVICE_GUID.VTPM)])
    expect([view.readUInt32LE(40), view.readUInt32LE(44)]).toEqual([48, EK.length])
    expect([...view.subarray(48)]).toEqual([...EK])
    const bound = createHash("sha512").update(NONCE).update(manifest).digest()
    expect([...report.subarray(0x50, 0x90)]).toEqual([...bound])
  })

  it("is the one service's manifest where one is asked for, and a refusal for a stranger", () => {
    const outcome = attested({ service: SERVICE_GUID.VTPM })
    expect([...outcome.manifest]).toEqual([...EK])
    expect(failed(evidenceOf(outcome, 0))).toEqual([])
    expect(attested({ service: SERVICE_GUID.UEFI_MM }).result).toBe(0x8000_0001)
  })
})

describe("a verifier", () => {
  const good = (): Evidence => evidenceOf(attested(), 0)
  const flipped = (bytes: Uint8Array, at: number): Uint8Array => {
    const copy = bytes.slice()
    copy[at]! ^= 1
    return copy
  }
  const forged = (at: number) => (): Evidence => ({
    ...good(),
    report: parseReport(flipped(attested().report, at), "report")
  })
  const other = certificateChain(new PlatformIdentity(2), "VCEK", tcbBytes(new PlatformIdentity(2).reportedTcb))
  const certificate = (der: Uint8Array) => readCertificates(der, "other")[0]!
  const newer = new PlatformIdentity(1)
  const wrongTcb = certificateChain(newer, "VCEK", tcbBytes({ ...newer.reportedTcb, snp: 23 }))

  it.each<readonly [string, () => Evidence, ReadonlyArray<string>]>([
    ["report data", forged(0x50), ["signature of the report", "nonce and manifest"]],
    ["measurement", forged(0x90), ["signature of the report", "measurement"]],
    ["VMPL", forged(0x30), ["signature of the report", "VMPL"]],
    ["policy", forged(0x08), ["signature of the report"]],
    ["r", forged(0x2a0), ["signature of the report"]],
    ["s", forged(0x2a0 + 72), ["signature of the report"]],
    ["chip id", forged(0x1a0), ["signature of the report", "chip"]],
    ["reported TCB", forged(0x186), ["signature of the report", "TCB: snp"]],
    ["signing key", forged(0x48), ["signature of the report"]],
    ["another nonce", () => ({ ...good(), nonce: new Uint8Array(64) }), ["nonce and manifest"]],
    ["another manifest", () => ({ ...good(), manifest: EK }), ["nonce and manifest"]],
    ["no manifest", () => ({ ...good(), manifest: undefined }), ["nonce"]],
    ["another level", () => ({ ...good(), vmpl: 2 }), ["VMPL"]],
    ["another launch", () => ({ ...good(), measurement: new Uint8Array(48) }), ["measurement"]],
    ["another root", () => ({ ...good(), rootKey: "00" }), ["key of the root"]],
    ["before the certificates", () => ({ ...good(), at: new Date("2020-01-01") }), ["dates of certificates"]],
    ["after the certificates", () => ({ ...good(), at: new Date("2060-01-01") }), ["dates of certificates"]],
    ["another chip's key", () => ({ ...good(), leaf: certificate(other.leaf) }), ["signature of the report", "chip"]],
    ["a certificate of another TCB", () => ({ ...good(), leaf: certificate(wrongTcb.leaf) }), ["TCB: snp"]],
    ["the ARK in place of the ASK", () => ({ ...good(), ask: good().ark }), ["signature of SEV-VCEK"]],
    [
      "the ASK in place of the leaf",
      () => ({ ...good(), leaf: good().ask }),
      [
        "signature of SEV-Genoa",
        "signature of the report",
        "chip",
        ...["bootLoader", "tee", "snp", "microcode"].map((name) => `TCB: ${name}`)
      ]
    ]
  ])("finds out: %s", (_, evidence, expected) => {
    expect(failed(evidence())).toEqual(expected)
  })

  it("finds ASK and ARK in files with the whole chain, in any order, and tells when they are not there", () => {
    const { leaf, ask, ark } = good()
    const vlek = evidenceOf(attested({ vmpl: 2, key: "VLEK" }), 2)
    const all = [vlek.ask, ark, ask]
    for (const [i, first] of all.entries()) {
      const file = [first, ...all.filter((_, j) => j !== i)]
      for (const [of, middle] of [
        [leaf, ask],
        [vlek.leaf, vlek.ask]
      ] as const) {
        const chain = chainOf(of, file, file)
        expect([chain.ask.der, chain.ark.der].map((der) => Buffer.from(der).toString("hex"))).toEqual(
          [middle.der, ark.der].map((der) => Buffer.from(der).toString("hex"))
        )
      }
    }
    const missing = chainOf(leaf, [vlek.ask], [ark])
    expect(failed({ ...good(), ...missing })).toEqual(["signature of SEV-VCEK"])
    const turin = evidenceOf(attested({ vmpl: 2, processor: "Turin" }), 2)
    expect(failed({ ...good(), ...chainOf(leaf, [turin.ask], [turin.ark]) })).toEqual(["signature of SEV-VCEK"])
  })

  it("takes no certificate of a chip as an authority, and no generation that the certificate is not for", () => {
    const evidence = good()
    const milan = certificateChain(new PlatformIdentity(1), "VCEK", newer.tcbBytes(newer.reportedTcb), "Milan")
    const [leaf, ask, ark] = [milan.leaf, milan.ask, milan.ark].map(certificate)
    expect(failed({ ...evidence, leaf: leaf!, ask: ask!, ark: ark! })).toEqual(["TCB"])
    expect(failed({ ...evidence, ask: evidence.leaf })).toContain("signature of SEV-VCEK")
  })

  it("says whose root it is", () => {
    const detail = (evidence: Evidence) => verifyEvidence(evidence)[0]?.detail
    expect(detail(good())).toMatch(/, the test root of vmpl-lab$/)
    expect(detail({ ...good(), ark: good().leaf })).toMatch(/, not one of AMD's, expected /)
    expect(Object.values(AMD_ROOTS)).toEqual(["Milan", "Genoa", "Turin"])
  })

  it("knows processors by family and model", () => {
    expect([generationOf(0x19, 1), generationOf(0x19, 0x11), generationOf(0x19, 0xa0)]).toEqual([
      "Milan",
      "Genoa",
      "Genoa"
    ])
    expect([generationOf(0x1a, 2), generationOf(0x1a, 0x50), generationOf(0x17, 1)]).toEqual(["Turin", "Venice", null])
  })
})

const lineOf = (parse: () => unknown): string => {
  try {
    parse()
  } catch (error) {
    if (!(error instanceof BadBytes)) throw error
    expect(error.message).not.toContain("\n")
    return error.message
  }
  return "taken"
}

describe("parsers", () => {
  const report = attested({ vmpl: 2, reportVersion: 2 }).report
  const refused = (change: (bytes: Uint8Array) => Uint8Array | undefined): string => {
    const bytes = report.slice()
    const given = change(bytes) ?? bytes
    return lineOf(() => parseReport(given, "r.bin"))
  }
  const put =
    (at: number, value = 1) =>
    (bytes: Uint8Array): undefined =>
      void bytes.set([value], at)

  it.each<readonly [string, (bytes: Uint8Array) => Uint8Array | undefined, string]>([
    ["nothing", () => new Uint8Array(0), "r.bin: ends at byte 0x0, expected an attestation report of 0x4a0 bytes"],
    ["one byte less", (b) => b.subarray(1), "r.bin: ends at byte 0x49f, expected an attestation report of 0x4a0 bytes"],
    [
      "one byte more",
      (b) => Uint8Array.of(...b, 0),
      "r.bin: bytes 0x4a0 to 0x4a0 are too many, expected an attestation report of 0x4a0 bytes"
    ],
    ["version 1", put(0), "r.bin: version at bytes 0x0 to 0x3 is 1, expected 2 to 5"],
    ["version 6", put(0, 6), "r.bin: version at bytes 0x0 to 0x3 is 6, expected 2 to 5"],
    ["algorithm 2", put(0x34, 2), "r.bin: signature algorithm at bytes 0x34 to 0x37 is 2, expected 1, ECDSA P-384"],
    [
      "signing key 2",
      put(0x48, 8),
      "r.bin: key information at bytes 0x48 to 0x4b is 0x8, expected a known signing key"
    ],
    ["reserved 0x4f", put(0x4f), "r.bin: byte 0x4f is 0x1, expected zeros in the reserved bytes 0x4c to 0x4f"],
    ["reserved 0x18b", put(0x18b, 7), "r.bin: byte 0x18b is 0x7, expected zeros in the reserved bytes 0x18b to 0x19f"],
    ["CPUID in version 2", put(0x188), "r.bin: byte 0x188 is 0x1, expected zeros in the reserved bytes 0x188 to 0x18a"],
    [
      "vectors in version 2",
      put(0x200),
      "r.bin: byte 0x200 is 0x1, expected zeros in the reserved bytes 0x1f8 to 0x207"
    ],
    ["reserved 0x29f", put(0x29f), "r.bin: byte 0x29f is 0x1, expected zeros in the reserved bytes 0x208 to 0x29f"],
    ["r too long", put(0x2e7), "r.bin: byte 0x2e7 is 0x1, expected zeros in the reserved bytes 0x2d0 to 0x2e7"],
    ["the last byte", put(0x49f), "r.bin: byte 0x49f is 0x1, expected zeros in the reserved bytes 0x330 to 0x49f"]
  ])("of reports refuse %s", (_, change, line) => {
    expect(refused(change)).toBe(line)
  })

  /** Reserved bytes by version, from the written layout. */
  const reservedIn = (version: number): ReadonlyArray<readonly [start: number, end: number]> => [
    [0x04c, 0x050],
    ...(version < 3 ? ([[0x188, 0x18b]] as const) : []),
    [0x18b, 0x1a0],
    [0x1eb, 0x1ec],
    [0x1ef, 0x1f0],
    ...(version < 5 ? ([[0x1f8, 0x208]] as const) : []),
    [0x208, 0x2a0],
    [0x2d0, 0x2e8],
    [0x318, 0x330],
    [0x330, 0x4a0]
  ]

  it.each([2, 3, 4, 5])("of reports refuse every reserved byte of version %i, and name its range", (version) => {
    const base = attested({ vmpl: 2, reportVersion: version === 2 ? 2 : 3 }).report
    for (let at = 0x4c; at < base.length; at++) {
      const bytes = base.slice()
      bytes[0] = version
      bytes[at]! ^= 0x40
      const line = lineOf(() => parseReport(bytes, "r.bin"))
      const range = reservedIn(version).find(([start, end]) => at >= start && at < end)
      const hex = (value: number) => `0x${value.toString(16)}`
      const expected =
        range === undefined
          ? "taken"
          : `r.bin: byte ${hex(at)} is 0x40, expected zeros in the reserved bytes ${hex(range[0])} to ${hex(range[1] - 1)}`
      expect([at, line]).toEqual([at, expected])
    }
  })

  const { leaf, ark } = certificateChain(new PlatformIdentity(1), "VCEK", new Uint8Array(8))
  it.each<readonly [string, Uint8Array, RegExp]>([
    ["nothing", new Uint8Array(0), /c\.der: bytes 0x0 to 0x1 do not begin a certificate/],
    ["a cut one", leaf.subarray(0, 100), /c\.der: ends at byte 0x64, expected a certificate of 0x[0-9a-f]+ bytes/],
    ["bytes behind it", Uint8Array.of(...leaf, 1), /c\.der: bytes 0x[0-9a-f]+ to 0x[0-9a-f]+ follow the certificate/],
    [
      "DER of something else",
      Uint8Array.of(0x30, 0x82, 0, 2, 5, 0),
      /c\.der: bytes 0x0 to 0x5 are no X\.509 certificate/
    ],
    ["PEM without an end", Buffer.from(pemOf(leaf).slice(0, 200)), /c\.der: no end of the certificate/]
  ])("of certificates refuse %s", (_, bytes, line) => {
    expect(lineOf(() => readCertificates(bytes, "c.der"))).toMatch(line)
  })

  it("of certificates take PEM of several, and zeros behind DER, as real files have", () => {
    expect(readCertificates(Buffer.from(pemOf(leaf) + pemOf(ark)), "c.pem").map(({ der }) => [...der])).toEqual([
      [...leaf],
      [...ark]
    ])
    expect(readCertificates(Uint8Array.of(...leaf, 0, 0), "c.der")).toHaveLength(1)
  })

  it("never end in anything but a value or one line, whatever the bytes", () => {
    const edits = fc.array(fc.tuple(fc.nat(0x4a0), fc.nat(255)), { minLength: 1, maxLength: 8 })
    fc.assert(
      fc.property(edits, fc.constantFrom(report, leaf, attested().certificates), (changes, original) => {
        const bytes = original.slice()
        for (const [at, byte] of changes) if (at < bytes.length) bytes[at] = byte
        lineOf(() => parseReport(bytes, "any"))
        lineOf(() => readCertificates(bytes, "any"))
        decodeCertificateTable(bytes)
      }),
      { numRuns: 300, seed: 3 }
    )
  })

  it("of certificate tables read back what was written, and name bytes that lie outside", () => {
    const guid = fc.uuid()
    const entry = fc.record({ guid, bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }) })
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 4 }), (certificates) => {
        expect(decodeCertificateTable(encodeCertificateTable(certificates))).toEqual(certificates)
      }),
      { numRuns: 100, seed: 5 }
    )
    const table = encodeCertificateTable([{ guid: SERVICE_GUID.VTPM, bytes: EK }])
    expect(decodeCertificateTable(table.subarray(0, 30))).toMatch(/ends at byte 0x1e/)
    table[20] = 9
    expect(decodeCertificateTable(table)).toMatch(/at bytes 0x10 to 0x17 lie outside/)
  })
})

describe("the test root", () => {
  it.each(Object.keys(TEST_KEYS) as Array<TestKeyName>)(
    "has the first primes from the starts of %s",
    (name) => {
      for (const which of [0, 1] as const) {
        const start = primeStart(name, which)
        let distance = 0
        while (!checkPrimeSync(start + BigInt(distance), { checks: 10 })) distance += 2
        expect(distance).toBe(TEST_KEYS[name].distances[which])
      }
    },
    60_000
  )

  it("gives equal chains to equal platforms", () => {
    const chainOf = (seed: number) => {
      const identity = new PlatformIdentity(seed)
      return Buffer.from(certificateChain(identity, "VCEK", tcbBytes(identity.reportedTcb)).leaf).toString("hex")
    }
    expect(chainOf(1)).toBe(chainOf(1))
    expect(chainOf(2)).not.toBe(chainOf(1))
  })

  it("has an EK by the TCG's template", () => {
    const ek = Buffer.from(testEndorsementPublic())
    expect(ek.length).toBe(8 + 2 + 32 + 6 + 4 + 4 + 2 + 256)
    expect(ek.subarray(0, 10).toString("hex")).toBe("0001000b000300b20020")
    expect(ek.subarray(42, 58).toString("hex")).toBe("00060080004300100800000000000100")
  })
})
