// @section 1.4, 4.1, 4.4
import { describe, expect, it } from "vitest"
import {
  decodeEventInjection,
  decodeRmpCapabilities,
  decodeSevCapabilities,
  EVENT_TYPE,
  encodeEventInjection,
  encodeRmpCapabilities,
  encodeSevCapabilities,
  SEV_CAPABILITY_BITS,
  type SevCapability,
  VECTOR_HV
} from "../src/index.ts"

const NONE = {
  has: new Set<SevCapability>(),
  cbitPosition: 0,
  physicalAddressReduction: 0,
  numVmpls: 0,
  coherencySfwNo: false,
  guests: 0,
  minSevNoEsAsid: 0
}

describe("CPUID 8000_001F", () => {
  it("has every capability at its published bit of EAX", () => {
    const published: ReadonlyArray<readonly [SevCapability, number]> = [
      ["SME", 0],
      ["SEV", 1],
      ["PageFlushMsr", 2],
      ["SEV-ES", 3],
      ["SNP", 4],
      ["VMPL", 5],
      ["RMPQUERY", 6],
      ["VmplSSS", 7],
      ["SecureTSC", 8],
      ["TscAuxVirtualization", 9],
      ["HwEnfCacheCoh", 10],
      ["64BitHost", 11],
      ["RestrictedInjection", 12],
      ["AlternateInjection", 13],
      ["DebugSwap", 14],
      ["PreventHostIBS", 15],
      ["VTE", 16],
      ["VmgexitParameter", 17],
      ["VirtualTomMsr", 18],
      ["IbsVirtualization", 19],
      ["PmcVirtualization", 20],
      ["RMPREAD", 21],
      ["GuestInterceptCtl", 22],
      ["SegmentedRMP", 23],
      ["VmsaRegProt", 24],
      ["SmtProtection", 25],
      ["SecureAVIC", 26],
      ["AllowedSevFeatures", 27],
      ["SvsmCommPageMsr", 28],
      ["NestedVirtSnpMsr", 29],
      ["HvInUseWrAllowed", 30],
      ["IbpbOnEntry", 31]
    ]
    expect(published.map(([name]) => name)).toEqual([...SEV_CAPABILITY_BITS])
    for (const [name, bit] of published)
      expect(encodeSevCapabilities({ ...NONE, has: new Set([name]) })).toEqual([2 ** bit, 0, 0, 0])
  })

  it("has EBX, ECX and EDX as published", () => {
    expect(encodeSevCapabilities({ ...NONE, cbitPosition: 51 })[1]).toBe(51)
    expect(encodeSevCapabilities({ ...NONE, physicalAddressReduction: 6 })[1]).toBe(6 << 6)
    expect(encodeSevCapabilities({ ...NONE, numVmpls: 4 })[1]).toBe(4 << 12)
    expect(encodeSevCapabilities({ ...NONE, coherencySfwNo: true })[1]).toBe(2 ** 31)
    expect(encodeSevCapabilities({ ...NONE, guests: 1006, minSevNoEsAsid: 100 }).slice(2)).toEqual([1006, 100])
  })

  it("says the same when decoded", () => {
    const some = {
      ...NONE,
      has: new Set<SevCapability>(["SEV", "IbpbOnEntry"]),
      cbitPosition: 51,
      numVmpls: 4,
      coherencySfwNo: true
    }
    expect(decodeSevCapabilities(encodeSevCapabilities(some))).toEqual(some)
  })
})

describe("CPUID 8000_0025", () => {
  it("has segment sizes, cached segments, RMPOPT and RMP-dirty as published, and reads back", () => {
    const rmp = {
      minSegmentShift: 30,
      maxSegmentShift: 38,
      cachedSegments: 8,
      cachedSegmentsAreLimit: true,
      rmpopt: true,
      rmpDirty: false
    }
    expect(encodeRmpCapabilities(rmp)).toEqual([30 | (38 << 6), 8 | 0x400, 0, 1])
    expect(encodeRmpCapabilities({ ...rmp, rmpopt: false, rmpDirty: true })[3]).toBe(4)
    expect(decodeRmpCapabilities(encodeRmpCapabilities(rmp))).toEqual(rmp)
  })
})

describe("EVENTINJ", () => {
  it("holds vector, type, error code valid and valid", () => {
    const hv = { vector: VECTOR_HV, type: EVENT_TYPE.EXCEPTION, errorCodeValid: false, valid: true }
    expect(encodeEventInjection(hv)).toBe(0x8000_031c)
    expect(encodeEventInjection({ vector: 14, type: 3, errorCodeValid: true, valid: true })).toBe(0x8000_0b0e)
    expect(decodeEventInjection(0x8000_031c)).toEqual(hv)
    expect(decodeEventInjection(0x0000_0480)).toEqual({
      vector: 0x80,
      type: EVENT_TYPE.SOFT_INT,
      errorCodeValid: false,
      valid: false
    })
  })
})
