/*
 * Prints the size of each structure of asm/svm.h that members.h names, and offset and size of each member:
 * "STRUCTURE . 0 SIZE" and "STRUCTURE MEMBER OFFSET SIZE", in bytes.
 */
#include <stdio.h>

#include "kernel.h"
#include <asm/svm.h>

#define STRUCT(type) printf(#type " . 0 %zu\n", sizeof(struct type));
#define MEMBER(type, member) \
	printf(#type " " #member " %zu %zu\n", offsetof(struct type, member), sizeof(((struct type *)0)->member));

int main(void)
{
#include "members.h"
	return 0;
}
