// The generated parts of docs/findings.md and README.md, each from the results of some commands.
import { COMMANDS } from "./commands.mjs"
import * as f from "./figures.mjs"
import { finding, shell, table } from "./markdown.mjs"
import { migration } from "./migration.mjs"
import { services } from "./services.mjs"

const { code, duration, kib, nameOf, percent, ratio } = f
const MULTI = "multi-vmpl-vcpu"
const THREADS = "vcpu-per-vmpl/vmm-threads"
const ONE = "vcpu-per-vmpl/vmm-one-thread"
const KERNEL = "vcpu-per-vmpl/kernel"
const IN_KERNEL = [KERNEL, "vm-per-vmpl/kernel-link", "planes/kernel"]
const ONE_THREAD = [ONE, "vm-per-vmpl/vmm-one-thread", "planes/user-space"]
const TWO_THREADS = [THREADS, "vm-per-vmpl/vmm-threads"]
const RT = "run-vmpl-round-trip"

const block = (names, findings, ...tables) =>
  [findings.join("\n"), ...tables, shell(names.map((name) => COMMANDS[name]))].join("\n\n")

const span = ([low, high]) => (low === high ? duration(low) : `${duration(low)} to ${duration(high)}`)
const priceOf = ({ crossings }) => crossings[0].ns
const answerOf = ({ results }, primitives) => results.find((one) => one.primitives.join() === primitives.join())

const best = (r) => {
  const json = r.best
  const rt = (name) => f.roundTrip(json, name)
  const same = IN_KERNEL.slice(1).map((name) => f.comparisonOf(json, name, RT, "baseline").verdict)
  const twins = r.twins.paired.comparisons.find(({ operation }) => operation === RT).difference
  const kernelSteps = IN_KERNEL.every((name) => rt(name) < Math.min(...ONE_THREAD.map(rt)))
  const rows = f.namesIn(json).map((name) => {
    const { ns, assumedShare, ratioToFastest } = f.resultOf(json, name)
    const difference = f.comparisonOf(json, name, RT, "fastest")
    const interval = difference === undefined ? "-" : span(difference.interval)
    return [code(name), duration(ns.p50), duration(ns.p99), ratio(ratioToFastest), interval, percent(assumedShare)]
  })
  return block(
    ["best", "twins"],
    [
      finding(
        f.namesIn(json).every((name) => name === MULTI || rt(name) > rt(MULTI)),
        `${code(MULTI)} has the shortest round trip, ${duration(rt(MULTI))}.`
      ),
      finding(
        kernelSteps && same.every((verdict) => verdict === "no detectable difference"),
        `Every strategy that switches in the kernel comes next, ${duration(rt(KERNEL))}. Among these three there is no ` +
          "detectable difference: a vCPU, a VM or a plane for each VMPL take the same steps of a switch."
      ),
      finding(
        ONE_THREAD.every((name) => rt(name) === rt(ONE)) && rt(ONE) < rt(THREADS),
        `One VMM thread for all levels costs ${duration(rt(ONE) - rt(KERNEL))} more, whatever the objects; a thread for ` +
          `each level, ${duration(rt(THREADS) - rt(KERNEL))} more.`
      ),
      finding(
        twins.verdict === "no detectable difference",
        "With two threads too, vCPUs in one VM and VMs for each VMPL have no detectable difference " +
          `(${twins.interval.map((ns) => `${ns} ns`).join(" to ")}, ${r.twins.paired.replications} paired runs).`
      )
    ],
    table(["strategy", "p50", "p99", "to fastest", "difference, 95 %", "assumed"], rows)
  )
}

