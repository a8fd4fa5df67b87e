/*
 * Access checks on random pages of a 1 GiB guest: `reference PASSES_TO_WARM_UP PASSES`. Prints nanoseconds per check and
 * a sum over all answers, which the simulator must reach with the same stream of random numbers.
 */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "rmp.h"

#define PAGES 0x40000
#define CHECKS_PER_PASS 0x100000
#define FIRST_GFN 0x100000
#define GUEST_ASID 1
#define OTHER_ASID 2

static uint32_t state = 0x9e3779b9;

static uint32_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state;
}

static void fill(struct rmp *rmp)
{
	static const uint32_t masks[] = { 1, 3, 0xf };

	for (uint64_t pfn = 0; pfn < PAGES; pfn++) {
		uint32_t kind = draw() % 100;
		uint64_t asid = kind < 4 ? OTHER_ASID : GUEST_ASID;
		uint64_t high = 0x0f0f0f0f;

		if (kind < 2)
			continue;
		if (kind >= 6 && kind < 10)
			for (int vmpl = 1; vmpl < 4; vmpl++) {
				high &= ~(UINT64_C(0xff) << vmpl * 8);
				high |= (uint64_t)masks[draw() % 3] << vmpl * 8;
			}
		rmp->entries[pfn].low = RMP_ASSIGNED | (FIRST_GFN + pfn) << RMP_GPA_SHIFT | asid << RMP_ASID_SHIFT |
					(kind < 6 ? 0 : RMP_VALIDATED);
		rmp->entries[pfn].high = kind < 6 ? 0xf : high;
	}
}

static uint32_t pass(const struct rmp *rmp)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < CHECKS_PER_PASS; i++) {
		uint32_t random = draw();
		uint32_t pfn = random & (PAGES - 1);

		sum = sum * 31 + rmp_check_guest(rmp, GUEST_ASID, random >> 18 & 3, 0,
						 (enum rmp_access)((random >> 20 & 0xff) % 3), 1, FIRST_GFN + pfn, pfn, 0);
	}
	return sum;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

int main(int argc, char **argv)
{
	struct rmp rmp = { calloc(PAGES, sizeof(struct rmp_entry)), 0, PAGES };
	uint32_t sum = 0;
	int warm_up = argc > 1 ? atoi(argv[1]) : 1;
	int passes = argc > 2 ? atoi(argv[2]) : 1;
	double begin;

	if (rmp.entries == NULL || passes < 1)
		return 1;
	fill(&rmp);
	for (int i = 0; i < warm_up; i++)
		sum += pass(&rmp);
	begin = now();
	for (int i = 0; i < passes; i++)
		sum += pass(&rmp);
	printf("{\"values\":{\"ns\":%.4f},\"digest\":\"%u\"}\n", (now() - begin) / ((double)passes * CHECKS_PER_PASS), sum);
	free(rmp.entries);
	return 0;
}
