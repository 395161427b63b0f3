package hashchain

// native lists the kernels of this architecture. None is written yet: those of
// amd64 will define it in a file that -tags purego leaves out.
var native []*kernel
