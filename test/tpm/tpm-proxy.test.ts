import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createConnection } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { TPM_COSTS } from "@vmpl-lab/lab"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { vmplLab } from "../support/shell.ts"
import { freePorts, hasSwtpm, hasTools, tool } from "./Tools.ts"

const launcher = fileURLToPath(new URL("../../packages/lab/bin/vmpl-lab.js", import.meta.url))

/** A proxy that runs: how it is asked to end, and what it has said by then. */
interface Proxy {
  readonly port: number
  readonly err: () => string
  readonly end: (signal: NodeJS.Signals) => Promise<{ readonly code: number | null; readonly out: string }>
}

const stateFolders = (): ReadonlyArray<string> =>
  readdirSync(tmpdir()).filter((name) => name.startsWith("vmpl-lab-tpm-"))

const startProxy = async (args: ReadonlyArray<string> = []): Promise<Proxy> => {
  const port = await freePorts()
  const child = spawn(process.execPath, [launcher, "tpm-proxy", "--listen", `127.0.0.1:${port}`, ...args])
  let out = ""
  let err = ""
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve))
  child.stdout.on("data", (text) => {
    out += String(text)
  })
  await new Promise<void>((resolve, reject) => {
    child.stderr.on("data", (text) => {
      err += String(text)
      if (err.includes("TPM2TOOLS_TCTI")) resolve()
    })
    child.once("close", () => reject(new Error(err)))
  })
  return {
    port,
    err: () => err,
    end: async (signal) => {
      child.kill(signal)
      return { code: await ended, out }
    }
  }
}

const u32 = (...values: ReadonlyArray<number>): Buffer =>
  Buffer.concat(
    values.map((value) => {
      const bytes = Buffer.alloc(4)
      bytes.writeUInt32BE(value >>> 0)
      return bytes
    })
  )

/** Sends bytes, and hangs up at once or takes what comes until the other side does. @returns what came */
const client = (port: number, bytes: Uint8Array, hangUp: boolean): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const socket = createConnection(port, "127.0.0.1")
    const chunks: Array<Buffer> = []
    socket.on("data", (chunk: Buffer) => chunks.push(chunk))
    socket.on("error", reject)
    socket.on("close", () => resolve(Buffer.concat(chunks)))
    socket.on("connect", () => socket.write(bytes, () => (hangUp ? socket.destroy() : undefined)))
  })

const SEND = 8
const SESSION_END = 20
const GET_RANDOM = Uint8Array.from([0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8])

/** One TPM command in the simulator's protocol, and the end of the session behind it. */
const framed = (command: Uint8Array, locality = 0): Buffer =>
  Buffer.concat([u32(SEND), Buffer.from([locality]), u32(command.length), command, u32(SESSION_END)])

/** Response code of the one response in what came: size, response, acknowledgement. */
const codeIn = (bytes: Buffer): number => {
  expect(bytes.length).toBe(4 + bytes.readUInt32BE(0) + 4)
  return bytes.readUInt32BE(4 + 6)
}