const robust = (r) => {
  const { pairs, reversals } = r.sensitivity
  const rows = pairs
    .filter(({ a }) => a === MULTI)
    .map((pair) => {
      const ends = pair.knobs
        .filter(({ detected }) => detected)
        .flatMap(({ knob, ratioLow, ratioHigh }) => [
          { end: `${knob} low`, ratio: 1 / ratioLow },
          { end: `${knob} high`, ratio: 1 / ratioHigh }
        ])
        .toSorted((a, b) => a.ratio - b.ratio)
      const [low, high] = [ends[0], ends.at(-1)]
      return [
        code(pair.b),
        ratio(1 / pair.ratio),
        `${ratio(low.ratio)} (${low.end})`,
        `${ratio(high.ratio)} (${high.end})`
      ]
    })
  return block(
    ["sensitivity", "swap"],
    [
      finding(
        rows.length === 8 && reversals.length === 0,
        "No price alone, moved within its range, changes the order of two strategies."
      ),
      finding(
        r.swap.results[0].answer === "at",
        `The lead of ${code(MULTI)} rests on a cheap swap: it is gone once a swap of the VMSA in the VMCB costs ` +
          `${duration(priceOf(r.swap.results[0]))} (assumed: 100 ns, 20 to 300). A flush that hardware turned out to need ` +
          "at each swap would count towards that price."
      )
    ],
    table(["strategy", "to fastest", "lowest", "highest"], rows, [0, 2, 3])
  )
}

const affordable = (r) => {
  const at = (rate, placement, cStates) =>
    r.rates.find(
      ({ parameters: p }) =>
        p["scenario.svsmCalls.ratePerSecond"] === rate &&
        p["host.placement"] === placement &&
        p["host.cStates"] === cStates
    )
  const rt = (name, ...where) => f.roundTrip(at(...where), name)
  const WHERE = [
    ["a core for each thread", "spread", "shallow"],
    ["the same, deep idle states", "spread", "deep"],
    ["one core", "same-core", "deep"]
  ]
  // Calls in a second whose extra time over the fastest strategy is a hundredth of that second.
  const callsFor = (ns) => Math.floor(1e7 / ns / 100) * 100
  const rows = [THREADS, ONE, KERNEL].flatMap((name) =>
    WHERE.filter(([, placement]) => name === THREADS || placement === "same-core").map(([where, placement, idle]) => {
      const ns = rt(name, 1000, placement, idle)
      const extra = ns - rt(MULTI, 1000, placement, idle)
      const text = name === THREADS ? where : "any"
      return [code(name), text, duration(ns), duration(rt(name, 20000, placement, idle)), callsFor(extra)]
    })
  )
  const deep = rt(THREADS, 1000, "spread", "deep")
  const shallow = rt(THREADS, 1000, "spread", "shallow")
  return block(
    ["rates1", "rates2", "rates"],
    [
      finding(
        rt(ONE, 1000, "same-core", "deep") < 1.6 * rt(MULTI, 1000, "same-core", "deep"),
        `A way out to user space by itself is affordable: up to ${callsFor(rt(ONE, 1000, "spread", "shallow") - rt(MULTI, 1000, "spread", "shallow"))} ` +
          "calls per second and vCPU, one thread for all levels takes less than 1 % of the vCPU more than the fastest."
      ),
      finding(
        deep > 2 * shallow && rt(THREADS, 20000, "spread", "deep") < 1.1 * shallow,
        "What cannot be afforded is to wake another core: seldom calls, which should be harmless, are the slow ones where " +
          `cores sleep deeply (${duration(deep)} instead of ${duration(shallow)}), as the other level's core has gone idle in between.`
      ),
      finding(
        rt(THREADS, 1000, "same-core", "deep") < shallow,
        `Both threads on one core avoid that: ${duration(rt(THREADS, 1000, "same-core", "deep"))}, and idle states do not matter.`
      )
    ],
    table(["strategy", "threads", "1000 calls/s", "20000 calls/s", "calls/s for 1 % more"], rows, [0, 1])
  )
}

