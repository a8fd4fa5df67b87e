import type { Manifest, SourceFile } from "./SourceFiles.ts"

/** A broken rule, one line: the place and what is wrong. Every check returns those it finds, none when all is well. */
export type Finding = string

const SCOPE = "@vmpl-lab/"

/**
 * Which packages each package may use. Inside of the guest and outside of it never meet in an import: they meet in
 * bytes of memory and in what the hardware lets through.
 */
export const ARROWS: { readonly [name: string]: ReadonlyArray<string> } = {
  "sev-es": [],
  rmp: [],
  sim: [],
  vmpl: ["sev-es", "rmp", "sim"],
  psp: ["sev-es", "rmp"],
  guest: ["vmpl", "sev-es"],
  hypervisor: ["vmpl", "sev-es", "rmp", "psp", "sim"],
  svsm: ["guest", "vmpl", "sev-es", "psp", "rmp"],
  "hv-strategies": ["hypervisor", "vmpl", "sev-es", "rmp", "sim"],
  "kvm-live": ["sim"],
  lab: ["sev-es", "rmp", "sim", "vmpl", "psp", "guest", "hypervisor", "svsm", "hv-strategies", "kvm-live"]
}

/** Software inside the guest, and software outside of it. */
export const INSIDE: ReadonlyArray<string> = ["guest", "svsm"]
export const OUTSIDE: ReadonlyArray<string> = ["hypervisor", "hv-strategies"]

/** The one package above the seam: it may use Effect, clocks and promises. */
const ABOVE_THE_SEAM = "lab"

/** Measures a real machine, so it needs clocks; no simulated run depends on it. */
const MEASURES = "kvm-live"

const LINES_MAX = 500

/** Source without comments, strings kept. A `//` inside a string would be cut too; imports have none. */
const withoutComments = (text: string): string =>
  text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[^:"'`])\/\/.*$/gm, "$1")

/** Code alone: without comments and without the contents of strings. */
const codeOf = (text: string): string =>
  withoutComments(text)
    .replace(/"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g, '""')
    .replace(/`(?:[^`\\]|\\.)*`/g, (template) => (template.match(/\$\{[^}]*\}/g) ?? []).join(" "))

/** Module specifiers of a file: import and export declarations, bare imports, dynamic imports. */
export const importsOf = (text: string): ReadonlyArray<string> => {
  const code = withoutComments(text)
  const forms = [
    /^\s*(?:import|export)\b[^"'`;]*?\bfrom\s*["']([^"']+)["']/gm,
    /^\s*import\s*["']([^"']+)["']/gm,
    /\b(?:import|require|resolve)\(\s*["'`]([^"'`]+)["'`]/g
  ]
  return forms.flatMap((form) => [...code.matchAll(form)].map((match) => match[1] ?? ""))
}

/** The package that a file belongs to, without the scope; null outside of packages. */
const packageOf = (path: string): string | null => /^packages\/([^/]+)\//.exec(path)?.[1] ?? null

const isCode = ({ path }: SourceFile): boolean => /\.(?:ts|mjs|js)$/.test(path)
const isProduct = ({ path }: SourceFile): boolean => /^packages\/[^/]+\/(?:src|bin)\//.test(path)
const isBelowTheSeam = (file: SourceFile): boolean => isProduct(file) && packageOf(file.path) !== ABOVE_THE_SEAM

/** `a/b/../c` as `a/c`. */
const resolved = (folder: string, specifier: string): string => {
  const parts = folder.split("/")
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop()
    else if (part !== ".") parts.push(part)
  }
  return parts.join("/")
}

const folderOf = (path: string): string => path.slice(0, Math.max(0, path.lastIndexOf("/")))

/** Imports of one package by another that the arrows do not allow, or that its package.json does not name. */
export const arrowFindings = (
  files: ReadonlyArray<SourceFile>,
  packages: ReadonlyArray<Manifest>
): ReadonlyArray<Finding> =>
  files.filter(isCode).flatMap((file) => {
    const from = packageOf(file.path)
    if (from === null) return []
    const manifest = packages.find(({ path }) => path === `packages/${from}/package.json`)
    return importsOf(file.text).flatMap((specifier) => {
      if (!specifier.startsWith(SCOPE)) return []
      const to = specifier.slice(SCOPE.length).split("/")[0] ?? ""
      // A test may use its package as others do.
      if (to === from) return isProduct(file) ? [`${file.path}: imports its own package by name`] : []
      if (!(ARROWS[from] ?? []).includes(to)) return [`${file.path}: ${from} must not import ${to}`]
      const declared = manifest !== undefined && `${SCOPE}${to}` in manifest.dependencies
      return declared ? [] : [`${file.path}: imports ${to}, which packages/${from}/package.json does not name`]
    })
  })

/** Packages without a place in the arrows, and dependencies between packages that the arrows do not allow. */
export const manifestFindings = (packages: ReadonlyArray<Manifest>): ReadonlyArray<Finding> =>
  packages.flatMap(({ path, dependencies, devDependencies }) => {
    const from = packageOf(path)
    if (from === null) return []
    const allowed = ARROWS[from]
    if (allowed === undefined) return [`${path}: ${from} has no place among the arrows`]
    return Object.keys({ ...dependencies, ...devDependencies })
      .filter((name) => name.startsWith(SCOPE) && !allowed.includes(name.slice(SCOPE.length)))
      .map((name) => `${path}: ${from} must not depend on ${name}`)
  })

/** Imports across the guest's boundary, whatever the arrows say. */
export const boundaryFindings = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Finding> =>
  files.filter(isCode).flatMap((file) => {
    const from = packageOf(file.path) ?? ""
    const others = INSIDE.includes(from) ? OUTSIDE : OUTSIDE.includes(from) ? INSIDE : []
    return importsOf(file.text)
      .filter((specifier) => others.some((other) => `${specifier}/`.startsWith(`${SCOPE}${other}/`)))
      .map((specifier) => `${file.path}: imports ${specifier} across the guest's boundary`)
  })

