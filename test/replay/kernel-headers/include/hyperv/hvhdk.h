/* asm/svm.h includes this file; what it needs of it is in kernel.h. */
