import { spawn } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { createConnection, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { RunFailed } from "../RunFailed.ts"
import { framingError, responseLength } from "./TpmMessage.ts"

/** A TPM outside of the simulation. */
export interface TpmBackEnd {
  /** One whole command and its response. Bytes that are no whole command are answered as a TPM does. */
  readonly send: (command: Uint8Array) => Effect.Effect<Uint8Array, RunFailed>
  /** Power off and on again: what is not kept in its state is lost, and it waits for TPM2_Startup. */
  readonly powerCycle: Effect.Effect<void, RunFailed>
}

/** What to do about a machine without it. */
export const SWTPM_MISSING = "swtpm is not installed, expected the program of Debian's package swtpm on the PATH"

/** How long its sockets and its answers may take. Making an RSA key takes some seconds at worst. */
const START_MS = 5_000
const ANSWER_MS = 60_000
const RETRY_MS = 20

/** Commands of its control channel: a code, then what belongs to it; the answer is a result, 0 for done. */
const CONTROL = { INIT: 2, SHUTDOWN: 3 } as const

/** Longest end of what a program said on standard error that an error quotes. */
const QUOTED = 200

class Failure extends Error {}

const failed = (why: string) => new RunFailed({ why })

const attempt = <A>(make: () => Promise<A>): Effect.Effect<A, RunFailed> =>
  Effect.tryPromise({ try: make, catch: (cause) => failed(cause instanceof Error ? cause.message : String(cause)) })

const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms))

const connected = (path: string): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = createConnection(path)
    socket.once("error", reject)
    socket.once("connect", () => {
      socket.off("error", reject)
      socket.on("error", () => {})
      resolve(socket)
    })
  })

/** Writes a message and collects what comes until `lengthOf` says that it is whole. */
const exchange = (
  socket: Socket,
  message: Uint8Array,
  lengthOf: (bytes: Uint8Array) => number | undefined
): Promise<Uint8Array> =>
  new Promise((resolve, reject) => {
    let bytes = new Uint8Array(0)
    const settle = (act: () => void): void => {
      clearTimeout(timer)
      socket.off("data", onData)
      socket.off("close", onClose)
      act()
    }
    const onData = (chunk: Uint8Array): void => {
      bytes = new Uint8Array(Buffer.concat([bytes, chunk]))
      const length = lengthOf(bytes)
      if (length !== undefined && bytes.length >= length) settle(() => resolve(bytes.subarray(0, length)))
    }
    const onClose = (): void => settle(() => reject(new Failure("swtpm ended before it had answered")))
    const timer = setTimeout(() => settle(() => reject(new Failure("swtpm does not answer"))), ANSWER_MS)
    if (socket.destroyed) return onClose()
    socket.on("data", onData)
    socket.on("close", onClose)
    socket.write(message)
  })

const words = (...values: ReadonlyArray<number>): Uint8Array => {
  const bytes = new Uint8Array(4 * values.length)
  values.forEach((value, i) => {
    new DataView(bytes.buffer).setUint32(4 * i, value)
  })
  return bytes
}

/** A running swtpm with its connections. */
class Swtpm {
  readonly directory: string
  readonly #program: string
  readonly #process: ReturnType<typeof spawn>
  #said = ""
  #ended: string | null = null
  #data: Socket | null = null
  #control: Socket | null = null

  constructor(program: string, directory: string) {
    this.directory = directory
    this.#program = program
    const state = ["--tpmstate", `dir=${directory},mode=0600`]
    const channels = [
      "--server",
      `type=unixio,path=${this.#path("data")}`,
      "--ctrl",
      `type=unixio,path=${this.#path("control")}`
    ]
    // It ends with its last connection, so that it never outlives a platform that was killed.
    this.#process = spawn(program, ["socket", "--tpm2", "--terminate", ...state, ...channels], {
      stdio: ["ignore", "ignore", "pipe"]
    })
    this.#process.stderr?.on("data", (text) => {
      this.#said = (this.#said + String(text)).slice(-QUOTED)
    })
    this.#process.once("error", (error: NodeJS.ErrnoException) => {
      this.#ended = error.code === "ENOENT" ? SWTPM_MISSING : `swtpm cannot be started: ${error.message}`
    })
    this.#process.once("exit", (code, signal) => {
      this.#ended = `swtpm ended with ${signal ?? `exit code ${code}`}${this.#said === "" ? "" : `: ${this.#said}`}`
    })
  }

  #path(name: string): string {
    return join(this.directory, `${name}.sock`)
  }

  async open(): Promise<void> {
    const until = performance.now() + START_MS
    for (;;) {
      if (this.#ended !== null) throw new Failure(this.#ended)
      try {
        this.#control ??= await connected(this.#path("control"))
        this.#data ??= await connected(this.#path("data"))
        break
      } catch (cause) {
        if (performance.now() > until) throw new Failure(`${this.#program} opens no socket: ${String(cause)}`)
        await sleep(RETRY_MS)
      }
    }
    await this.powerOn()
  }

  async powerOn(): Promise<void> {
    const answer = await exchange(this.#control!, words(CONTROL.INIT, 0), () => 4)
    const result = new DataView(answer.buffer, answer.byteOffset).getUint32(0)
    if (result !== 0) throw new Failure(`swtpm refuses to power its TPM on: result 0x${result.toString(16)}`)
  }

  send(command: Uint8Array): Promise<Uint8Array> {
    return exchange(this.#data!, command, responseLength)
  }

  async close(): Promise<void> {
    if (this.#control !== null && this.#ended === null) {
      await exchange(this.#control, words(CONTROL.SHUTDOWN), () => 4).catch(() => {})
    }
    this.#data?.destroy()
    this.#control?.destroy()
    for (let waited = 0; this.#ended === null; waited += RETRY_MS) {
      if (waited > START_MS) this.#process.kill("SIGKILL")
      else if (waited > 0) this.#process.kill("SIGTERM")
      await sleep(RETRY_MS)
    }
    await rm(this.directory, { recursive: true, force: true })
  }
}

/**
 * Debian's swtpm as a resource: a new TPM with its state in a directory of its own and its channels on UNIX sockets in
 * there. Both are gone when the scope ends.
 * @param program what to run, for machines that have it elsewhere
 * @returns RunFailed when it is not installed or does not come up
 */
export const swtpm = (program = "swtpm"): Effect.Effect<TpmBackEnd, RunFailed, Scope.Scope> =>
  Effect.gen(function* () {
    const directory = yield* Effect.acquireRelease(
      attempt(() => mkdtemp(join(tmpdir(), "vmpl-lab-tpm-"))),
      (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
    )
    const running = yield* Effect.acquireRelease(
      Effect.sync(() => new Swtpm(program, directory)),
      (tpm) => Effect.promise(() => tpm.close())
    )
    yield* attempt(() => running.open())
    return {
      send: (command) => {
        const refused = framingError(command)
        return refused === null ? attempt(() => running.send(command)) : Effect.succeed(refused)
      },
      powerCycle: attempt(() => running.powerOn())
    }
  })