describe.skipIf(!hasSwtpm)("tpm-proxy with bad clients", () => {
  const before = stateFolders()
  let proxy: Proxy
  beforeAll(async () => {
    proxy = await startProxy(["--json"])
  })
  // Whatever happened: the next client is served.
  afterEach(async () => {
    expect(codeIn(await client(proxy.port, framed(GET_RANDOM), false))).toBe(0)
  })
  afterAll(async () => {
    const { code, out } = await proxy.end("SIGINT")
    expect(code).toBe(130)
    const { commands } = JSON.parse(out)
    const random = commands.find(({ command }: { command: string }) => command === "TPM2_GetRandom")
    expect(random).toMatchObject({ tpmNs: TPM_COSTS.state.ns })
    expect(commands.find(({ command }: { command: string }) => command === "refused by the SVSM").tpmNs).toBe(0)
    expect(random.ns).toBeCloseTo(random.switchNs + random.serviceNs + random.tpmNs, 6)
    expect(stateFolders()).toEqual(before)
  })

  it.each([
    ["no command", new Uint8Array(0), 0x9a],
    ["a command of 9 bytes", GET_RANDOM.subarray(0, 9), 0x9a],
    ["a command that says it is longer", GET_RANDOM.subarray(0, 11), 0x142],
    ["a command that says it is shorter", Uint8Array.from([...GET_RANDOM, 0]), 0x142],
    ["4087 bytes, the most that a vTPM takes", new Uint8Array(4087), 0x142],
    ["4088 bytes", new Uint8Array(4088), 0x142],
    ["4096 bytes, the most that a TPM takes", new Uint8Array(4096), 0x142]
  ])("answers %s as a TPM does", async (_, command, expected) => {
    expect(codeIn(await client(proxy.port, framed(command), false))).toBe(expected)
  })

  it("answers a locality other than 0 with TPM_RC_LOCALITY", async () => {
    expect(codeIn(await client(proxy.port, framed(GET_RANDOM, 3), false))).toBe(0x907)
  })

  it("disconnects who sends more than a TPM takes, and says so", async () => {
    const oversized = Buffer.concat([u32(SEND), Buffer.from([0]), u32(0xffff_ffff)])
    expect((await client(proxy.port, oversized, false)).length).toBe(0)
    expect(proxy.err()).toMatch(/^vmpl-lab: client 127.*a TPM command of 4294967295 bytes, expected at most 4096/m)
  })

  it("answers a command number that it does not know with 1", async () => {
    expect([...(await client(proxy.port, u32(99), false))]).toEqual([0, 0, 0, 1])
    expect(proxy.err()).toContain("command 99, expected 8, 15 or 20")
  })

  it("shakes hands", async () => {
    const bytes = await client(proxy.port, Buffer.concat([u32(15, 1), u32(SESSION_END)]), false)
    expect([...bytes]).toEqual([...u32(1, 0, 0)])
  })

  it.each([
    ["in a command number", Buffer.from([0, 0])],
    ["before the locality", u32(SEND)],
    ["in the size", Buffer.concat([u32(SEND), Buffer.from([0, 0, 0])])],
    ["in the command", framed(GET_RANDOM).subarray(0, 15)],
    ["before the response", framed(GET_RANDOM)]
  ])("outlives a client that hangs up %s", async (_, bytes) => {
    await client(proxy.port, bytes, true)
  })

  it("outlives ten thousand commands of noise at once", async () => {
    const noise = Uint8Array.from({ length: 40_000 }, (_, i) => (i * 167 + (i >> 8) * 31) % 251)
    await client(proxy.port, noise, true)
  })

  it("the platform port: power and memory are on; the rest is refused; nobody stops the platform", async () => {
    const platform = proxy.port + 1
    expect([...(await client(platform, u32(1, 11, SESSION_END), false))]).toEqual([...u32(0, 0)])
    expect([...(await client(platform, u32(2), false))]).toEqual([...u32(1)])
    expect([...(await client(platform, u32(0xdead_beef), false))]).toEqual([...u32(1)])
    expect([...(await client(platform, u32(21), false))]).toEqual([])
    await client(platform, Buffer.from([0]), true)
  })
})

describe.skipIf(!hasTools)("tpm-proxy with tpm2-tools", () => {
  it("random, PCRs, primary keys, quote, seal and unseal", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-tools-"))
    const proxy = await startProxy(["--strategy", "vcpu-per-vmpl/kernel"])
    const run = (line: string) => tool(proxy.port, folder, line)
    // Between client and TPM there is no resource manager: transient objects stay until they are flushed.
    const alone = async (line: string) => {
      const out = await run(line)
      await run("tpm2_flushcontext -t")
      return out
    }
    try {
      expect(await run("tpm2_getrandom --hex 16")).toMatch(/^[0-9a-f]{32}$/)
      const digest = "aa".repeat(32)
      await run(`tpm2_pcrextend 10:sha256=${digest}`)
      const extended = createHash("sha256").update(Buffer.alloc(32)).update(Buffer.from(digest, "hex")).digest("hex")
      expect(await run("tpm2_pcrread sha256:10")).toContain(extended.toUpperCase())
      await alone("tpm2_createprimary -C o -G ecc -c owner.ctx")
      writeFileSync(join(folder, "secret"), "open sesame")
      await alone("tpm2_create -C owner.ctx -i secret -u sealed.pub -r sealed.priv")
      await alone("tpm2_load -C owner.ctx -u sealed.pub -r sealed.priv -c sealed.ctx")
      expect(await alone("tpm2_unseal -c sealed.ctx")).toBe("open sesame")
      await alone("tpm2_createprimary -C e -G ecc -c e.ctx")
      const attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
      await alone(`tpm2_create -C e.ctx -G ecc256:ecdsa-sha256:null -u ak.pub -r ak.priv -a ${attributes}`)
      await alone("tpm2_load -C e.ctx -u ak.pub -r ak.priv -c ak.ctx")
      await alone("tpm2_readpublic -c ak.ctx -f pem -o ak.pem")
      await alone("tpm2_quote -c ak.ctx -l sha256:10 -q abcd -m message -s signature -o pcrs -g sha256")
      const check = "tpm2_checkquote -u ak.pem -m message -s signature -f pcrs -g sha256"
      await run(`${check} -q abcd`)
      await expect(run(`${check} -q abce`)).rejects.toThrow()
      const message = readFileSync(join(folder, "message"))
      message[message.length - 1]! ^= 1
      writeFileSync(join(folder, "message"), message)
      await expect(run(`${check} -q abcd`)).rejects.toThrow()
      const { code, out } = await proxy.end("SIGTERM")
      expect(code).toBe(130)
      expect(out).toContain("Latency of TPM commands under vcpu-per-vmpl/kernel")
      expect(out).toMatch(/│ TPM2_Unseal +│ +1 │ 14\.4 us │ 7\.89 us │/)
    } finally {
      rmSync(folder, { recursive: true, force: true })
      await proxy.end("SIGTERM")
    }
  })
})

