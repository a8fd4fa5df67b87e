import type { Basis } from "@vmpl-lab/sim"
import { Html, html } from "./Html.ts"

/** Where a primitive's time is spent, for colour: five layers are as many as a reader can tell apart. */
export const LAYERS = ["guest", "world", "kvm", "user", "threads"] as const
export type Layer = (typeof LAYERS)[number]

export const LAYER_TEXT: { readonly [K in Layer]: string } = {
  guest: "guest",
  world: "exit and entry (#VMEXIT, VMRUN, TLB)",
  kvm: "KVM",
  user: "user space (exit, VMM, ioctl, entry)",
  threads: "threads (hand-off, kick, waiting)"
}

/** By the primitive's name; what nothing else claims is KVM's. */
const RULES: ReadonlyArray<readonly [RegExp, Layer]> = [
  [/^(?:vmexit|vmrun|tlb)_/, "world"],
  [/^(?:vc_exception|pvalidate|rmpadjust|guest_)/, "guest"],
  [/^(?:userspace_|vmm_|ioctl)/, "user"],
  [/^(?:thread_|core_wait|ipi_|futex|eventfd|wake|halt_poll|sched|deep_idle|signal)/, "threads"]
]

/** A sum of several primitives goes by its first. */
export const layerOf = (primitive: string): Layer => RULES.find(([rule]) => rule.test(primitive))?.[1] ?? "kvm"

export const BASES: ReadonlyArray<Basis> = ["measured", "published", "assumed"]

/** Fill of a bar: the layer's colour, and the basis as a texture that needs no colour to be told. */
export const fillOf = (layer: Layer, basis: Basis): string =>
  basis === "measured" ? `var(--${layer})` : `url(#${layer}-${basis})`

const TEXTURE: { readonly [K in Basis]: string } = {
  measured: "",
  published: '<path d="M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4" style="stroke:var(--paper);stroke-width:1.6"/>',
  assumed:
    '<circle cx="2" cy="2" r="1.5" style="fill:var(--paper)"/><circle cx="6" cy="6" r="1.5" style="fill:var(--paper)"/>'
}

const pattern = (layer: Layer, basis: Basis): string =>
  `<pattern id="${layer}-${basis}" width="8" height="8" patternUnits="userSpaceOnUse">` +
  `<rect width="8" height="8" style="fill:var(--${layer})"/>${TEXTURE[basis]}</pattern>`

/** The textures, once for the whole page; they are referred to, never shown themselves. */
export const textures = (): Html => {
  const patterns = LAYERS.flatMap((layer) => [pattern(layer, "published"), pattern(layer, "assumed")])
  return new Html(
    `<svg aria-hidden="true" focusable="false" width="0" height="0" class="textures"><defs>${patterns.join("")}</defs></svg>`
  )
}

const swatch = (fill: string): Html =>
  html`<svg aria-hidden="true" focusable="false" width="22" height="12"><rect width="22" height="12" fill="${fill}"/></svg>`

/** Keys of a picture: the layers by colour, the bases by texture. */
export const layerLegend = (layers: ReadonlyArray<Layer>, bases: ReadonlyArray<Basis>): Html =>
  html`<ul class="legend">${layers.map((layer) => html`<li>${swatch(`var(--${layer})`)} ${LAYER_TEXT[layer]}</li>`)}</ul>
<ul class="legend">${bases.map((basis) => html`<li>${swatch(fillOf("kvm", basis))} ${basis} price</li>`)}</ul>`