const hosts = (r) => {
  const columns = { best: "spread", sameCore: "same core", twoCores: "two cores", unpinned: "unpinned" }
  const over = r.overcommit
  const rows = f.namesIn(r.best).map((name) => {
    const { ns } = f.resultOf(over, name)
    const { host, virtualNs, launchNs } = f.strategyOf(over, name)
    const placed = Object.keys(columns).map((key) => duration(f.roundTrip(r[key], name)))
    return [
      code(name),
      ...placed,
      duration(ns.p50),
      duration(ns.mean),
      duration(host.stolenNs),
      duration(virtualNs - launchNs)
    ]
  })
  const mean = (name) => f.resultOf(over, name).ns.mean
  const p90 = (run, name) => f.resultOf(run, name).ns.p90
  return block(
    ["sameCore", "twoCores", "unpinned", "overcommit"],
    [
      finding(
        [MULTI, ...IN_KERNEL, ...ONE_THREAD].every((name) =>
          Object.keys(columns).every((key) => f.roundTrip(r[key], name) === f.roundTrip(r.best, name))
        ),
        "Where threads run matters only to strategies with a thread for each level."
      ),
      finding(
        TWO_THREADS.every((name) => f.isAbout(f.roundTrip(r.unpinned, name), f.roundTrip(r.best, name))),
        "Left alone, the scheduler keeps these two threads on two cores, and with that the slow hand-off: an idle core is " +
          "preferred to the one that is about to be free."
      ),
      finding(
        TWO_THREADS.every((name) => p90(over, name) > p90(r.best, name)) &&
          [MULTI, ...IN_KERNEL, ...ONE_THREAD].every((name) => f.roundTrip(over, name) === f.roundTrip(r.best, name)),
        "With 8 vCPUs on 4 cores the medians of all others stay; with two threads each hand-off may queue or find its core, " +
          `and the p90 of ${code(THREADS)} grows from ${duration(p90(r.best, THREADS))} to ${duration(p90(over, THREADS))}.`
      ),
      finding(
        ONE_THREAD.every((name) => mean(name) > mean(MULTI)) && TWO_THREADS.every((name) => mean(name) > mean(MULTI)),
        `Its means (${duration(mean(MULTI))} for ${code(MULTI)}, ${duration(mean(ONE))} for one thread) hold the few switches in ` +
          "which a time slice of 3 ms ended. They come from one run each."
      )
    ],
    table(["strategy", ...Object.values(columns), "8 on 4: p50", "mean", "stolen", "run took"], rows)
  )
}

const kernelWork = (r) => {
  const user = ["userspace_exit", "userspace_entry", "vmm_dispatch"]
  const rows = ["threadsToOne", "oneToKernel", "oneToMulti", "kernelToMulti"].flatMap((key) =>
    r[key].results
      .filter(({ answer, best }) => answer === "at" || best.ns === 0)
      .map(({ a, b, primitives, answer, nowNs, gapNowNs, crossings, best: nearest }) => {
        const found =
          answer === "at" ? `at ${duration(crossings[0].ns)}` : `never: ${duration(nearest.gapNs)} remain at 0`
        return [code(a), code(b), duration(gapNowNs), primitives.join(" + "), duration(nowNs), found]
      })
  )
  const handOff = answerOf(r.threadsToOne, ["thread_handoff_cross_core"])
  const way = answerOf(r.oneToKernel, user)
  const load = answerOf(r.kernelToMulti, ["vcpu_load", "tlb_flush_asid", "vcpu_put"])
  const never = answerOf(r.oneToMulti, user)
  return block(
    ["threadsToOne", "oneToKernel", "oneToMulti", "kernelToMulti"],
    [
      finding(
        handOff.answer === "at",
        `Two threads: the hand-off across cores would have to cost ${duration(priceOf(handOff))} instead of ` +
          `${duration(handOff.nowNs)} to be as good as one thread. A direct hand-off on one core is what rescues them; then ` +
          "one thread that runs the vCPU of each level in turn is simpler and needs nothing from the kernel but that."
      ),
      finding(
        way.answer === "at",
        `One thread: exit, VMM and entry together at ${duration(priceOf(way))} instead of ${duration(way.nowNs)} would equal ` +
          "a switch in the kernel. A switch in KVM_RUN's loop saves all of it."
      ),
      finding(
        never.answer === "never" && load.answer === "at",
        `Even a free way to user space leaves ${duration(never.best.gapNs)} to ${code(MULTI)}. What keeps a VMCB for each level ` +
          `behind is changing it: ${duration(load.nowNs)} for vcpu_load, vcpu_put and the flush of the ASID, which would have ` +
          `to become ${duration(priceOf(load))}. Not flushing where only the VMPL changes is the first step, worth, in each round trip, ` +
          `${duration(answerOf(r.kernelToMulti, ["tlb_flush_asid"]).gapNowNs - answerOf(r.kernelToMulti, ["tlb_flush_asid"]).best.gapNs)}.`
      )
    ],
    table(["strategy", "to be as", "behind by", "price", "now", "break-even"], rows, [0, 1, 3, 5])
  )
}

