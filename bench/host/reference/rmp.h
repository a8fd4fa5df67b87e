/* The RMP access check in C, for comparison: 16-byte entries in the layout of Zen 3 and Zen 4, one array. */
#ifndef RMP_H
#define RMP_H

#include <stdint.h>

struct rmp_entry {
	uint64_t low;  /* assigned 0, page size 1, immutable 2, GPA >> 12 at 50:12, ASID 60:51, VMSA 61, validated 62 */
	uint64_t high; /* one mask byte per VMPL, VMPL0 lowest */
};

struct rmp {
	struct rmp_entry *entries;
	uint64_t base_pfn;
	uint64_t pages;
};

#define RMP_ASSIGNED (UINT64_C(1) << 0)
#define RMP_LARGE (UINT64_C(1) << 1)
#define RMP_IMMUTABLE (UINT64_C(1) << 2)
#define RMP_GPA_SHIFT 12
#define RMP_GPA_MASK (UINT64_C(0x7fffffffff) << RMP_GPA_SHIFT)
#define RMP_ASID_SHIFT 51
#define RMP_ASID_MASK (UINT64_C(0x3ff) << RMP_ASID_SHIFT)
#define RMP_VALIDATED (UINT64_C(1) << 62)

enum rmp_access { RMP_READ, RMP_WRITE, RMP_FETCH };

/* Results are numbers that the simulator uses too, so that both can be compared. */
#define RMP_OK 0
#define RMP_NPF 0x1100
#define RMP_NPF_VMPL 0x5100
#define RMP_NOT_VALIDATED 0x400

/* Access by an SNP guest, mapped with 4 KiB (npt_2m 0) or 2 MiB. */
uint32_t rmp_check_guest(const struct rmp *rmp, uint32_t asid, uint32_t vmpl, uint32_t cpl, enum rmp_access kind,
			 int cbit, uint64_t gfn, uint64_t pfn, int npt_2m);

#endif
