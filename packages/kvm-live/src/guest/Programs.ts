/** Ports that the guests here write to: each write is a call for user space. */
export const PORT = { DONE: 0x10, ASK: 0x11, ANSWER: 0x12 } as const

const OUT_AL = 0xe6
const JMP_SHORT = 0xeb
const UD2 = [0x0f, 0x0b]

/** A jump by bytes from the end of the instruction. */
const back = (bytes: number): number => 0x100 - bytes

/** The calling area that ASK and ANSWER share, from the address in RBX: call_pending, then two counters. */
export const CALLING_AREA = { call_pending: 0, asked: 4, answered: 8 } as const

/** out DONE; again. The same bytes in real and in long mode. */
export const PORT_WRITE_LOOP = Uint8Array.of(OUT_AL, PORT.DONE, JMP_SHORT, back(4))

/** CPUID leaf 0 as often as (R)SI says, then out DONE; again. The same bytes in both modes. */
export const CPUID_LOOP = Uint8Array.of(
  // xor eax, eax; cpuid; dec esi; jnz to the start
  ...[0x31, 0xc0, 0x0f, 0xa2, 0xff, 0xce, 0x75, back(8)],
  ...[OUT_AL, PORT.DONE, JMP_SHORT, back(12)]
)

/** Two instructions on registers as often as (R)SI says, then out DONE; again. */
export const REGISTER_LOOP = Uint8Array.of(0xff, 0xce, 0x75, back(4), OUT_AL, PORT.DONE, JMP_SHORT, back(8))

/** The same with a store, at RDI. */
export const STORE_LOOP = Uint8Array.of(
  ...[0xc6, 0x07, 0x01, 0xff, 0xce, 0x75, back(7)],
  ...[OUT_AL, PORT.DONE, JMP_SHORT, back(11)]
)

/** The same with an instruction that loads and stores, at RDI. */
export const UPDATE_LOOP = Uint8Array.of(
  ...[0xff, 0x47, CALLING_AREA.asked, 0xff, 0xce, 0x75, back(7)],
  ...[OUT_AL, PORT.DONE, JMP_SHORT, back(11)]
)

/** sti; hlt; cli; out DONE; again. An interrupt that comes before hlt waits for it: sti holds it back so long. */
export const HALT_LOOP = Uint8Array.of(0xfb, 0xf4, 0xfa, OUT_AL, PORT.DONE, JMP_SHORT, back(7))

/** Stays in the guest until something from outside ends it. */
export const SPIN = Uint8Array.of(JMP_SHORT, back(2))

/** iret, for the interrupt that ends a halt. */
export const IRET = Uint8Array.of(0xcf)

/**
 * The guest at level 2, long mode: call_pending = 1, asks by a port write, takes call_pending back, which must be 0 by
 * then, and counts. A call that was not served ends in a triple fault.
 */
export const ASK_LOOP = Uint8Array.of(
  // mov byte [rbx], 1; out ASK
  ...[0xc6, 0x03, 0x01, OUT_AL, PORT.ASK],
  // xor eax, eax; xchg [rbx], al; test al, al; jnz to the end
  ...[0x31, 0xc0, 0x86, 0x03, 0x84, 0xc0, 0x75, 5],
  // inc dword [rbx + 4]; again
  ...[0xff, 0x43, CALLING_AREA.asked, JMP_SHORT, back(18)],
  ...UD2
)

/** The guest at level 0, long mode: a call must be pending; serves it, counts, and lets level 2 run by a port write. */
export const ANSWER_LOOP = Uint8Array.of(
  // mov al, [rbx]; cmp al, 1; jne to the end
  ...[0x8a, 0x03, 0x3c, 0x01, 0x75, 10],
  // mov byte [rbx], 0; inc dword [rbx + 8]; out ANSWER; again
  ...[0xc6, 0x03, 0x00, 0xff, 0x43, CALLING_AREA.answered, OUT_AL, PORT.ANSWER, JMP_SHORT, back(16)],
  ...UD2
)

/** ASK and ANSWER in one vCPU that never leaves the kernel: a CPUID stands where each switch would be, RSI round trips. */
export const IN_KERNEL_LOOP = Uint8Array.of(
  // mov byte [rdi], 1; xor eax, eax; cpuid; inc dword [rdi + 8]; mov byte [rdi], 0
  ...[0xc6, 0x07, 0x01, 0x31, 0xc0, 0x0f, 0xa2, 0xff, 0x47, CALLING_AREA.answered, 0xc6, 0x07, 0x00],
  // xor eax, eax; cpuid; inc dword [rdi + 4]; dec esi; jnz to the start
  ...[0x31, 0xc0, 0x0f, 0xa2, 0xff, 0x47, CALLING_AREA.asked, 0xff, 0xce, 0x75, back(24)],
  ...[OUT_AL, PORT.DONE, JMP_SHORT, back(28)]
)