const boot = (r) => {
  const { apBoot: json, grace } = r
  const up = (name) => f.strategyOf(json, name).boot.allUpNs
  const rows = f.namesIn(json).map((name) => {
    const { host } = f.strategyOf(json, name)
    return [code(name), duration(up(name).min), duration(up(name).max), kib(host.bytesPerVcpu)]
  })
  const chance = grace.map(({ parameters }) => parameters["profile.primitives.srcu_grace_period.probability.permille"])
  const names = [...new Set(grace[0].results.map(nameOf))]
  const create = (point, name) => f.resultOf(point, name, "ap-create").ns
  const graceRows = names.map((name) => [
    code(name),
    ...grace.flatMap((p) => [create(p, name).p50, create(p, name).p99].map(duration))
  ])
  const head = chance.flatMap((permille) => [`p50 at ${permille / 10} %`, "p99"])
  const others = f.namesIn(json).filter((name) => name !== MULTI)
  return block(
    ["apBoot", "grace"],
    [
      finding(
        others.every((name) => up(name).min > up(MULTI).max),
        `64 vCPUs with four levels are up after ${duration(up(MULTI).p50)} under ${code(MULTI)}; all others took ` +
          `${duration(Math.min(...others.map((name) => up(name).min)))} to ${duration(Math.max(...others.map((name) => up(name).max)))} ` +
          "over three boots, as they create objects, and creation may wait for a grace period. Among them no order can be told from three boots."
      ),
      finding(
        create(grace[2], KERNEL).p99 > 50 * create(grace[0], KERNEL).p99 &&
          create(grace[2], MULTI).p99 === create(grace[0], MULTI).p99,
        `The tail is a guess: how often a grace period is in the way moves the p99 of AP creation from ${duration(create(grace[0], KERNEL).p99)} ` +
          `to ${duration(create(grace[2], KERNEL).p99)} (${code(KERNEL)}). Creating a level's objects at launch would take all of it off the path.`
      )
    ],
    table(["strategy", "all up, fastest boot", "slowest", "host memory per vCPU"], rows),
    table(["AP creation, chance of a grace period", ...head], graceRows)
  )
}

const memory = (r) => {
  const json = r.memory
  const of = (name) => f.strategyOf(json, name).acceptance
  const share = (a) => `${(100 * a.switchShare).toFixed(2)} %`
  const rows = f
    .namesIn(json)
    .map((name) => [code(name), `${(of(name).nsPerGib / 1e6).toFixed(2)} ms`, of(name).calls, share(of(name))])
  const times = f.namesIn(json).map((name) => of(name).nsPerGib)
  return block(
    ["memory"],
    [
      finding(
        Math.max(...times) < 1.02 * Math.min(...times),
        `Accepting memory in lists of 2 MiB entries does not care who switches: the slowest strategy is ` +
          `${((100 * Math.max(...times)) / Math.min(...times) - 100).toFixed(1)} % behind the fastest, and switches take ` +
          `${share(of(MULTI))} to ${share(of(THREADS))} of the time. A list makes a call seldom enough.`
      )
    ],
    table(["strategy", "time per GiB", "calls", "in switches"], rows)
  )
}

