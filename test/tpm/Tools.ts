import { execFile, spawnSync } from "node:child_process"
import { createServer } from "node:net"

const found = (program: string): boolean => spawnSync(program, ["--version"], { stdio: "ignore" }).error === undefined

/** Debian's packages swtpm and tpm2-tools are there. */
export const hasSwtpm = found("swtpm")
export const hasTools = hasSwtpm && found("tpm2_quote")

if (!hasSwtpm) process.stderr.write("no swtpm: the tests of the guest's TPM with it are left out\n")
else if (!hasTools) process.stderr.write("no tpm2-tools: the tests of the guest's TPM with them are left out\n")

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(false))
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)))
  })

/** A port of the loopback address that nobody has, and the next one neither. */
export const freePorts = async (): Promise<number> => {
  for (let port = 20_000 + (process.pid % 20_000); ; port += 2) {
    if ((await isFree(port)) && (await isFree(port + 1))) return port
  }
}

/** Runs a tool of tpm2-tools; its standard output, or an error with all that it said. */
export const tool = (port: number, folder: string, line: string): Promise<string> => {
  const [program, ...args] = line.split(" ")
  const env = { ...process.env, TPM2TOOLS_TCTI: `mssim:host=127.0.0.1,port=${port}` }
  return new Promise((resolve, reject) => {
    execFile(program!, args, { cwd: folder, env, timeout: 60_000 }, (error, out, err) => {
      if (error === null) resolve(out)
      else reject(new Error(`${line}: ${err}`))
    })
  })
}
