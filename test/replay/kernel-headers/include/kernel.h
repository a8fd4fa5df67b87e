/* What asm/svm.h takes from the rest of the kernel, as far as its definitions of structures need it. */
#ifndef KERNEL_H
#define KERNEL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define __packed __attribute__((__packed__))
#define __always_inline inline __attribute__((__always_inline__))

#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define GENMASK_ULL(high, low) ((~0ULL >> (63 - (high))) & (~0ULL << (low)))
#define GENMASK(high, low) GENMASK_ULL(high, low)
#define PAGE_SIZE 4096

/* The header's own checks of sizes and offsets stay in force. */
#define BUILD_BUG_ON(condition) static_assert(!(condition), #condition)
#define ASSERT_STRUCT_OFFSET(type, member, offset) static_assert(offsetof(type, member) == (offset), #member)

static inline bool test_bit(unsigned bit, const unsigned long *words)
{
	return (words[bit / (8 * sizeof *words)] >> (bit % (8 * sizeof *words))) & 1;
}

static inline void __set_bit(unsigned bit, unsigned long *words)
{
	words[bit / (8 * sizeof *words)] |= 1UL << (bit % (8 * sizeof *words));
}

/* Hyper-V's use of the 32 bytes that the VMCB leaves to software. */
struct hv_vmcb_enlightenments {
	u8 bytes[32];
};

#endif
