//go:build !amd64 || purego

package hashchain

// native lists the kernels of this build beside the generic one: there are
// none. On arm64 crypto/sha512 uses the SHA-512 instructions by itself.
var native []*kernel

// Features returns what this machine has of all that kernels ask for.
func Features() []string { return nil }
