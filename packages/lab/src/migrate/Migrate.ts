import { MIGRATION_RESULT, MIGRATION_ROLE, MIGRATION_START, SVSM_RESULT } from "@vmpl-lab/guest"
import { strategyName } from "@vmpl-lab/hv-strategies"
import { PAGE_SIZE } from "@vmpl-lab/sev-es"
import { RunFailed } from "../RunFailed.ts"
import { pagesDigest, stateDigest } from "./GuestDigest.ts"
import { beginTracking, dirtyPages, gfnList } from "./HostTracking.ts"
import { Link, type Message } from "./Link.ts"
import type { MigrateOptions } from "./MigrateOptions.ts"
import type { MigrationRound, MigrationRun } from "./MigrationRun.ts"
import { BUFFER_PAGES, dataRange, MigrationSide } from "./MigrationSide.ts"
import { Receiver } from "./Receiver.ts"
import { migrationResultName } from "./ResultName.ts"

/** GFNs of one list of the host's. */
const LIST_MAX = (BUFFER_PAGES * PAGE_SIZE) / 8
/** Writes of a vCPU that is not to end. */
const NEVER = 0xffff_ffff
/** How much longer than it is watched the guest writes before that. */
const FIRST_TOUCHES = 3
/** Times that the guest is asked to stop, or to go on. */
const STOP_MAX = 1_000
/** More pages than a batch has room for. */
const ANY = 0xffff

/** What was measured while the guest was still on the source. */
interface Sent {
  readonly startNs: number
  readonly stopNs: number
  readonly before: number
  readonly during: number
  readonly lastPages: number
  readonly digest: string | null
  /** VMPL switches that came before START. */
  readonly switches: MigrationRun["switches"]
}

/** Moves a guest from one machine to another; yields now and then, so that somebody may interrupt it. */
export class MigrationFlow {
  readonly #options: MigrateOptions
  readonly #source: MigrationSide
  readonly #receiver: Receiver
  readonly #link: Link
  readonly #rounds: Array<MigrationRound> = []
  /** Virtual ns that the source's VMM takes before its agent goes on. */
  #waitNs = 0

  constructor(options: MigrateOptions) {
    const { strategy, targetStrategy, profile, seed, pages, vcpus, writesPerSecond, writesAfter, wrote, called } =
      options
    const paceNs = Math.round(1e9 / writesPerSecond)
    const watched = { ...(wrote === undefined ? {} : { wrote }), ...(called === undefined ? {} : { called }) }
    const data = dataRange(pages)
    const { callEvery = 0 } = options
    const guest = { vcpus: vcpus + 1, data, paceNs, callEvery, writes: () => NEVER, writesAfter }
    const common = { profile, seed, ...guest, ...watched }
    this.#options = options
    this.#link = new Link(options.link)
    this.#source = new MigrationSide({ ...common, name: "source", strategy, chip: 1 })
    const target = { ...common, name: "target", strategy: targetStrategy ?? strategy, chip: 2 } as const
    this.#receiver = new Receiver(new MigrationSide(target))
  }