const levels = (r) => {
  const json = r.fourLevels
  const medians = (name) => f.resultOf(json, name).groups.map(({ ns }) => ns.p50)
  const bytes = (source, name) => f.strategyOf(source, name).host.bytesPerVcpu
  const rows = f
    .namesIn(json)
    .map((name) => [
      code(name),
      span([Math.min(...medians(name)), Math.max(...medians(name))]),
      f.strategyOf(r.best, name).kvmObjectsPerGuestVcpu,
      f.strategyOf(json, name).kvmObjectsPerGuestVcpu,
      kib(bytes(r.best, name)),
      kib(bytes(json, name))
    ])
  return block(
    ["fourLevels"],
    [
      finding(
        f.namesIn(json).every((name) => Math.max(...medians(name)) < 1.05 * Math.min(...medians(name))),
        "A round trip costs the same between any two of four levels. A nested call pays one for each level it goes through, so the ratios stay."
      ),
      finding(
        bytes(json, MULTI) < 1.1 * bytes(r.best, MULTI) && bytes(json, KERNEL) > 1.4 * bytes(r.best, KERNEL),
        `What grows is memory: from two levels to four, ${code(MULTI)} takes as good as nothing more, a vCPU for each level ` +
          `${kib(bytes(json, KERNEL) - bytes(r.best, KERNEL))} more of each guest vCPU, a VM for each ` +
          `${kib(bytes(json, "vm-per-vmpl/kernel-link") - bytes(r.best, "vm-per-vmpl/kernel-link"))}. The sizes of structs are assumed.`
      )
    ],
    table(["strategy", "round trip p50", "objects, 2 levels", "4 levels", "memory, 2 levels", "4 levels"], rows)
  )
}

const interrupts = (r) => {
  const MODES = ["normal", "restricted", "alternate"]
  const names = f.namesIn(r.normal)
  const of = (mode, name, level) => f.interruptsOf(r[mode], name, level)
  const rows = names.map((name) => [
    code(name),
    ...MODES.flatMap((mode) => [
      percent(of(mode, name).wrong / of(mode, name).raised),
      duration(f.lateDevice(r[mode], name, 0))
    ])
  ])
  const late = (name) => f.lateDevice(r.normal, name, 0)
  const waking = ["vm-per-vmpl/vmm-one-thread", "vm-per-vmpl/kernel-link", "planes/user-space", "planes/kernel"]
  const wrongOnly = names.filter((name) => MODES.some((mode) => of(mode, name).wrong > 0))
  const timer = of("normal", MULTI, 0).sources.find(({ source }) => source === "timer")
  const kernelDevice = of("normal", KERNEL, 0).sources.find(({ source }) => source === "device")
  return block(
    MODES,
    [
      finding(
        of("normal", MULTI).wrong > 0.2 * of("normal", MULTI).raised &&
          timer.raised === 0 &&
          of("alternate", MULTI, 2).sources.every(({ delivered }) => delivered === 0),
        `${code(MULTI)} is wrong about interrupts: with one local APIC, ${of("normal", MULTI).wrong} of ${of("normal", MULTI).raised} ` +
          "were taken by the level that happened to run, and VMPL0 has no timer of its own. Restricted injection does not help. With alternate " +
          "injection the SVSM gets what is its own, but none of VMPL2's reached it in these runs."
      ),
      finding(
        wrongOnly.every((name) => [MULTI, KERNEL].includes(name)) && kernelDevice.misdelivered === kernelDevice.raised,
        `Of the others only ${code(KERNEL)} misdelivers, and by its design: the I/O APIC's interrupts have one default VMPL, here 2, so ` +
          `that all ${kernelDevice.raised} of VMPL0's device went to VMPL2.`
      ),
      finding(
        waking.every((name) => late(name) < 0.2 * late(ONE)) && late(THREADS) > 50_000,
        "Who wakes a more privileged level decides latency more than the switch does: a device interrupt for VMPL0 that finds VMPL2 running " +
          `takes ${duration(Math.min(...waking.map(late)))} to ${duration(Math.max(...waking.map(late)))} where something preempts, and ` +
          `${duration(late(ONE))} (${code(ONE)}) where it waits for the next call.`
      )
    ],
    table(["strategy", ...MODES.flatMap((mode) => [`${mode}: wrong level`, "VMPL0's, late"])], rows)
  )
}

