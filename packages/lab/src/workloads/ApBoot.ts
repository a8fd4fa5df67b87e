import * as Schema from "effect/Schema"

/** Keys of the workload `ap-boot`, under `apBoot`. */
export const ApBootKeys = Schema.Struct({
  /** Which levels each vCPU gets beside the SVSM's and the guest's own. */
  moreLevels: Schema.optionalKey(Schema.Literals(["none", "vmpl1", "vmpl3", "vmpl1-and-vmpl3"]))
})