  /** Both machines, for whoever looks at them. */
  get sides(): readonly [source: MigrationSide, target: MigrationSide] {
    return [this.#source, this.#receiver.side]
  }

  *run(): Generator<void, MigrationRun> {
    const source = this.#source
    const { side: target } = this.#receiver
    yield* target.boot()
    yield* source.boot()
    const sent = yield* this.#send()
    const isRefused = this.#receiver.refusal !== null
    const resumed = isRefused ? null : yield* this.#receiver.resume()
    const staysHere = isRefused && (yield* this.#goBack())
    const { startNs, stopNs, before, during } = sent
    const data = dataRange(this.#options.pages)
    return {
      strategy: strategyName(this.#options.strategy),
      tracking: this.#options.tracking,
      rounds: this.#rounds,
      lastPages: sent.lastPages,
      bytes: this.#link.bytes,
      dirtyFaults: source.service.migration.faults,
      switches: { source: source.switches - sent.switches.source, target: target.switches - sent.switches.target },
      totalNs: resumed === null ? null : resumed.firstNs - startNs,
      downtimeNs: resumed === null ? null : resumed.firstNs - Math.max(...source.parkedNs),
      writesPerSecond: {
        before: (before * 1e9) / this.#options.warmUpNs,
        during: stopNs === startNs ? 0 : (during * 1e9) / (stopNs - startNs)
      },
      sourceDigest: sent.digest,
      targetDigest: resumed?.digest ?? null,
      guestDigest: resumed === null ? null : pagesDigest(target.machine, data.gpa, data.pages),
      writes: source.writes.map((count, apicId) => count + target.writes[apicId]!),
      refusal: this.#receiver.refusal,
      goesOn: resumed !== null ? "target" : staysHere ? "source" : "nowhere"
    }
  }

  /** The source's part, as far as the target goes along. */
  *#send(): Generator<void, Sent> {
    const source = this.#source
    // Pages are mapped where they are touched first: that is no part of what a migration slows down.
    yield* source.command("wait", 0, FIRST_TOUCHES * this.#options.warmUpNs)
    const written = source.written
    yield* source.command("wait", 0, this.#options.warmUpNs)
    const before = source.written - written
    yield* this.#shakeHands()
    const switches = { source: source.switches, target: this.#receiver.side.switches }
    const startNs = yield* this.#start()
    const atStart = source.written
    yield* this.#whileItRuns(startNs)
    if (this.#receiver.refusal !== null)
      return { startNs, stopNs: startNs, before, during: 0, lastPages: 0, digest: null, switches }
    const stopNs = yield* this.#stop()
    const during = source.written - atStart
    const lastPages = yield* this.#last()
    const digest = stateDigest(source.machine, source.service.migration)
    return { startNs, stopNs, before, during, lastPages, digest, switches }
  }

  /** Both sides agree on a key. */
  *#shakeHands(): Generator<void, void> {
    const source = this.#source
    const change = this.#options.introduces ?? ((offer) => offer)
    const theirs = change(yield* this.#receiver.offer(), "target")
    const ours = change(source.take((yield* this.#done("hello", MIGRATION_ROLE.SOURCE)).rcx), "source")
    source.put(theirs)
    yield* this.#done("peer", theirs.length)
    yield* this.#receiver.greet(ours)
  }

  *#start(): Generator<void, number> {
    const hostTracks = this.#options.tracking === "nested-page-table"
    const rehash = this.#options.rehash ?? hostTracks
    const flags = (hostTracks ? MIGRATION_START.HOST_TRACKS : 0) | (rehash ? MIGRATION_START.REHASH : 0)
    const { ns } = yield* this.#done("start", flags, hostTracks ? beginTracking(this.#source.machine) : 0)
    this.#receiver.align(ns)
    return ns
  }

  /** Rounds until few pages are left, or it has been tried often enough. */
  *#whileItRuns(startNs: number): Generator<void, void> {
    const { maxRounds, threshold } = this.#options
    let beginNs = startNs
    let todo = ANY
    for (let round = 0; round < maxRounds && (round === 0 || todo > threshold); round++) {
      let pages = 0
      let endNs = beginNs
      let dirtied = 0
      while (pages < todo && this.#receiver.refusal === null) {
        const reply = yield* this.#sendPages(todo - pages)
        pages += reply.pages
        dirtied = reply.left
        endNs = reply.ns
        // The first round is over when every page has gone once; what was written meanwhile belongs to the next.
        if (round === 0 && todo === ANY) todo = pages + dirtied
        if (reply.pages === 0) break
      }
      dirtied = (yield* this.#markDirty()) ?? dirtied
      this.#rounds.push({ pages, dirtied, ns: endNs - beginNs })
      beginNs = endNs
      todo = dirtied
    }
  }

  *#sendPages(most: number): Generator<void, { pages: number; left: number; ns: number }> {
    const reply = yield* this.#done("export", Math.min(most, ANY), this.#waitNs)
    this.#waitNs = yield* this.#carry(reply.ns, "pages", reply.rcx)
    return { pages: reply.rdx, left: reply.r8, ns: reply.ns }
  }

  /** What is in the source's buffer goes to the target. @returns virtual ns until there is room for more */
  *#carry(nowNs: number, kind: Message["kind"], length: number): Generator<void, number> {
    const { message, waitNs } = this.#link.send(nowNs, kind, this.#source.take(length))
    let takenNs = message.arrivesNs
    for (const brought of this.#options.carries?.(message) ?? [message]) takenNs = yield* this.#receiver.take(brought)
    this.#link.taken(takenNs)
    return waitNs
  }

  /**
   * The host looks where the guest wrote and tells the SVSM, unless that knows by itself.
   * @returns pages that are to go; null where nothing was told
   */
  *#markDirty(): Generator<void, number | null> {
    const { tracking, tells } = this.#options
    if (tracking !== "nested-page-table") return null
    let left: number | null = null
    const { gfns, ns } = dirtyPages(this.#source.machine)
    const told = tells?.(gfns) ?? gfns
    this.#waitNs += ns
    for (let at = 0; at < told.length; at += LIST_MAX) {
      const list = gfnList(told.slice(at, at + LIST_MAX))
      this.#source.put(list)
      left = (yield* this.#done("mark", list.length, this.#waitNs)).r8
      this.#waitNs = 0
    }
    return left
  }

  /** Every vCPU but the agent's parks. @returns when they had */
  *#stop(): Generator<void, number> {
    for (let asked = 0; asked < STOP_MAX; asked++) {
      const { result, ns } = yield* this.#source.command("stop", 0, asked === 0 ? this.#waitNs : 0)
      if (result === SVSM_RESULT.SUCCESS) return ns
      if (result !== MIGRATION_RESULT.STILL_RUNNING) break
    }
    throw new RunFailed({ why: "the guest's vCPUs do not park" })
  }

  /** What is left once the guest has stopped, and its state, which goes only after a target that took all. @returns pages */
  *#last(): Generator<void, number> {
    yield* this.#markDirty()
    let pages = 0
    for (let left = 1; left > 0 && this.#receiver.refusal === null; ) {
      const reply = yield* this.#sendPages(ANY)
      pages += reply.pages
      left = reply.left
    }
    if (this.#receiver.refusal !== null) return pages
    const state = yield* this.#done("export-state", 0, this.#waitNs)
    yield* this.#carry(state.ns, "state", state.rcx)
    return pages
  }

  /** The guest goes on where it was. The SVSM refuses that where it has been given away. @returns whether it does */
  *#goBack(): Generator<void, boolean> {
    const source = this.#source
    let result: number = MIGRATION_RESULT.STILL_RUNNING
    for (let asked = 0; asked < STOP_MAX && result === MIGRATION_RESULT.STILL_RUNNING; asked++)
      result = (yield* source.command("resume")).result
    const { written } = source
    yield* source.command("wait", 0, this.#options.warmUpNs)
    return source.written > written
  }

  *#done(...command: Parameters<MigrationSide["command"]>) {
    const reply = yield* this.#source.command(...command)
    if (reply.result === SVSM_RESULT.SUCCESS) return reply
    throw new RunFailed({ why: `the source's ${command[0]} is answered by ${migrationResultName(reply.result)}` })
  }
}