/** Imports that reach into a package past its index. */
export const indexFindings = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Finding> =>
  files.filter(isCode).flatMap((file) =>
    importsOf(file.text).flatMap((specifier) => {
      const finding = `${file.path}: imports ${specifier}, past the index of a package`
      if (specifier.startsWith(SCOPE)) return specifier.slice(SCOPE.length).includes("/") ? [finding] : []
      if (!specifier.startsWith(".")) return []
      const target = packageOf(`${resolved(folderOf(file.path), specifier)}/`)
      return target !== null && target !== packageOf(file.path) ? [finding] : []
    })
  )

/** Effect below the seam, in code or in a package.json. */
export const effectFindings = (
  files: ReadonlyArray<SourceFile>,
  packages: ReadonlyArray<Manifest>
): ReadonlyArray<Finding> => {
  const isEffect = (name: string) => /^(?:effect|@effect\/[^/]+)(?:\/|$)/.test(name)
  const imported = files
    .filter((file) => isCode(file) && isBelowTheSeam(file))
    .flatMap(({ path, text }) =>
      importsOf(text)
        .filter(isEffect)
        .map((name) => `${path}: imports ${name} below the seam`)
    )
  const declared = packages
    .filter(({ path }) => packageOf(path) !== null && packageOf(path) !== ABOVE_THE_SEAM)
    .flatMap(({ path, dependencies }) =>
      Object.keys(dependencies)
        .filter(isEffect)
        .map((name) => `${path}: depends on ${name} below the seam`)
    )
  return [...imported, ...declared]
}

const NOT_DETERMINED =
  /\bDate\b|\bMath\s*\.\s*random\b|\bperformance\b|\bhrtime\b|\bset(?:Timeout|Interval|Immediate)\b|\bPromise\b|\basync\b|\bawait\b|\brandom(?:Bytes|UUID|Int|FillSync)\b/

/** Clocks, chance and promises below the seam: a run would not repeat itself. */
export const determinismFindings = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Finding> =>
  files
    .filter((file) => isCode(file) && isBelowTheSeam(file) && packageOf(file.path) !== MEASURES)
    .flatMap(({ path, text }) => {
      const found = NOT_DETERMINED.exec(codeOf(text))
      return found === null ? [] : [`${path}: uses ${found[0]} below the seam`]
    })

