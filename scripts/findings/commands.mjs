// The commands behind docs/findings.md, by the name under which the tables know their results. Files that a command
// writes or reads by a bare name lie in a scratch directory; later commands may read what earlier ones wrote.

const INTERRUPTS = ["normal", "restricted", "alternate"]
const workloadFile = (mode) => `workloads/interrupts${mode === "normal" ? "" : `-${mode}`}.json`

export const COMMANDS = {
  best: "compare --baseline vcpu-per-vmpl/kernel",
  twins: "compare --strategy vcpu-per-vmpl/vmm-threads,vm-per-vmpl/vmm-threads --boots 1 --replications 30",
  sensitivity: "sensitivity",
  swap: "break-even --a vcpu-per-vmpl/kernel --b multi-vmpl-vcpu --primitive vmcb_swap_fields --bound 5000",
  rates1: "sweep examples/findings/rates.json --shard 1/2 -o rates-1.jsonl",
  rates2: "sweep examples/findings/rates.json --shard 2/2 -o rates-2.jsonl",
  rates: "merge rates-1.jsonl rates-2.jsonl -o rates.jsonl",
  sameCore: "compare --placement same-core --boots 1 --replications 0",
  twoCores: "compare --placement two-cores --boots 1 --replications 0",
  unpinned: "compare --placement unpinned --boots 1 --replications 0",
  overcommit: "compare --scenario examples/findings/overcommit.json --replications 0",
  threadsToOne: "break-even --a vcpu-per-vmpl/vmm-threads --b vcpu-per-vmpl/vmm-one-thread",
  oneToKernel: "break-even --a vcpu-per-vmpl/vmm-one-thread --b vcpu-per-vmpl/kernel",
  kernelToMulti: "break-even --a vcpu-per-vmpl/kernel --b multi-vmpl-vcpu",
  oneToMulti: "break-even --a vcpu-per-vmpl/vmm-one-thread --b multi-vmpl-vcpu",
  apBoot: "compare --scenario workloads/ap-boot.json --replications 0",
  grace: "sweep examples/findings/grace-periods.json -o grace-periods.jsonl",
  memory: "compare --scenario workloads/memory-acceptance.json --replications 0",
  fourLevels: "compare --scenario workloads/four-levels.json --replications 0",
  ...Object.fromEntries(INTERRUPTS.map((mode) => [mode, `compare --scenario ${workloadFile(mode)} --replications 0`])),
  services: "service latency",
  migration: "migrate",
  derive: "profile derive --clock-ghz 3.7 --mitigations 0.7 --name other-machine -o other-machine.json",
  otherMachine: "compare --profile ./other-machine.json --boots 1 --replications 0",
  validate: "validate"
}

/** Words of a command line: no command here has quotes. */
export const wordsOf = (command) => command.split(" ")

/** Whether a command prints JSON when asked to; the others write a file. */
export const printsJson = (command) => !/^(?:sweep|merge|profile) /.test(command)
