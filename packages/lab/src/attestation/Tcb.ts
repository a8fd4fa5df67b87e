/** Processor generations, as far as attestation differs between them. */
export const GENERATIONS = ["Milan", "Genoa", "Turin", "Venice"] as const
export type Generation = (typeof GENERATIONS)[number]

/** Components of a TCB_VERSION by their byte. Milan and Genoa have no FMC. @spec SNP-ABI "TCB_VERSION" */
export const TCB_BYTES: { readonly [G in Generation]: { readonly [component: string]: number } } = {
  Milan: { bootLoader: 0, tee: 1, snp: 6, microcode: 7 },
  Genoa: { bootLoader: 0, tee: 1, snp: 6, microcode: 7 },
  Turin: { fmc: 0, bootLoader: 1, tee: 2, snp: 3, microcode: 7 },
  Venice: { fmc: 0, bootLoader: 1, tee: 2, snp: 3, microcode: 7 }
}

const MODELS: ReadonlyArray<readonly [family: number, from: number, to: number, generation: Generation]> = [
  [0x19, 0x00, 0x0f, "Milan"],
  [0x19, 0x10, 0x1f, "Genoa"],
  [0x19, 0xa0, 0xaf, "Genoa"],
  [0x1a, 0x00, 0x11, "Turin"],
  [0x1a, 0x50, 0x57, "Venice"],
  [0x1a, 0x90, 0xaf, "Venice"],
  [0x1a, 0xc0, 0xc7, "Venice"]
]

/** The generation of a processor; null for one that is not known. */
export const generationOf = (family: number, model: number): Generation | null =>
  MODELS.find(([known, from, to]) => family === known && model >= from && model <= to)?.[3] ?? null

/** The generation that a certificate's product name begins with ("Milan-B0"); null for another. */
export const generationNamed = (product: string): Generation | null =>
  GENERATIONS.find((name) => product === name || product.startsWith(`${name}-`)) ?? null