const machine = (r) => {
  const rows = f
    .namesIn(r.best)
    .map((name) => [
      code(name),
      duration(f.roundTrip(r.best, name)),
      ratio(f.resultOf(r.best, name).ratioToFastest),
      duration(f.roundTrip(r.otherMachine, name)),
      ratio(f.resultOf(r.otherMachine, name).ratioToFastest)
    ])
  const order = (json) => [MULTI, KERNEL, ONE, THREADS].map((name) => f.roundTrip(json, name))
  const rises = (all) => all.every((ns, i) => i === 0 || ns > all[i - 1])
  const { inSample, outOfSample } = r.validate.worst
  return block(
    ["derive", "otherMachine", "validate"],
    [
      finding(
        rises(order(r.best)) && rises(order(r.otherMachine)),
        "On a faster core with cheaper mitigations everything is faster and the order is the same; ratios grow, because what a switch " +
          "shares between strategies is what mitigations make slow."
      ),
      finding(
        inSample < 1,
        `How well the profile predicts what was published: within ${inSample.toFixed(1)} % where the figure gave the price, ` +
          `and at worst ${outOfSample.toFixed(0)} % off where it did not.`
      )
    ],
    table(["strategy", "epyc-9654p", "ratio", "3.7 GHz, mitigations x0.7", "ratio"], rows)
  )
}

const readme = (r) => {
  const rows = f.namesIn(r.best).map((name) => {
    const { ns, ratioToFastest } = f.resultOf(r.best, name)
    const { host } = f.strategyOf(r.best, name)
    const { raised, wrong } = f.interruptsOf(r.normal, name)
    return [
      code(name),
      duration(ns.p50),
      ratio(ratioToFastest),
      duration(f.groupOf(r.best, name, "VMPL2 CREATE").ns.p50),
      duration(host.cpuNsPerCall),
      kib(host.bytesPerVcpu),
      `${wrong} of ${raised}`,
      duration(f.lateDevice(r.normal, name, 0))
    ]
  })
  const head = [
    "strategy",
    "round trip",
    "ratio",
    "AP create",
    "host CPU per call",
    "memory per vCPU",
    "interrupts wrong",
    "late by"
  ]
  return [table(head, rows), shell([COMMANDS.best, COMMANDS.normal])].join("\n\n")
}

/** What each generated part needs, and how it is made. */
export const BLOCKS = {
  best: { needs: ["best", "twins"], make: best },
  robust: { needs: ["sensitivity", "swap"], make: robust },
  affordable: { needs: ["rates1", "rates2", "rates"], make: affordable },
  hosts: { needs: ["best", "sameCore", "twoCores", "unpinned", "overcommit"], make: hosts },
  kernel: { needs: ["threadsToOne", "oneToKernel", "oneToMulti", "kernelToMulti"], make: kernelWork },
  boot: { needs: ["apBoot", "grace"], make: boot },
  memory: { needs: ["memory"], make: memory },
  levels: { needs: ["best", "fourLevels"], make: levels },
  interrupts: { needs: ["normal", "restricted", "alternate"], make: interrupts },
  services: { needs: ["services"], make: services },
  migration: { needs: ["migration"], make: migration },
  machine: { needs: ["best", "derive", "otherMachine", "validate"], make: machine }
}

export const README_BLOCK = { needs: ["best", "normal"], make: readme }