describe.skipIf(!hasTools)("tpm-proxy --attest", () => {
  it("has the SVSM attest the EK that a client finds in the guest's TPM, in evidence that verify takes", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vmpl-lab-tools-"))
    const evidence = join(folder, "evidence")
    const proxy = await startProxy(["--attest", evidence, "--nonce", "0102", "--strategy", "planes/kernel"])
    try {
      await tool(proxy.port, folder, "tpm2_createek -c ek.ctx -G rsa -u ek.pub")
      const verified = await vmplLab(["verify", evidence, "--nonce", "0102", "--json"])
      expect([verified.code, verified.err]).toEqual([0, ""])
      // Behind the size of a TPM2B_PUBLIC.
      expect(readFileSync(join(evidence, "manifest.bin"))).toEqual(readFileSync(join(folder, "ek.pub")).subarray(2))
      expect((await vmplLab(["verify", evidence, "--nonce", "0103"])).code).toBe(1)
    } finally {
      await proxy.end("SIGTERM")
      rmSync(folder, { recursive: true, force: true })
    }
  })
})

describe("tpm-proxy, what it refuses", () => {
  it.each([
    [["--attest", "nowhere"], "--attest: given without --nonce, expected both"],
    [["--nonce", "00"], "--nonce: given without --attest, expected both"],
    [["--attest", "/", "--nonce", "00"], "--attest: /: not empty, expected a new or an empty folder"]
  ])("%s", async (args, line) => {
    expect(await vmplLab(["tpm-proxy", ...args])).toEqual({ code: 2, out: "", err: `vmpl-lab: ${line}\n` })
  })

  it.each([
    ["0.0.0.0:2321", '--listen: "0.0.0.0" is not a loopback address'],
    ["192.168.1.2:2321", '--listen: "192.168.1.2" is not a loopback address'],
    ["example.org:2321", '--listen: "example.org" is not a loopback address'],
    ["127.0.0.1", "--listen: expected HOST:PORT with a loopback address"],
    ["127.0.0.1:0", "--listen: port 0, expected 1 to 65534"],
    ["127.0.0.1:65535", "--listen: port 65535, expected 1 to 65534"]
  ])("--listen %s", async (listen, line) => {
    const { code, out, err } = await vmplLab(["tpm-proxy", "--listen", listen])
    expect([code, out]).toEqual([2, ""])
    expect(err).toContain(`vmpl-lab: ${line}`)
    expect(err.trim().split("\n")).toHaveLength(1)
  })

  it("a strategy that stands for several", async () => {
    const { code, err } = await vmplLab(["tpm-proxy", "--strategy", "planes"])
    expect(code).toBe(2)
    expect(err).toBe(
      'vmpl-lab: --strategy: "planes" stands for several strategies, expected one of planes/user-space, planes/kernel\n'
    )
  })

  it("a machine without swtpm: what to install", async () => {
    const { code, out, err } = await vmplLab(["tpm-proxy"], "", { PATH: "/nowhere" })
    expect([code, out]).toEqual([1, ""])
    expect(err).toBe(
      "vmpl-lab: the run failed: swtpm is not installed, expected the program of Debian's package swtpm on the PATH\n"
    )
  })
})