/** Source files that have grown too long to be read in one go. */
export const lengthFindings = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Finding> =>
  files.filter(isCode).flatMap(({ path, text }) => {
    const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0)
    return lines > LINES_MAX ? [`${path}: ${lines} lines, expected at most ${LINES_MAX}`] : []
  })

/** First cells of the rows of all Markdown tables in a text, without code marks. */
const firstCells = (markdown: string): ReadonlyArray<string> =>
  [...markdown.matchAll(/^\| *`?([^|`]+?)`? *\|/gm)]
    .map((match) => match[1] ?? "")
    .filter((cell) => !/^-+$/.test(cell) && cell !== "package")

/** Packages and dependencies without exactly one line in docs/dependencies.md, and lines without a dependency. */
export const dependencyFindings = (packages: ReadonlyArray<Manifest>, markdown: string): ReadonlyArray<Finding> => {
  const listed = firstCells(markdown)
  const wanted = new Set(
    packages.flatMap(({ path, name, dependencies, devDependencies }) => [
      ...(packageOf(path) === null ? [] : [name]),
      ...Object.keys(dependencies),
      ...Object.keys(devDependencies)
    ])
  )
  const missing = [...wanted].flatMap((name) => {
    const lines = listed.filter((cell) => cell === name).length
    return lines === 1 ? [] : [`docs/dependencies.md: ${name} has ${lines} lines, expected 1`]
  })
  const stale = listed.filter((name) => !wanted.has(name)).map((name) => `docs/dependencies.md: nobody uses ${name}`)
  return [...missing, ...stale]
}

/** Versions in package.json that docs/dependencies.md does not repeat in the line of that dependency. */
export const versionFindings = (packages: ReadonlyArray<Manifest>, markdown: string): ReadonlyArray<Finding> =>
  packages.flatMap(({ path, dependencies, devDependencies }) =>
    Object.entries({ ...dependencies, ...devDependencies }).flatMap(([name, version]) => {
      const line = markdown.split("\n").find((row) => row.startsWith(`| \`${name}\` |`)) ?? ""
      if (name.startsWith(SCOPE) || line === "" || line.includes(` ${version} `)) return []
      return [`${path}: ${name} ${version} stands otherwise in docs/dependencies.md`]
    })
  )

/** Documents that the `@spec` tags of a text cite: the first word, and later ones of the form `GHCB 4.1`. */
export const specTagsOf = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/@spec +([^\n*]+)/g)].flatMap((match) => {
    const [first = "", ...rest] = (match[1] ?? "").split(/[,;]/)
    const further = rest.flatMap((part) => /^ *([A-Z][A-Z0-9]+(?:-[A-Z]+)?) +(?:table +)?["\d]/.exec(part)?.[1] ?? [])
    return [first.trim().split(/\s/)[0] ?? "", ...further]
  })

/** `@spec` tags whose document is not in docs/specs.json. */
export const specFindings = (
  files: ReadonlyArray<SourceFile>,
  documents: ReadonlyArray<string>
): ReadonlyArray<Finding> =>
  files.filter(isCode).flatMap(({ path, text }) =>
    specTagsOf(text)
      .filter((tag) => !documents.includes(tag))
      .map((tag) => `${path}: @spec ${tag} is no document of docs/specs.json`)
  )

/** Product code that reads files from a folder `shared`: what it needs must be part of the repository. */
export const sharedFindings = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Finding> =>
  files
    .filter((file) => isCode(file) && isProduct(file))
    .filter(({ text }) => /(?:^|[^\w-])shared\//m.test(text))
    .map(({ path }) => `${path}: names a path in shared/`)

// Absolute folders of one machine or one person, and a Windows drive. Debian's own /usr/share is the same everywhere.
const MACHINE_PATH = /(?<![\w.\-/:}*])\/(?:work|home|root|tmp|Users|mnt|private)\/\w|\b[A-Z]:\\\w/

/** Paths that exist on one machine only. */
export const pathFindings = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Finding> =>
  files.flatMap(({ path, text }) => {
    const line = text.split("\n").findIndex((one) => MACHINE_PATH.test(one))
    return line < 0 ? [] : [`${path}:${line + 1}: names a path of one machine`]
  })
