import { TIME_SLICE_NS } from "@vmpl-lab/sim"

/** The workload of `compare` unless told otherwise. Its values pass the same checks as those of a file. */
export const DEFAULT_SCENARIO = {
  name: "default",
  vcpus: 4,
  calls: 1_000,
  boots: 25,
  mix: { QUERY_PROTOCOL: 60, PVALIDATE: 30, REMAP_CA: 10 },
  ring: "page",
  host: { cores: 96, placement: "spread", timeSliceNs: TIME_SLICE_NS }
} as const
