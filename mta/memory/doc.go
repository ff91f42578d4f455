// Package memory keeps the process within the memory that its control group
// allows (cgroup v2, or the memory controller of v1): the garbage collector is
// told a limit that leaves room for what is not its own, and Check says when
// so little is left that no new mail should be taken. The kernel kills what
// goes over the limit without asking.
//
// Where no limit is set the package does nothing. What it leaves out on
// purpose: the memory of the whole machine, which is not ours to share out,
// and GOMEMLIMIT, which is obeyed as it is where somebody has set it.
package memory
