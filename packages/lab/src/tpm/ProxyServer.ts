import { createServer, type Server, type Socket } from "node:net"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { InputInvalid, oneLine, shown } from "../InputInvalid.ts"
import { writeErrorLine } from "../Output.ts"
import type { RunFailed } from "../RunFailed.ts"
import { ByteStream } from "./ByteStream.ts"
import { type Ending, serveCommands, servePlatform } from "./Mssim.ts"

/** Where a proxy listens: the command port, and the platform port that is the next one. */
export interface ListenAddress {
  readonly host: string
  readonly port: number
}

const PORT_MAX = 65_534

/** `127.0.0.1:2321`, `[::1]:2321` or `localhost:2321`; anything that is not of this machine alone is refused. */
export const listenAddress = (text: string): ListenAddress | string => {
  const match = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+)):(\d{1,5})$/i.exec(text)
  if (match === null) return `expected HOST:PORT with a loopback address, such as 127.0.0.1:2321, got ${shown(text)}`
  const host = match[1] ?? match[2]!
  const port = Number(match[3])
  const isLoopback = host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host)
  if (!isLoopback)
    return `${shown(host)} is not a loopback address, expected 127.0.0.1, ::1 or localhost: no client has to prove who it is`
  if (port < 1 || port > PORT_MAX) return `port ${port}, expected 1 to ${PORT_MAX}, as the next one is taken too`
  return { host, port }
}

/** What a server does for each connection. */
type Serve = (stream: ByteStream) => Promise<Ending>

interface Listening {
  readonly address: ListenAddress
  readonly serve: Serve
  readonly onEnd: () => void
}

const nameOf = (socket: Socket): string => `client ${socket.remoteAddress ?? "?"}:${socket.remotePort ?? "?"}`

const listen = ({ address: { host, port }, serve, onEnd }: Listening) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly server: Server; readonly sockets: Set<Socket> }, InputInvalid>((resume) => {
      const sockets = new Set<Socket>()
      const server = createServer((socket) => {
        const name = nameOf(socket)
        sockets.add(socket)
        // A client that breaks off is seen by the read that it cuts short.
        socket.on("error", () => {})
        socket.on("close", () => sockets.delete(socket))
        serve(new ByteStream(socket))
          .catch((cause) => String(cause))
          .then((ending) => {
            if (ending !== null) Effect.runFork(writeErrorLine(oneLine(`${name}: ${ending}; disconnected`)))
            socket.end()
            onEnd()
          })
      })
      server.once("error", (error: NodeJS.ErrnoException) => {
        const why =
          error.code === "EADDRINUSE" ? "is taken by another program" : `cannot be listened on: ${error.message}`
        resume(Effect.fail(new InputInvalid({ line: oneLine(`--listen: port ${port} of ${host} ${why}`) })))
      })
      server.listen(port, host, () => resume(Effect.succeed({ server, sockets })))
    }),
    ({ server, sockets }) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
  )

/** What the proxy is to serve. */
export interface ProxyOptions {
  readonly address: ListenAddress
  /** One TPM command; an error is the platform's, and ends it. */
  readonly send: (command: Uint8Array, locality: number) => Effect.Effect<Uint8Array, RunFailed>
  /** Ends after so many clients of the command port; undefined: never by itself. */
  readonly clients: number | undefined
  readonly onListening: Effect.Effect<void>
}

/**
 * Serves the TPM simulator's protocol until so many clients have come and gone, or until it is interrupted. Whatever
 * a client sends, only that client is disconnected.
 */
export const serveProxy = ({ address, send, clients, onListening }: ProxyOptions) =>
  Effect.scoped(
    Effect.gen(function* () {
      const over = yield* Deferred.make<void, RunFailed>()
      let left = clients ?? Number.POSITIVE_INFINITY
      const answered = (command: Uint8Array, locality: number): Promise<Uint8Array> =>
        Effect.runPromise(
          send(command, locality).pipe(
            Effect.tapError((error) => Deferred.fail(over, error)),
            Effect.orDie
          )
        )
      yield* listen({ address: { ...address, port: address.port + 1 }, serve: servePlatform, onEnd: () => {} })
      yield* listen({
        address,
        serve: (stream) => serveCommands(stream, answered),
        onEnd: () => {
          left--
          if (left === 0) Effect.runFork(Deferred.succeed(over, undefined))
        }
      })
      yield* onListening
      yield* Deferred.await(over)
    })
  )
