import type { ByteStream } from "./ByteStream.ts"
import { u32 } from "./TpmMessage.ts"

/** Commands of the TPM simulator's TCP protocol, the same numbers on both ports; big-endian. */
export const MSSIM = {
  POWER_ON: 1,
  SEND_COMMAND: 8,
  NV_ON: 11,
  REMOTE_HANDSHAKE: 15,
  SESSION_END: 20,
  STOP: 21
} as const

/** Longest command that is taken off the wire: a TPM's own limit for its buffer. */
export const COMMAND_MAX = 4096

/** Highest version of the handshake, and what the server is: a TPM without extras. */
const SERVER_VERSION = 1
const SERVER_FLAGS = 0
/** What the simulator answers to what it does not know, before it ends the connection. */
const UNKNOWN = 1

/** Why a connection came to its end: null where the client wanted it so. */
export type Ending = string | null

const wordOf = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0)

/** The next command's number; undefined when the client is gone or wants to go, with `ending` telling which. */
const next = async (stream: ByteStream): Promise<{ readonly code: number } | { readonly ending: Ending }> => {
  const head = await stream.read(4)
  if (head.length === 0) return { ending: null }
  if (head.length < 4) return { ending: `${head.length} of 4 bytes of a command number, then nothing` }
  const code = wordOf(head)
  // STOP would end the simulator. Here it is not the client's to end.
  return code === MSSIM.SESSION_END || code === MSSIM.STOP ? { ending: null } : { code }
}

const answer = (stream: ByteStream, ...values: ReadonlyArray<number>): void =>
  stream.write(Uint8Array.from(values.flatMap(u32)))

/**
 * The platform port. The guest's TPM has its power and its memory from the launch on, so that switching them on is done
 * already; nothing else that a platform does to a TPM has a counterpart in the vTPM protocol.
 */
export const servePlatform = async (stream: ByteStream): Promise<Ending> => {
  for (;;) {
    const command = await next(stream)
    if ("ending" in command) return command.ending
    if (command.code !== MSSIM.POWER_ON && command.code !== MSSIM.NV_ON) {
      answer(stream, UNKNOWN)
      return `platform command ${command.code}, expected ${MSSIM.POWER_ON}, ${MSSIM.NV_ON} or ${MSSIM.SESSION_END}`
    }
    answer(stream, 0)
  }
}

/** The command port: each TPM command goes to `send`, and its response back. */
export const serveCommands = async (
  stream: ByteStream,
  send: (command: Uint8Array, locality: number) => Promise<Uint8Array>
): Promise<Ending> => {
  for (;;) {
    const command = await next(stream)
    if ("ending" in command) return command.ending
    const ending = await serveCommand(stream, command.code, send)
    if (ending !== null) return ending
  }
}

const serveCommand = async (
  stream: ByteStream,
  code: number,
  send: (command: Uint8Array, locality: number) => Promise<Uint8Array>
): Promise<Ending> => {
  if (code === MSSIM.REMOTE_HANDSHAKE) {
    if ((await stream.read(4)).length < 4) return "a handshake without a version"
    answer(stream, SERVER_VERSION, SERVER_FLAGS, 0)
    return null
  }
  if (code !== MSSIM.SEND_COMMAND) {
    answer(stream, UNKNOWN)
    return `command ${code}, expected ${MSSIM.SEND_COMMAND}, ${MSSIM.REMOTE_HANDSHAKE} or ${MSSIM.SESSION_END}`
  }
  const head = await stream.read(5)
  if (head.length < 5) return `${head.length} of 5 bytes of locality and size, then nothing`
  const size = wordOf(head.subarray(1))
  if (size > COMMAND_MAX) return `a TPM command of ${size} bytes, expected at most ${COMMAND_MAX}`
  const bytes = await stream.read(size)
  if (bytes.length < size) return `${bytes.length} of ${size} bytes of a TPM command, then nothing`
  const response = await send(bytes, head[0]!)
  answer(stream, response.length)
  stream.write(response)
  answer(stream, 0)
  return null
}
