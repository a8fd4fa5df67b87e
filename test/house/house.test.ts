/**
 * The rules of the house, checked on every file. Each check is also shown a bad sample, so that a check which can no
 * longer fail is found out.
 */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import {
  ARROWS,
  arrowFindings,
  boundaryFindings,
  dependencyFindings,
  determinismFindings,
  effectFindings,
  INSIDE,
  importsOf,
  indexFindings,
  lengthFindings,
  manifestFindings,
  OUTSIDE,
  pathFindings,
  sharedFindings,
  specFindings,
  specTagsOf,
  versionFindings
} from "./Checks.ts"
import { type Manifest, manifests, type SourceFile, sourceFiles, textOf } from "./SourceFiles.ts"

// This file quotes bad samples.
const files = sourceFiles().filter(({ path }) => path !== "test/house/house.test.ts")
const packages = manifests(files)
const dependencies = textOf("docs/dependencies.md")
const specs: { readonly [tag: string]: { readonly title: string; readonly revision: string } } = JSON.parse(
  textOf("docs/specs.json")
).documents

const file = (path: string, text: string): SourceFile => ({ path, text })
const manifest = (name: string, uses: ReadonlyArray<string>, versions = "1.0.0"): Manifest => ({
  path: `packages/${name}/package.json`,
  name: `@vmpl-lab/${name}`,
  dependencies: Object.fromEntries(uses.map((one) => [one, versions])),
  devDependencies: {}
})

describe("what is looked at", () => {
  it("is the whole repository", () => {
    const folders = new Set(files.map(({ path }) => path.split("/").slice(0, 2).join("/")))
    for (const name of Object.keys(ARROWS)) expect(folders).toContain(`packages/${name}`)
    for (const name of ["docs/specs.json", "bench/host", "test/house", ".ci/run", "profiles/epyc-9654p.json"])
      expect(folders).toContain(name)
    expect(files.length).toBeGreaterThan(150)
    expect(packages.length).toBe(1 + Object.keys(ARROWS).length)
  })

  it("includes every form of import", () => {
    const text = `
      import a from "a"
      import {
        b,
        type B
      } from "b"
      import "c"
      export * from "d"
      export { e } from 'e'
      const f = await import("f")
      // import g from "g"
      /* import h from "h" */
      const text = "imported from nowhere"
    `
    expect(importsOf(text).toSorted()).toEqual(["a", "b", "c", "d", "e", "f"])
  })
})

describe("packages", () => {
  it("import along the arrows only, and what their package.json names", () => {
    expect(arrowFindings(files, packages)).toEqual([])
    const down = file("packages/rmp/src/A.ts", 'import { x } from "@vmpl-lab/vmpl"\n')
    expect(arrowFindings([down], [manifest("rmp", ["@vmpl-lab/vmpl"])])).toHaveLength(1)
    const undeclared = file("packages/vmpl/src/A.ts", 'import { x } from "@vmpl-lab/rmp"\n')
    expect(arrowFindings([undeclared], [manifest("vmpl", [])])).toHaveLength(1)
    expect(arrowFindings([undeclared], [manifest("vmpl", ["@vmpl-lab/rmp"])])).toEqual([])
  })

  it("depend along the arrows only", () => {
    expect(manifestFindings(packages)).toEqual([])
    expect(manifestFindings([manifest("psp", ["@vmpl-lab/sim"])])).toHaveLength(1)
    expect(manifestFindings([manifest("surprise", [])])).toHaveLength(1)
  })

  it("of the guest and of the host never meet", () => {
    expect(boundaryFindings(files)).toEqual([])
    for (const [from, to] of INSIDE.flatMap((a) => OUTSIDE.flatMap((b) => [[a, b] as const, [b, a] as const]))) {
      expect(ARROWS[from]).not.toContain(to)
      const bad = file(`packages/${from}/src/A.ts`, `export * from "@vmpl-lab/${to}"\n`)
      expect(boundaryFindings([bad])).toHaveLength(1)
    }
  })

  it("are used through their index", () => {
    expect(indexFindings(files)).toEqual([])
    const bad = [
      file("packages/vmpl/src/A.ts", 'import { x } from "../../rmp/src/Rmp.ts"\n'),
      file("packages/vmpl/src/B.ts", 'import { x } from "@vmpl-lab/rmp/src/Rmp.ts"\n'),
      file("test/support/C.ts", 'import { x } from "../../packages/lab/src/Machine.ts"\n'),
      file("bench/host/D.ts", 'const x = await import("../../packages/lab/src/Machine.ts")\n')
    ]
    expect(indexFindings(bad)).toHaveLength(bad.length)
    expect(indexFindings([file("packages/vmpl/test/A.ts", 'import { x } from "../src/Run.ts"\n')])).toEqual([])
  })
})

