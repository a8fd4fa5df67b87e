/** What travels between interrupt controllers: an IPI, an I/O APIC's interrupt or an MSI (struct kvm_lapic_irq). */
export interface ApicMessage {
  /** APIC ID, or logical destination: 8 bits, or 32 bits when `x2apic`. */
  readonly destination: number
  readonly logical: boolean
  /** DESTINATION_SHORTHAND. */
  readonly shorthand: 0 | 1 | 2 | 3
  /** DELIVERY_MODE. */
  readonly deliveryMode: number
  /** Vector, or the page number of a SIPI. */
  readonly vector: number
  readonly levelTriggered: boolean
  readonly assert: boolean
  /** APIC ID of the sender, or -1 for an MSI or an I/O APIC. */
  readonly sender: number
  /** The destination is in the 32-bit format of x2APIC. */
  readonly x2apic: boolean
}
