#include "rmp.h"

#define OWNERSHIP (RMP_ASSIGNED | RMP_LARGE | RMP_IMMUTABLE | RMP_GPA_MASK | RMP_ASID_MASK)

#define MAY_READ 1
#define MAY_WRITE 2
#define MAY_EXECUTE_USER 4
#define MAY_EXECUTE_SUPERVISOR 8

static int is_permitted(uint32_t mask, enum rmp_access kind, uint32_t cpl)
{
	switch (kind) {
	case RMP_READ:
		return (mask & MAY_READ) != 0;
	case RMP_FETCH:
		return (mask & (cpl == 3 ? MAY_EXECUTE_USER : MAY_EXECUTE_SUPERVISOR)) != 0;
	default:
		return (mask & (MAY_READ | MAY_WRITE)) == (MAY_READ | MAY_WRITE);
	}
}

/* Hypervisor-Owned, of which a 2 MiB access asks all entries of the region. */
static uint32_t check_shared(const struct rmp *rmp, enum rmp_access kind, uint64_t pfn, int npt_2m)
{
	uint64_t index = pfn - rmp->base_pfn;
	uint64_t count = npt_2m ? 512 : 1;

	if (kind != RMP_WRITE || index >= rmp->pages)
		return RMP_OK;
	for (index &= ~(count - 1); count > 0; count--, index++)
		if (rmp->entries[index].low & RMP_ASSIGNED)
			return RMP_NPF;
	return RMP_OK;
}

uint32_t rmp_check_guest(const struct rmp *rmp, uint32_t asid, uint32_t vmpl, uint32_t cpl, enum rmp_access kind,
			 int cbit, uint64_t gfn, uint64_t pfn, int npt_2m)
{
	const struct rmp_entry *entry;
	uint64_t index = pfn - rmp->base_pfn;
	uint64_t offset = npt_2m ? index & 511 : 0;
	uint64_t owned;

	if (!cbit && kind != RMP_FETCH)
		return check_shared(rmp, kind, pfn, npt_2m);
	if (index >= rmp->pages)
		return RMP_NPF;
	entry = &rmp->entries[index - offset];
	owned = RMP_ASSIGNED | (npt_2m ? RMP_LARGE : 0) | ((gfn - offset) << RMP_GPA_SHIFT & RMP_GPA_MASK) |
		(uint64_t)asid << RMP_ASID_SHIFT;
	if ((entry->low & OWNERSHIP) != owned)
		return RMP_NPF;
	if (!(entry->low & RMP_VALIDATED))
		return RMP_NOT_VALIDATED;
	return is_permitted(entry->high >> (vmpl * 8) & 0xff, kind, cpl) ? RMP_OK : RMP_NPF_VMPL;
}
