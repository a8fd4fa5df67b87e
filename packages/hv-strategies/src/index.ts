import { multiVmplVcpu } from "./MultiVmplVcpu.ts"
import { planesKernel } from "./PlanesKernel.ts"
import { planesUserSpace } from "./PlanesUserSpace.ts"
import type { Strategy } from "./Strategy.ts"
import { vcpuPerVmplOneThread, vcpuPerVmplThreads } from "./VcpuPerVmpl.ts"
import { vcpuPerVmplKernel } from "./VcpuPerVmplKernel.ts"
import { vmPerVmplOneThread, vmPerVmplThreads } from "./VmPerVmpl.ts"
import { vmPerVmplKernelLink } from "./VmPerVmplKernelLink.ts"

export { type Strategy, strategyName } from "./Strategy.ts"
export type { StrategyDesign } from "./StrategyDesign.ts"

/** Every strategy, in the order of tables. A new one is a file and a line here. */
export const STRATEGIES: ReadonlyArray<Strategy> = [
  multiVmplVcpu,
  vcpuPerVmplThreads,
  vcpuPerVmplOneThread,
  vcpuPerVmplKernel,
  vmPerVmplThreads,
  vmPerVmplOneThread,
  vmPerVmplKernelLink,
  planesUserSpace,
  planesKernel
]
