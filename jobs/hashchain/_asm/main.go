// Command _asm writes the kernels of package hashchain for amd64. See go
// generate there.
package main

import (
	"log"
	"os"

	. "github.com/mmcloughlin/avo/build"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: _asm KERNELS -out FILE.s -stubs FILE.go -pkg hashchain")
	}
	which := os.Args[1]
	os.Args = append(os.Args[:1:1], os.Args[2:]...)
	ConstraintExpr("amd64,!purego")
	var err error
	switch which {
	case "avx512":
		err = emitAVX512()
	case "single":
		emitSingle(false)
		emitSingle(true)
	case "avx2":
		emitAVX2()
	default:
		log.Fatalf("no kernels %q", which)
	}
	if err != nil {
		log.Fatal(err)
	}
	Generate()
}
