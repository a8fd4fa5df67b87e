import * as Schema from "effect/Schema"

/** Keys of the workload `memory-acceptance`, under `memoryAcceptance`. */
export const MemoryAcceptanceKeys = Schema.Struct({
  /** Memory that the guest accepts, a multiple of 2 MiB. */
  mebibytes: Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 2, maximum: 65_536 }), Schema.isMultipleOf(2))),
  /** Size of the PVALIDATE list entries that the guest tries first. */
  entrySize: Schema.Literals(["4K", "2M"]),
  /** Of 1000 regions of 2 MiB, how many the host can back with 4 KiB pages only. */
  fragmentedPermille: Schema.optionalKey(
    Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 0, maximum: 1_000 })))
  ),
  /** Entries of one PVALIDATE list; as many as the page holds when left out. */
  entriesPerList: Schema.optionalKey(Schema.Int.pipe(Schema.check(Schema.isBetween({ minimum: 1, maximum: 511 }))))
})