describe("below the seam", () => {
  it("nobody uses Effect", () => {
    expect(effectFindings(files, packages)).toEqual([])
    const bad = file("packages/sim/src/A.ts", 'import * as Effect from "effect/Effect"\n')
    expect(effectFindings([bad], [])).toHaveLength(1)
    expect(effectFindings([], [manifest("sim", ["@effect/platform-node"])])).toHaveLength(1)
    expect(effectFindings([file("packages/lab/src/A.ts", bad.text)], [manifest("lab", ["effect"])])).toEqual([])
  })

  it("nothing depends on clocks, chance or promises", () => {
    expect(determinismFindings(files)).toEqual([])
    const bad = [
      "Date.now()",
      "new Date()",
      "Math.random()",
      "performance.now()",
      "async () => {}",
      "`$" + "{Date.now()}`"
    ]
    for (const code of bad) {
      expect(determinismFindings([file("packages/sim/src/A.ts", `const x = ${code}\n`)])).toHaveLength(1)
    }
    const good = '/** Not a Date. */ // Math.random\nconst x = "performance"\nconst update = 1\n'
    expect(determinismFindings([file("packages/sim/src/A.ts", good)])).toEqual([])
  })
})

describe("files", () => {
  it("are at most 500 lines long", () => {
    expect(lengthFindings(files)).toEqual([])
    expect(lengthFindings([file("packages/rmp/src/A.ts", "x\n".repeat(500))])).toEqual([])
    expect(lengthFindings([file("packages/rmp/src/A.ts", "x\n".repeat(501))])).toHaveLength(1)
  })

  it("of the product read nothing from a folder shared", () => {
    expect(sharedFindings(files)).toEqual([])
    expect(sharedFindings([file("packages/lab/src/A.ts", 'read("../shared/x.json")\n')])).toHaveLength(1)
  })

  it("name no path of one machine", () => {
    expect(pathFindings(files)).toEqual([])
    for (const folder of ["work", "home", "root", "tmp", "Users"]) {
      const path = ["", folder, "someone", "x.ts"].join("/")
      expect(pathFindings([file("README.md", `see \`${path}\`\n`)])).toHaveLength(1)
    }
    expect(pathFindings([file("README.md", "/usr/share/ovmf/OVMF.fd, docs/work/x, https://a.b/home/x\n")])).toEqual([])
  })
})

describe("the lock file", () => {
  it("names the optional packages of every platform, or npm ci refuses it", () => {
    const script = fileURLToPath(new URL("../../scripts/complete-lock.mjs", import.meta.url))
    const { status, stderr } = spawnSync(process.execPath, [script, "--check"], { encoding: "utf8" })
    expect(stderr).toBe("")
    expect(status).toBe(0)
  })
})

describe("documents", () => {
  it("give every package and every dependency one line", () => {
    expect(dependencyFindings(packages, dependencies)).toEqual([])
    const table = "| package | version |\n| --- | --- |\n| `@vmpl-lab/rmp` | - |\n| `effect` | ^4.1.0 |\n"
    const used = [manifest("rmp", ["effect"], "^4.1.0")]
    expect(dependencyFindings(used, table)).toEqual([])
    expect(dependencyFindings([manifest("rmp", ["effect", "left-pad"])], table)).toHaveLength(1)
    expect(dependencyFindings([manifest("rmp", [])], table)).toHaveLength(1)
    expect(dependencyFindings(used, table + table)).toHaveLength(2)
  })

  it("give the versions that package.json asks for", () => {
    expect(versionFindings(packages, dependencies)).toEqual([])
    const table = "| `effect` | ^4.1.0 | MIT |\n"
    expect(versionFindings([manifest("lab", ["effect"], "^4.2.0")], table)).toHaveLength(1)
    expect(versionFindings([manifest("lab", ["effect"], "^4.1.0")], table)).toEqual([])
  })

  it("list every specification that the code cites", () => {
    const citing = files.filter(({ path }) => !path.startsWith("test/house/"))
    expect(specFindings(citing, Object.keys(specs))).toEqual([])
    expect(citing.flatMap(({ text }) => specTagsOf(text)).length).toBeGreaterThan(80)
    const bad = file("packages/rmp/src/A.ts", "/** @spec APM9 15.36 */\n")
    expect(specFindings([bad], Object.keys(specs))).toHaveLength(1)
    expect(specTagsOf("@spec SVSM 6.3, GHCB 4.1.9 */\n@spec APM2 15.36, appendix B\n@spec-silent U1")).toEqual([
      "SVSM",
      "GHCB",
      "APM2"
    ])
  })

  it("give each specification a title and a revision", () => {
    for (const { title, revision } of Object.values(specs)) {
      expect(title).not.toBe("")
      expect(revision).not.toBe("")
    }
  })
})
